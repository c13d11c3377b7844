"""Worker processes that die on purpose, for a test to start and to bury."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.crash.matrix import chosen, full
from tests.fixtures.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The whole matrix with `--crash`, else a part of it."""
    if "case" in metafunc.fixturenames:
        cases = full() if metafunc.config.getoption("--crash") else chosen()
        metafunc.parametrize("case", cases, ids=str)


class Undertaker:
    """Starts workers through one forking server and hears how they fare."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._orders, self._news = self._server.stdin, self._server.stdout
        self._heard: list[tuple[int, str]] = []
        self._alive: set[int] = set()
        self._rest = b""

    def order(self, **order: Any) -> None:
        self._orders.write(json.dumps(order, default=str).encode() + b"\n")
        self._orders.flush()

    def hear(self, event: str, pid: int | None = None) -> int:
        """The process that tells of the event, once one does; fails when it ended before, or at the deadline."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for place, (who, what) in enumerate(self._heard):
                if what == event and pid in (None, who):
                    del self._heard[place]
                    return who
            died = next((who for who, what in self._heard if what == "ended" and pid in (None, who)), None)
            assert died is None, f"{died} ended before it was {event}"
            self._listen(deadline - time.monotonic(), f"{pid or 'nobody'} is not {event}")

    def _listen(self, timeout_s: float, fault: str) -> None:
        ready, _, _ = select.select([self._news], [], [], max(0.0, timeout_s))
        assert ready, fault
        data = os.read(self._news.fileno(), 1 << 16)
        assert data, "the server has ended"
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            news = json.loads(line)
            self._heard.append((news["pid"], news["event"]))
            if news["event"] == "working":
                self._alive.add(news["pid"])
            if news["event"] == "ended":
                self._alive.discard(news["pid"])

    def bury(self) -> None:
        """Kills what is left of a test's workers."""
        for pid in list(self._alive):
            os.kill(pid, signal.SIGKILL)
            self.hear("ended", pid)
        self._heard.clear()

    def close(self) -> None:
        self._orders.close()
        self._server.wait(PATIENCE_S)
        self._news.close()


@pytest.fixture(scope="session")
def undertaker() -> Iterator[Undertaker]:
    one = Undertaker()
    yield one
    one.close()


class Mortal:
    """One worker process."""

    def __init__(self, undertaker: Undertaker, pid: int) -> None:
        self.pid = pid
        self._undertaker = undertaker

    async def hear(self, event: str) -> None:
        await asyncio.to_thread(self._undertaker.hear, event, self.pid)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.hear("ended")

    async def close(self) -> None:
        """Lets it put down what it has, in order."""
        self.send(signal.SIGTERM)
        await self.hear("ended")


Begin = Callable[..., Any]


@pytest.fixture
def begin(undertaker: Undertaker, database_url: str, tmp_path: Path) -> Iterator[Begin]:
    """Starts a worker over the test's database and folder, to stand still at a point."""

    async def start(point: str | None = None, *, sandbox: bool, **settings: Any) -> Mortal:
        undertaker.order(folder=tmp_path, database_url=database_url, point=point, sandbox=sandbox, settings=settings)
        return Mortal(undertaker, await asyncio.to_thread(undertaker.hear, "working"))

    yield start
    undertaker.bury()


@pytest.fixture
async def superuser(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    yield connection
    await connection.close()
