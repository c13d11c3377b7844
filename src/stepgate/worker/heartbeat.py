"""Keeps the worker's lease from a thread of its own, so that no executor can starve it."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping

import structlog

from stepgate.domain.ids import RunId, WorkerId
from stepgate.storage.claim import Heartbeats
from stepgate.storage.database import Database

log = structlog.get_logger(__name__)


class Heartbeat:
    """One row, one lease for all runs of the worker.

    `moved` is called with (run, head) of its runs after each beat, so that a lost doorbell costs one beat at most;
    `lost` is called once, from the thread, as soon as the lease cannot be had any more. Both come from the thread.
    """

    def __init__(
        self,
        database: Database,
        worker_id: WorkerId,
        lease_s: float,
        *,
        moved: Callable[[Mapping[RunId, int]], None],
        lost: Callable[[], None],
    ) -> None:
        self._database = database
        self._worker_id = worker_id
        self._lease_s = lease_s
        self._moved = moved
        self._lost = lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stepgate-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._beat())

    async def _beat(self) -> None:
        """A third of the lease apart; a database that does not answer is retried until the lease would be over."""
        alive_until = time.monotonic() + self._lease_s
        beats = Heartbeats(self._database, self._worker_id, self._lease_s)
        try:
            while not self._stop.is_set():
                asked = time.monotonic()
                try:
                    moved = await asyncio.wait_for(beats.beat(), max(0.1, alive_until - asked))
                except Exception as error:  # noqa: BLE001 - whatever it is, the lease must be renewed or given up
                    log.warning("heartbeat failed", error=str(error) or type(error).__name__)
                    if time.monotonic() >= alive_until:
                        self._lost()
                        return
                    await asyncio.to_thread(self._stop.wait, min(1.0, self._lease_s / 10))
                    continue
                if moved is None:
                    self._lost()
                    return
                alive_until = asked + self._lease_s
                self._moved(moved)
                await asyncio.to_thread(self._stop.wait, self._lease_s / 3)
        finally:
            await beats.close()
