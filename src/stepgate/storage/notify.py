"""The doorbell: tells other processes that a run has moved, so that they need not wait for their next look.

Nothing depends on it. A lost ring costs one polling interval, and it carries an id only.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from stepgate.domain.errors import StepgateError
from stepgate.domain.ids import RunId
from stepgate.storage.database import Database
from stepgate.storage.errors import translated

CHANNEL = "stepgate"
GATHER_S = 0.01
MOST_AT_ONCE = 1000
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0


class Doorbell:
    """One connection that listens and rings; `start` and `stop` return when that is so."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Any = None
        self._rung: dict[RunId, None] = {}
        self._pending = asyncio.Event()
        self._broken = asyncio.Event()
        self._heard: Callable[[RunId], None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, heard: Callable[[RunId], None]) -> None:
        """Calls `heard` for every ring of another process, from now on. Raises DatabaseUnavailable."""
        self._heard = heard
        await self._connect()
        self._tasks = [
            asyncio.create_task(self._keep_listening(), name="stepgate-doorbell-listen"),
            asyncio.create_task(self._keep_ringing(), name="stepgate-doorbell-ring"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._drop()

    def ring(self, run_id: RunId) -> None:
        """Tells the others soon; rings for one run in a short while are one."""
        self._rung[run_id] = None
        self._pending.set()

    async def _connect(self) -> None:
        connection = await self._database.connect("doorbell")
        with translated(self._database.place):
            own = connection.get_server_pid()

            def heard(_connection: Any, pid: int, _channel: str, payload: str) -> None:
                if pid != own and self._heard is not None:
                    self._heard(RunId(payload))

            self._broken.clear()
            connection.add_termination_listener(lambda _: self._broken.set())
            await connection.add_listener(CHANNEL, heard)
        self._connection = connection

    async def _keep_listening(self) -> None:
        wait = FIRST_WAIT_S
        while True:
            await self._broken.wait()
            self._drop()
            try:
                await self._connect()
                wait = FIRST_WAIT_S
            except StepgateError:
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)

    async def _keep_ringing(self) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            rung, self._rung = list(self._rung), {}
            if self._connection is not None:
                for first in range(0, len(rung), MOST_AT_ONCE):
                    await self._tell(rung[first : first + MOST_AT_ONCE])
            # The first ring after a quiet while goes out at once: it is mostly an answer that somebody waits for.
            await asyncio.sleep(GATHER_S)

    async def _tell(self, run_ids: list[RunId]) -> None:
        try:
            with translated(self._database.place):
                query = "SELECT pg_notify($1, id) FROM unnest($2::text[]) AS rung(id)"
                await self._connection.execute(query, CHANNEL, run_ids)
        except StepgateError:
            self._broken.set()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
