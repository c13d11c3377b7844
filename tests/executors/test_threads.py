import asyncio
import threading

import pytest

from stepgate.executors.threads import in_thread
from tests.fixtures.patience import PATIENCE_S


async def test_it_gives_the_result_or_the_error() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_cancelled_even_twice_it_waits_for_the_thread(fails: bool) -> None:
    begun, go, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(10)
        ended.set()
        if fails:
            raise ValueError("nobody is left to hear this")

    task = asyncio.create_task(in_thread(work))
    await asyncio.wait_for(begun.wait(), PATIENCE_S)
    for _ in range(2):
        task.cancel()
        _done, waiting = await asyncio.wait([task], timeout=0.02)
        assert waiting == {task}
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
