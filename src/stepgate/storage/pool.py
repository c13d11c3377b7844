"""Driver connections kept open between uses, for statements that are sent too often to be asked for with ceremony."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.storage.errors import is_lost

LONGEST_WAIT_S = 30.0
TRUSTED_S = 1.0
"""A connection unused for longer is tried before it is given away; one that just answered is taken at its word."""


class Pool:
    """At most `size` connections, made when they are needed; the one used last is used next.

    For one event loop. A connection that was lost, or left in the middle of something, is not used again.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]], size: int) -> None:
        self._connect = connect
        self._room = asyncio.Semaphore(size)
        self._idle: list[tuple[Any, float]] = []
        self._closed = False

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Any]:
        """A connection outside any transaction. Raises DatabaseUnavailable when none comes free for 30 s."""
        if self._room.locked():
            await self._wait()
        else:
            await self._room.acquire()
        connection = None
        try:
            connection = await self._usable()
            yield connection
        except BaseException as error:
            if connection is not None and (is_lost(error) or not isinstance(error, Exception)):
                connection.terminate()
            raise
        finally:
            if connection is not None:
                self._put_back(connection)
            self._room.release()

    async def close(self) -> None:
        """Closes what is idle now, and what is in use as soon as it is given back."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.close() for connection, _ in idle), return_exceptions=True)

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._room.acquire(), LONGEST_WAIT_S)
        except TimeoutError:
            raise DatabaseUnavailable(
                "every connection to the database is busy", fix="send the request again later"
            ) from None

    async def _usable(self) -> Any:
        while self._idle:
            connection, since = self._idle.pop()
            if connection.is_closed():
                continue
            if time.monotonic() - since < TRUSTED_S or await _answers(connection):
                return connection
            connection.terminate()
        return await self._connect()

    def _put_back(self, connection: Any) -> None:
        if connection.is_closed():
            return
        if self._closed or connection.is_in_transaction():
            connection.terminate()
        else:
            self._idle.append((connection, time.monotonic()))


async def _answers(connection: Any) -> bool:
    try:
        await connection.fetchval("SELECT 1")
    except Exception as error:
        if is_lost(error):
            return False
        raise
    return True
