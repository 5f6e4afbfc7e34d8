"""What the tests of several packages use: a server that misbehaves on order."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "faulty_server.py"


class FaultyServer:
    """The server of faulty_server.py, in a process of its own; see there for what can be ordered."""

    def __init__(self, port: int = 0) -> None:
        # In isolated mode: a server needs nothing that is installed.
        command = [sys.executable, "-I", "-S", str(PROGRAM), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def order(self, **orders: Any) -> None:
        """Replaces all orders given before."""
        self._call("/order", orders)

    def forget(self) -> None:
        self._call("/forget", {})

    def counts(self) -> dict[str, Any]:
        """What was asked and answered since the last `forget`."""
        return self._call("/count")

    def stop(self) -> None:
        """Kills it; also one that was stopped before."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _call(self, path: str, data: Any = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data=body), timeout=30) as response:
            return json.load(response)


@pytest.fixture(scope="session")
def faulty_process() -> Iterator[FaultyServer]:
    server = FaultyServer()
    yield server
    server.stop()


@pytest.fixture
def faulty_server(faulty_process: FaultyServer) -> FaultyServer:
    """The server, with nothing ordered and nothing seen. A test that stops it starts its own: `make_faulty_server`."""
    faulty_process.forget()
    return faulty_process


@pytest.fixture
def make_faulty_server() -> Iterator[Callable[..., FaultyServer]]:
    """Starts servers for one test, on a port of its choice, and stops them all behind it."""
    started: list[FaultyServer] = []

    def make(port: int = 0) -> FaultyServer:
        started.append(FaultyServer(port))
        return started[-1]

    yield make
    for server in started:
        server.stop()
