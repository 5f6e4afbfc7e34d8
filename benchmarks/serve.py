"""A worker's side of the line protocol: JSON commands on standard input, JSON answers on standard output."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

Command = Mapping[str, Any]
Answer = Mapping[str, Any]
T = TypeVar("T")


def serve(about: Answer, load: Callable[[Command], Mapping[str, Callable[[Command], Answer]]]) -> None:
    """Says `about`, then answers until standard input ends. `load` opens a model and returns what can be done with it, by name.

    An error ends the worker; its traceback is on standard error.
    """
    # What libraries print would stand between the answers.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    replies.write(json.dumps(about) + "\n")
    actions: Mapping[str, Callable[[Command], Answer]] = {}
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "load":
            actions, answer = timed(partial(load, command))
        else:
            answer = dict(actions[command["do"]](command))
        replies.write(json.dumps(answer) + "\n")


def timed(work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """The result, with seconds of wall time, seconds of all this process's threads, and its peak memory so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return result, {"wall": wall, "cpu": cpu, "peak_bytes": peak_bytes(resource.getrusage(resource.RUSAGE_SELF))}


def peak_bytes(usage: resource.struct_rusage) -> int:
    """`ru_maxrss` is in KiB, on macOS in bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def read_requests(command: Command) -> list[dict[str, Any]]:
    """The first `items` lines of the file `requests`."""
    lines = Path(command["requests"]).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[: command["items"]]]
