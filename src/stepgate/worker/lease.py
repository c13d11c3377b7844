"""The worker's identity: one row that must be renewed, and a new one where it could not be."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence

import structlog

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.domain.ids import RunId, WorkerId, new_id
from stepgate.storage.claim import Claims, WorkerRow
from stepgate.storage.database import Database
from stepgate.worker.heartbeat import Heartbeat

log = structlog.get_logger(__name__)

RETRY_S = 1.0


class Lease:
    """`take` before anything is claimed, `give_back` at the end.

    `kill` is called from the heartbeat's thread as soon as the lease is lost, `lost` in the event loop soon after: then
    every run is somebody else's. `taken` is called when there is a new identity; `moved` gets the heads of its runs.
    """

    def __init__(
        self,
        database: Database,
        pools: Sequence[str],
        lease_s: float,
        *,
        kill: Callable[[], None],
        lost: Callable[[], None],
        taken: Callable[[], None],
        moved: Callable[[Mapping[RunId, int]], None],
    ) -> None:
        self.id = WorkerId(new_id())
        self._database = database
        self._claims = Claims(database)
        self._pools = pools
        self._lease_s = lease_s
        self._kill = kill
        self._lost = lost
        self._taken = taken
        self._moved = moved
        self._heartbeat: Heartbeat | None = None
        self._retaking: asyncio.Task[None] | None = None
        self._ending = False

    async def take(self) -> None:
        """Raises DatabaseUnavailable."""
        self._ending = False
        await self._register()

    async def give_back(self) -> None:
        """Runs still under it are free at once, or when it runs out where the database is away."""
        self._ending = True
        if self._retaking is not None:
            self._retaking.cancel()
            await asyncio.gather(self._retaking, return_exceptions=True)
        if self._heartbeat is not None:
            await asyncio.to_thread(self._heartbeat.stop)
            self._heartbeat = None
        try:
            await self._claims.deregister(self.id)
        except DatabaseUnavailable as error:
            log.warning("the lease was not given back and will run out", error=str(error))

    async def _register(self) -> None:
        row = WorkerRow(self.id, socket.gethostname(), os.getpid(), self._pools)
        await self._claims.register(row, self._lease_s)
        loop, worker_id = asyncio.get_running_loop(), self.id
        self._heartbeat = Heartbeat(
            self._database,
            worker_id,
            self._lease_s,
            moved=lambda heads: _tell(loop, lambda: self._moved(heads)),
            lost=lambda: self._lost_in_thread(loop, worker_id),
        )
        self._heartbeat.start()

    def _lost_in_thread(self, loop: asyncio.AbstractEventLoop, worker_id: WorkerId) -> None:
        """Commands die before anything else, even if the loop is busy."""
        log.error("lease lost", worker_id=worker_id)
        self._kill()
        _tell(loop, self._begin_anew)

    def _begin_anew(self) -> None:
        self._lost()
        self._heartbeat = None
        if not self._ending:
            self._retaking = asyncio.get_running_loop().create_task(self._retake())

    async def _retake(self) -> None:
        while True:
            self.id = WorkerId(new_id())
            try:
                await self._register()
            except DatabaseUnavailable as error:
                log.warning("no lease yet", error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                self._taken()
                return


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    """From the heartbeat's thread; a loop that has ended needs no news."""
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:
        if not loop.is_closed():
            raise
