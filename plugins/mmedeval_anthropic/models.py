"""What the provider says of its models: prices, and which of them take a temperature."""

from __future__ import annotations

from collections.abc import Mapping

from mmedeval.servers import Price

PRICES: Mapping[str, Price] = {
    "claude-fable-5-1": Price(input=10, output=50, cached=0.25, written=12.5),
    "claude-mythos-5-1": Price(input=10, output=50, cached=0.25, written=12.5),
    "claude-fable-5": Price(input=10, output=50, cached=1, written=12.5),
    "claude-mythos-5": Price(input=10, output=50, cached=1, written=12.5),
    "claude-opus-5-5": Price(input=4, output=20, cached=0.2, written=5),
    "claude-opus-5": Price(input=5, output=25, cached=0.5, written=6.25),
    "claude-opus-4-8": Price(input=5, output=25, cached=0.5, written=6.25),
    "claude-opus-4-7": Price(input=5, output=25, cached=0.5, written=6.25),
    "claude-opus-4-6": Price(input=5, output=25, cached=0.5, written=6.25),
    "claude-opus-4-5": Price(input=5, output=25, cached=0.5, written=6.25),
    "claude-sonnet-5-5": Price(input=2, output=10, cached=0.1, written=2.5),
    "claude-sonnet-5": Price(input=2, output=10, cached=0.2, written=2.5),
    "claude-sonnet-4-6": Price(input=3, output=15, cached=0.3, written=3.75),
    "claude-sonnet-4-5": Price(input=3, output=15, cached=0.3, written=3.75),
    # Of a prompt of up to 100,000 tokens; longer ones cost five times as much, and no question here is that long.
    "claude-haiku-5-5": Price(input=0.1, output=0.5, cached=0.01, written=0.125),
    "claude-haiku-4-5": Price(input=1, output=5, cached=0.1, written=1.25),
}
"""As published on platform.claude.com/docs/en/about-claude/pricing in October 2026; writing to the cache for five minutes."""

WITH_TEMPERATURE = ("claude-opus-4-6", "claude-opus-4-5", "claude-sonnet-4-6", "claude-sonnet-4-5", "claude-haiku-4-5")
"""Later models refuse any request with a temperature; these take one with the older version of the API."""
VERSION_WITH_TEMPERATURE = "2023-06-01"
