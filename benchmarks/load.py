"""How the traffic to a server fares: with a server that misbehaves on order, and against the bare SDK with one that does not.

    python benchmarks/load.py                      # about three minutes on two cores; prints the tables of docs/reliability.md
    python benchmarks/load.py --requests 2000      # a quick look

The server is tests/faulty_server.py, in a process of its own on this machine; nothing leaves the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx2

from mmedeval import Failure, GenerateRequest, Prompt, Sampling
from mmedeval.catalog import Catalog
from mmedeval.host import make_host

PROGRAM = Path(__file__).parents[1] / "tests" / "faulty_server.py"
PASSING = ("429", "429-seconds", "429-date", "500", "529", "reset", "drip", "half", "html", "cut")
FINAL = ("empty", "refusal", "filter", "too_long")
RETRIES = 6
ROUNDS = 3


class Server:
    """The local server; see tests/faulty_server.py for what can be ordered."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, path: str, data: Any = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data=body), timeout=60) as response:
            return json.load(response)


@contextmanager
def local_server() -> Iterator[Server]:
    with subprocess.Popen([sys.executable, "-I", "-S", str(PROGRAM)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


def questions(count: int, name: str) -> list[GenerateRequest]:
    """Questions as long as those of the benchmark: about 700 characters."""
    padding = "A 50-year-old man comes to the physician because of pain in the chest. " * 8
    options = {"A": "aspirin", "B": "heparin", "C": "rest", "D": "surgery"}
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    prompts = [Prompt(question=f"{name} {i}: {padding}\n{listed}", chat=True) for i in range(count)]
    return [GenerateRequest(id=str(i), prompt=each, sampling=Sampling(), options=options) for i, each in enumerate(prompts)]


def resident() -> float:
    """MB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def faults(server: Server, count: int, rates: Mapping[str, float], concurrency: int) -> dict[str, Any]:
    """Asks `count` questions of a server whose tries go wrong at these rates, and counts on both sides what came of them."""
    server.call("/forget", {})
    server.call("/order", {"rates": rates, "seed": 1, "seconds": 0.05})
    arguments = {"base_url": server.url, "concurrency": str(concurrency), "timeout": "0.5", "retries": str(RETRIES)}
    requests = questions(count, "faults")
    reasons: Counter[str] = Counter()
    memory: dict[int, float] = {}
    seen: set[str] = set()
    begun = time.perf_counter()
    with Catalog(make_host()).open_backend("anthropic:claude", arguments) as backend:
        for number, response in enumerate(backend.generate(requests), 1):
            assert response.request_id not in seen, "answered twice"
            seen.add(response.request_id)
            reasons["answered" if not isinstance(response, Failure) else response.message.partition(" (asked")[0]] += 1
            if number in (count // 5, count):
                memory[number] = resident()
    seconds = time.perf_counter() - begun
    counts = server.call("/count")
    return {
        "requests": count,
        "faults": sum(counts["faults"].values()),
        "kinds": len(counts["faults"]),
        "tries": sum(counts["asked"].values()),
        "answered": reasons.pop("answered"),
        "failed": reasons.total(),
        "reasons": dict(reasons),
        "lost": count - len(seen),
        "most_tries": max(counts["asked"].values()),
        "memory": [round(each, 1) for each in memory.values()],
        "seconds": seconds,
    }


def ours(server: Server, requests: Sequence[GenerateRequest], concurrency: int) -> float:
    """Requests per second through the backend."""
    arguments = {"base_url": server.url, "concurrency": str(concurrency)}
    begun = time.perf_counter()
    with Catalog(make_host()).open_backend("anthropic:claude", arguments) as backend:
        answered = sum(not isinstance(response, Failure) for response in backend.generate(requests))
    assert answered == len(requests)
    return answered / (time.perf_counter() - begun)


def bare(server: Server, requests: Sequence[GenerateRequest], concurrency: int) -> float:
    """Requests per second of the SDK alone: so many workers that do nothing but ask and take the text."""
    begun = time.perf_counter()
    texts = asyncio.run(_bare(server, requests, concurrency))
    assert all(texts)
    assert len(texts) == len(requests)
    return len(requests) / (time.perf_counter() - begun)


async def _bare(server: Server, requests: Sequence[GenerateRequest], concurrency: int) -> list[str]:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    http = anthropic.DefaultAsyncHttpxClient(limits=limits)
    todo, texts = iter(requests), []
    async with anthropic.AsyncAnthropic(api_key="none", base_url=server.url, max_retries=0, http_client=http) as client:

        async def work() -> None:
            for request in todo:
                message = await client.messages.create(
                    model="claude",
                    max_tokens=request.sampling.max_tokens,
                    messages=[{"role": "user", "content": request.prompt.question}],
                )
                texts.append("".join(block.text for block in message.content if block.type == "text"))

        await asyncio.gather(*(work() for _ in range(concurrency)))
    return texts


def speed(server: Server, count: int, concurrency: int) -> dict[str, list[tuple[float, float]]]:
    """Requests per second, and CPU milliseconds of this process per request, both ways by turns: both meet the same machine."""
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
    for each in (ours, bare):
        each(server, questions(count // 10, "warming up"), concurrency)
    for number in range(ROUNDS):
        requests = questions(count, f"round {number}")
        for each in (ours, bare) if number % 2 else (bare, ours):
            server.call("/forget", {})
            begun = time.process_time()
            rate = each(server, requests, concurrency)
            found[each.__name__].append((rate, (time.process_time() - begun) / count * 1000))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=64)
    given = parser.parse_args()
    count, concurrency = given.requests, given.concurrency
    kinds = (*PASSING, *FINAL)
    with local_server() as server:
        print(f"## Without faults, {concurrency} in flight, {count // ROUNDS} requests a round\n")
        medians = {}
        for name, rounds in speed(server, count // ROUNDS, concurrency).items():
            rates, costs = zip(*rounds, strict=True)
            medians[name] = statistics.median(rates)
            said = ", ".join(f"{rate:.0f}" for rate in rates)
            print(f"{name}: {said} requests/s, median {medians[name]:.0f}; {statistics.median(costs):.2f} ms of CPU a request")
        print(f"share: {medians['ours'] / medians['bare']:.1%}\n")
        for words, rate, total in (("in all", 0.05 / len(kinds), count), ("of each kind", 0.05, count // 20)):
            print(f"## 5 % faults {words}, {len(kinds)} kinds, {concurrency} in flight\n")
            for name, value in faults(server, total, dict.fromkeys(kinds, rate), concurrency).items():
                print(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}")
            print(flush=True)


if __name__ == "__main__":
    main()
