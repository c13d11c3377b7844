"""Processes of Stepgate for a test, closed when it ends."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from stepgate.workspace.sandbox import probing
from tests.worker.lab import Lab, opened

OpenLab = Callable[..., Awaitable[Lab]]
LoseLease = Callable[[Lab], Awaitable[None]]
NoSandbox = Callable[[], AbstractContextManager[None]]


@pytest.fixture
async def open_lab(database_url: str, tmp_path: Path) -> AsyncIterator[OpenLab]:
    """Opens one more process over the test's database and folders; with a worker unless told otherwise."""
    async with AsyncExitStack() as exits:

        async def open_one(**more: Any) -> Lab:
            return await exits.enter_async_context(opened(database_url, tmp_path, **more))

        yield open_one


@pytest.fixture
async def lab(open_lab: OpenLab) -> Lab:
    """A process with a worker."""
    return await open_lab()


@pytest.fixture
async def superuser(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    yield connection
    await connection.close()


@pytest.fixture
def lose_lease(superuser: Any) -> LoseLease:
    """The worker counts as dead from now on, for everybody but itself."""

    async def lose(lab: Lab) -> None:
        lost = await superuser.execute(
            "UPDATE stepgate.workers SET lease_until = clock_timestamp() - interval '1 second' WHERE id = $1",
            lab.worker.id,
        )
        assert lost == "UPDATE 1"

    return lose


@pytest.fixture
def no_sandbox() -> NoSandbox:
    """A host on which there is no bubblewrap, within the block."""

    @contextmanager
    def hidden() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(probing, "candidates", tuple)
            yield

    return hidden
