"""The doorbell rings in other processes, gathers, comes back after a loss, and is missed by nobody when it fails."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stepgate.domain.ids import RunId, new_id
from stepgate.storage import notify
from stepgate.storage.database import Database
from stepgate.storage.notify import CHANNEL, Doorbell
from tests.fixtures.patience import PATIENCE_S


class Ear:
    """What a process heard, and a way to wait for it."""

    def __init__(self) -> None:
        self.heard: list[RunId] = []
        self._more = asyncio.Event()

    def __call__(self, run_id: RunId) -> None:
        self.heard.append(run_id)
        self._more.set()

    async def until(self, run_id: RunId) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while run_id not in self.heard:
                await self._more.wait()
                self._more.clear()


@pytest.fixture
async def bells(database: Database) -> AsyncIterator[tuple[Doorbell, Doorbell]]:
    both = Doorbell(database), Doorbell(database)
    yield both
    for bell in both:
        await bell.stop()


async def test_a_ring_is_heard_in_the_other_process_only(bells: tuple[Doorbell, Doorbell]) -> None:
    mine, other = Ear(), Ear()
    await bells[0].start(mine)
    await bells[1].start(other)
    run_id = RunId(new_id())
    bells[0].ring(run_id)
    await other.until(run_id)
    bells[1].ring(run_id)
    await mine.until(run_id)
    assert mine.heard == other.heard == [run_id]


async def test_rings_in_a_short_while_are_one(bells: tuple[Doorbell, Doorbell]) -> None:
    ear = Ear()
    await bells[0].start(Ear())
    await bells[1].start(ear)
    often, last = RunId(new_id()), RunId(new_id())
    for _ in range(50):
        bells[0].ring(often)
    bells[0].ring(last)
    await ear.until(last)
    assert ear.heard == [often, last]


async def test_the_bell_listens_again_after_its_connection_was_lost(
    bells: tuple[Doorbell, Doorbell], superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "FIRST_WAIT_S", 0.01)
    ear = Ear()
    await bells[0].start(ear)
    bells_of = """
        SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'stepgate doorbell'
    """
    (first,) = [row["pid"] for row in await superuser.fetch(bells_of)]
    await superuser.execute("SELECT pg_terminate_backend($1, 5000)", first)
    run_id = RunId(new_id())
    async with asyncio.timeout(PATIENCE_S):
        while run_id not in ear.heard:
            await superuser.execute("SELECT pg_notify($1, $2)", CHANNEL, run_id)
            await asyncio.sleep(0)


async def test_ringing_without_a_connection_is_no_error(
    bells: tuple[Doorbell, Doorbell], superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear = Ear()
    await bells[0].start(Ear())
    await bells[1].start(ear)
    bells[0]._drop()
    bells[0].ring(RunId(new_id()))
    bells[0]._broken.set()
    run_id = RunId(new_id())
    async with asyncio.timeout(PATIENCE_S):
        while run_id not in ear.heard:
            bells[0].ring(run_id)
            await asyncio.sleep(0.01)
