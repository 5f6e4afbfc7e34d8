"""What backends that talk to servers have in common: their settings, keys and prices, and what they say of themselves."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from mmedeval.backend import Backend
from mmedeval.batches import BatchService, ask_in_batches
from mmedeval.errors import DataError, ModelError, UsageError
from mmedeval.remote import Session, Talk, Traffic, ask_all
from mmedeval.types import GenerateRequest, Request, Response

R = TypeVar("R", bound=Request)

SERVER_ARGUMENTS: Mapping[str, str] = {
    "base_url": "address of the server, as in http://127.0.0.1:8000/v1 (default: the provider's own)",
    "key_env": "name of the environment variable that holds the key",
    "key_file": "file that holds the key, and nothing else",
    "concurrency": "most requests in flight (default 16; fewer when the server is busy)",
    "retries": "how often a request is tried again (default 6)",
    "timeout": "seconds for one try, to its last byte (default 300)",
    "max_cost": "US dollars after which no request is sent (default: no limit)",
    "prices": "TOML file with prices: a table per model with input, output and perhaps cached, in US dollars per million tokens",
    "batch": "true: the provider's batch interface, at half price, within a day (default false)",
}
"""The `--model-arg` pairs that `ServerOptions` reads; a backend offers those that hold for it."""

CONNECT_SECONDS = 10.0
"""A server that takes no connection for so long takes none."""
FRAME = 64
"""Tokens that a turn of a conversation may take beside its text; a generous bound."""
NOT_GREEDY = (
    "the model gets no temperature: its answers are drawn, not greedy, and differ from run to run; repeat the run to see by "
    "how much"
)
MILLION = 1_000_000
_VERSION = r"-latest|[-@]\d{8}|-\d{4}(-\d\d-\d\d)?"
BATCH_FACTOR = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens. `cached` and `written` are for tokens read from and written to a prompt cache."""

    input: float
    output: float
    cached: float | None = None
    written: float | None = None

    def cost(self, *, tokens_in: int, tokens_out: int, cached: int = 0, written: int = 0, batch: bool = False) -> float:
        """US dollars; `tokens_in` includes the `cached` and `written` ones."""
        paid = (tokens_in - cached - written) * self.input + tokens_out * self.output
        paid += cached * (self.input if self.cached is None else self.cached)
        paid += written * (self.input if self.written is None else self.written)
        return paid / MILLION * (BATCH_FACTOR if batch else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """See `SERVER_ARGUMENTS`. `base_url` is `None` for the provider itself, whose address `address` is then.

    `key` is `None` where none was found; it is in no text that this object gives of itself.
    """

    base_url: str | None
    address: str
    key: str | None = field(repr=False)
    key_place: str
    traffic: Traffic
    prices: Mapping[str, Price]
    batch: bool

    @classmethod
    def parse(cls, arguments: Mapping[str, str], *, key_env: str, url_env: str, address: str) -> ServerOptions:
        """Reads settings, environment and files. Raises `UsageError` for what is wrong, without repeating a secret.

        `address` is the provider's own.
        """
        given = arguments.get("base_url") or os.environ.get(url_env)
        source = "--model-arg base_url" if arguments.get("base_url") else f"the environment variable {url_env}"
        variable, file = arguments.get("key_env", key_env), arguments.get("key_file")
        if file and "key_env" in arguments:
            raise UsageError("--model-arg key_file and key_env name two places for the key; leave one out")
        place = f"the file {file}" if file else f"the environment variable {variable}"
        key = _read_key(Path(file)) if file else os.environ.get(variable, "").strip()
        max_cost = _number(arguments, "max_cost")
        prices = _prices(Path(arguments["prices"])) if "prices" in arguments else {}
        url = _checked_url(given, source) if given else None
        if url is not None and _place(url) == _place(address):
            url = None
        return cls(
            base_url=url,
            address=url or address,
            key=_checked_key(key, place) if key else None,
            key_place=place,
            traffic=Traffic(
                concurrency=_whole(arguments, "concurrency", Traffic().concurrency, least=1),
                retries=_whole(arguments, "retries", Traffic().retries, least=0),
                timeout=_number(arguments, "timeout") or Traffic().timeout,
                max_cost=max_cost,
            ),
            prices=prices,
            batch=flag(arguments, "batch", False),
        )

    def price(self, model: str, known: Mapping[str, Price]) -> Price | None:
        """The user's price for a model, else the one that the backend knows.

        Raises `UsageError` where costs are limited and no price is known.
        """
        for table in (self.prices, known if self.base_url is None else {}):
            name = name_in(table, model)
            if name is not None:
                return table[name]
        if self.traffic.max_cost is not None:
            raise UsageError(
                f"--max-cost {self.traffic.max_cost:g} needs the price of {model}, which is not known; give it with "
                "--model-arg prices=FILE, see docs/backends.md"
            )
        return None

    def required_key(self, what: str) -> str:
        """The key, or a word in its place where a server of one's own may need none. Raises `ModelError` without."""
        if self.key is not None:
            return self.key
        if self.base_url is not None:
            return "none"
        raise ModelError(f"{what} needs a key and {self.key_place} holds none; set it, or use --model-arg key_file=FILE")

    def redact(self, text: str) -> str:
        """The text without the key: servers like to repeat what they were sent."""
        return text.replace(self.key, "[key]") if self.key else text


class ServerBackend(Backend):
    """A model behind a server, known by its name alone: what does not depend on the server's format.

    `address` is shown; `settings` is what changes the answers; with `drawn` no temperature is sent.
    """

    scheme: ClassVar[str]

    def __init__(
        self, name: str, server: ServerOptions, address: str, price: Price | None, settings: Mapping[str, Any], *, drawn: bool
    ) -> None:
        self.name, self.server, self.address, self.price = name, server, address, price
        self.talk = Talk()
        self._settings, self._drawn = settings, drawn
        self._answered_by: set[str] = set()
        self._folder: Path | None = None

    def bound(self, request: Request) -> float:
        """US dollars that a request costs at most, where a price is known."""
        raise NotImplementedError

    def required_key(self) -> str:
        """See `ServerOptions.required_key`."""
        return self.server.required_key(f"{self.scheme}:{self.name}")

    def describe(self) -> Mapping[str, Any]:
        return {
            "server": self.address,
            "known_by": "its name alone: nobody but the provider knows whether it is the same tomorrow",
            "settings": self._settings,
        }

    def check(self, *, chat: bool) -> None:
        self.required_key()

    def runtime(self) -> Mapping[str, Any]:
        if not self.talk.counts:
            return {}
        return {
            "answered_by": sorted(self._answered_by),
            **({"warnings": [NOT_GREEDY]} if self._drawn else {}),
            "process": {**self.talk.describe(), **({} if self.price is None else {"cost": round(self.talk.cost, 6)})},
        }

    def keep_in(self, folder: Path) -> None:
        self._folder = folder

    def most_cost(self, requests: Sequence[Request]) -> float | None:
        return None if self.price is None else sum(map(self.bound, requests))

    def client_arguments(self, timeout: Callable[..., Any]) -> dict[str, Any]:
        """What the providers' SDKs take alike; `timeout` is their class for one. What fails is tried again here, not there."""
        seconds = self.server.traffic.timeout
        return {
            "api_key": self.required_key(),
            "base_url": self.address,
            "max_retries": 0,
            "timeout": timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
        }

    def ask(
        self, requests: Sequence[R], session: Session[R], batches: Callable[[], AbstractContextManager[BatchService[R]]]
    ) -> Iterator[Response]:
        """Asks one by one, in a `session`, or in `batches`, as the user wants it."""
        traffic, most = self.server.traffic, None if self.price is None else self.bound
        if not self.server.batch:
            return ask_all(requests, session, traffic, server=self.address, talk=self.talk, most=most)
        if self._folder is None:
            raise ModelError("--model-arg batch=true needs a run folder, to find its batches again; ask through `mmedeval run`")
        return self._in_batches(requests, batches, self._folder, most)

    def _in_batches(
        self,
        requests: Sequence[R],
        batches: Callable[[], AbstractContextManager[BatchService[R]]],
        folder: Path,
        most: Callable[[R], float] | None,
    ) -> Iterator[Response]:
        with batches() as service:
            yield from ask_in_batches(
                requests, service, folder=folder, traffic=self.server.traffic, server=self.address, talk=self.talk, most=most
            )


def most_tokens(request: Request) -> int:
    """More tokens than any server makes of a prompt, and of what stands around it: no token is shorter than a byte."""
    prompt = request.prompt
    schema = request.schema if isinstance(request, GenerateRequest) else None
    form = 0 if schema is None else FRAME + len(json.dumps(dict(schema)))
    return size(prompt.text) + FRAME * (2 + 2 * len(prompt.shots)) + form


def size(text: str) -> int:
    """Bytes."""
    return len(text.encode("utf-8", "surrogatepass"))


def flag(arguments: Mapping[str, str], name: str, default: bool) -> bool:
    """The argument `name`, which may be true or false. Raises `UsageError` for anything else."""
    value = arguments.get(name, "true" if default else "false")
    if value not in ("true", "false"):
        raise UsageError(f"--model-arg {name}={value} is neither true nor false")
    return value == "true"


def name_in(names: Iterable[str], model: str) -> str | None:
    """The name in a table that a model goes by: its own, or its own without the date, or "latest", that providers put behind it.

    Nothing else may stand there: `x-5-mini` is not `x-5`, and costs something else.
    """
    return next((name for name in names if re.fullmatch(rf"{re.escape(name)}({_VERSION})?", model)), None)


def _checked_url(url: str, source: str) -> str:
    # The address stands in records, so nothing secret may be part of it: it is not repeated here either.
    try:
        parts = urlsplit(url)
        port_is_number = parts.port is None or parts.port > 0
    except ValueError as error:
        raise UsageError(f"{source} is no address; write it as in http://127.0.0.1:8000/v1") from error
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(f"{source} holds a user, a password, or a query; give the key with --model-arg key_env or key_file")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_number:
        raise UsageError(f"{source} {url!r} is no address; write it as in http://127.0.0.1:8000/v1")
    return url.rstrip("/")


def _place(url: str) -> tuple[str, str | None, int | None, str]:
    """What makes two addresses the same one; `/v1` at the end is not always written."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/").removesuffix("/v1")


def _read_key(file: Path) -> str:
    try:
        key = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"--model-arg key_file={file} cannot be read: {error}") from error
    if not key or len(key.splitlines()) > 1:
        raise UsageError(f"--model-arg key_file={file} does not hold one line with the key alone")
    return key


def _checked_key(key: str, place: str) -> str:
    # It goes into a header, which takes no other characters; what it is stays unsaid.
    if not all("!" <= char <= "~" for char in key):
        raise UsageError(
            f"{place} holds a key with a space or a character outside of ASCII; copy the key again, and nothing else"
        )
    return key


def _prices(file: Path) -> Mapping[str, Price]:
    try:
        tables = tomllib.loads(file.expanduser().read_text(encoding="utf-8"))
    except (OSError, RuntimeError) as error:
        raise UsageError(f"--model-arg prices={file} cannot be read: {error}") from error
    except ValueError as error:
        raise DataError(f"{file} is no TOML: {error}") from error
    return {name: _price(table, file, name) for name, table in tables.items()}


def _price(table: Any, file: Path, name: str) -> Price:
    known = ("input", "output", "cached", "written")
    fits = isinstance(table, dict) and {"input", "output"} <= {*table} <= {*known}
    if not fits or not all(isinstance(value, int | float) and 0 <= value < float("inf") for value in table.values()):
        raise DataError(
            f"{file}: the table [{name}] must hold input and output, and may hold cached and written: US dollars per million "
            "tokens, from 0 on"
        )
    return Price(**{key: float(value) for key, value in table.items()})


def _whole(arguments: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    value = arguments.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal()) or int(value) < least:
        raise UsageError(f"--model-arg {name}={value} is no whole number from {least} on")
    return int(value)


def _number(arguments: Mapping[str, str], name: str) -> float | None:
    value = arguments.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise UsageError(f"--model-arg {name}={value} is no number above 0")
    return number
