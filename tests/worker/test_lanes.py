"""How many steps of a type run at once."""

import asyncio

import pytest

from stepgate.worker.lanes import Lane


async def test_a_waiter_cancelled_as_a_place_becomes_free_ends_cancelled_and_loses_no_place() -> None:
    lane = Lane(1)
    assert lane.try_enter()

    async def enter() -> None:
        async with lane:
            raise AssertionError("it was cancelled before its turn")

    waiter = asyncio.create_task(enter())
    await asyncio.sleep(0)
    waiter.cancel()
    lane.leave()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert lane.try_enter()
    assert not lane.try_enter()
