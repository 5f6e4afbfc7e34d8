"""What the provider asks for its models."""

from __future__ import annotations

from collections.abc import Mapping

from mmedeval.servers import Price

PRICES: Mapping[str, Price] = {
    "gpt-6-sol": Price(input=2, output=10, cached=0.2, written=2.5),
    "gpt-6-luna": Price(input=0.1, output=0.5, cached=0.01, written=0.125),
    "gpt-5.6-sol": Price(input=4, output=20, cached=0.4, written=5),
    "gpt-5.6-terra": Price(input=2, output=12, cached=0.2, written=2.5),
    "gpt-5.6-luna": Price(input=0.2, output=1.2, cached=0.02, written=0.25),
    "gpt-5.5": Price(input=5, output=30, cached=0.5),
    "gpt-5.4": Price(input=2.5, output=15, cached=0.25),
    "gpt-5.4-mini": Price(input=0.75, output=4.5, cached=0.075),
    "gpt-5.4-nano": Price(input=0.2, output=1.25, cached=0.02),
    "gpt-5.2": Price(input=1.75, output=14, cached=0.175),
    "gpt-5.1": Price(input=1.25, output=10, cached=0.125),
    "gpt-5": Price(input=1.25, output=10, cached=0.125),
    "gpt-5-mini": Price(input=0.25, output=2, cached=0.025),
    "gpt-5-nano": Price(input=0.05, output=0.4, cached=0.005),
    "gpt-4.1": Price(input=2, output=8, cached=0.5),
    "gpt-4.1-mini": Price(input=0.4, output=1.6, cached=0.1),
    "gpt-4.1-nano": Price(input=0.1, output=0.4, cached=0.025),
    "gpt-4o-2024-05-13": Price(input=5, output=15),
    "gpt-4o": Price(input=2.5, output=10, cached=1.25),
    "gpt-4o-mini": Price(input=0.15, output=0.6, cached=0.075),
    "o3": Price(input=2, output=8, cached=0.5),
    "o4-mini": Price(input=1.1, output=4.4, cached=0.275),
    "o3-mini": Price(input=1.1, output=4.4, cached=0.55),
    "o1": Price(input=15, output=60, cached=7.5),
    "gpt-4-turbo": Price(input=10, output=30),
    "gpt-4": Price(input=30, output=60),
    "gpt-3.5-turbo": Price(input=0.5, output=1.5),
    "gpt-3.5-turbo-instruct": Price(input=1.5, output=2),
    "davinci-002": Price(input=2, output=2),
    "babbage-002": Price(input=0.4, output=0.4),
}
"""As published on developers.openai.com/api/docs/models in October 2026, the older ones when they came out.

For prompts of up to 272,000 tokens, in the standard tier: no question here is longer.
"""
