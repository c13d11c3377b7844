"""Claims due runs, drives them, gives them back: one per process."""

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.domain.ids import RunId, WorkerId, new_id
from stepgate.domain.wake import next_wake
from stepgate.storage.claim import Claim, WorkerRow
from stepgate.storage.database import Database
from stepgate.worker.driver import Driver, Ended
from stepgate.worker.heartbeat import Heartbeat
from stepgate.worker.tools import Tools

log = structlog.get_logger(__name__)

HELD_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """`check_interval_s`: how often to look without being rung; `batch`: runs claimed at once; `runs`: held at once.

    With `only` no other run is touched: a command line moves the run it was asked to move.
    """

    pools: tuple[str, ...] = ("default",)
    check_interval_s: float = 5.0
    batch: int = 64
    runs: int = 256
    lease_s: float = 30.0
    only: RunId | None = None


class Worker:
    """`start` claims and drives until `stop`; both return when that is so."""

    def __init__(self, database: Database, tools: Tools, options: Options) -> None:
        self.id = WorkerId(new_id())
        self._database = database
        self._tools = tools
        self._options = options
        self._drivers: dict[RunId, Driver] = {}
        self._drives: set[asyncio.Task[None]] = set()
        self._rung = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._heartbeat: Heartbeat | None = None
        self._stopping = False
        self._claiming = asyncio.Lock()
        self._batch = min(options.batch, options.runs)

    @property
    def running(self) -> bool:
        return self._loop_task is not None and not self._loop_task.done()

    @property
    def driving(self) -> int:
        """How many runs are in its hands."""
        return len(self._drivers)

    @property
    def busy(self) -> bool:
        """Whether it drives runs or is about to."""
        return bool(self._drives) or self._claiming.locked()

    async def start(self) -> None:
        self._stopping = False
        await self._register()
        self._loop_task = asyncio.create_task(self._run(), name="stepgate-worker")

    async def stop(self, timeout_s: float = 30.0) -> None:
        """Gives every run back: what was running returns to its beginning, what was computed is applied first."""
        self._stopping = True
        self._rung.set()
        for driver in self._drivers.values():
            driver.stop()
        if self._drives:
            _, late = await asyncio.wait(self._drives, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        await self._deregister()

    def ring(self, run_id: RunId | None = None) -> None:
        """Something may be due; a run in hand is looked at again."""
        driver = self._drivers.get(run_id) if run_id is not None else None
        if driver is not None:
            driver.ring()
        else:
            self._rung.set()

    async def claim(self) -> int:
        """Takes due runs up to the worker's room; returns how many."""
        async with self._claiming:
            room = min(self._batch, self._options.runs - len(self._drivers))
            if room <= 0 or self._stopping:
                return 0
            claims = await self._tools.claims.claim(self.id, self._options.pools, room, self._options.only)
            for claim in claims:
                self._take(claim)
            return len(claims)

    # The loop

    async def _run(self) -> None:
        while not self._stopping:
            self._rung.clear()
            try:
                await self._tools.claims.free_dead()
                while await self.claim():
                    if len(self._drivers) >= self._options.runs:
                        break
                wait_s = self._options.check_interval_s
            except DatabaseUnavailable as error:
                log.warning("database unavailable", error=str(error))
                wait_s = 1.0
            try:
                await asyncio.wait_for(self._rung.wait(), wait_s)
            except TimeoutError:
                continue

    def _take(self, claim: Claim) -> None:
        driver = Driver(self._tools, claim)
        self._drivers[driver.handle.run_id] = driver
        task = asyncio.create_task(self._drive(driver))
        self._drives.add(task)
        task.add_done_callback(self._drives.discard)

    async def _drive(self, driver: Driver) -> None:
        run_id = driver.handle.run_id
        try:
            while True:
                ended = await driver.drive()
                if ended.lost or await self._release(driver, ended):
                    break
                driver.ring()
        except Exception:
            log.exception("drive failed", run_id=run_id)
            await self._release_quietly(driver)
        finally:
            if self._drivers.get(run_id) is driver:
                del self._drivers[run_id]
            # Room for a whole batch, so that a busy worker does not claim run by run.
            if len(self._drivers) == self._options.runs - self._batch or not self._drivers:
                self._rung.set()
        self._wake_later(driver)

    async def _release(self, driver: Driver, ended: Ended) -> bool:
        """False when the run moved meanwhile: it is driven on instead of being put down."""
        held_for = "workspace" if ended.held else None
        until = self._tools.clock.now() + int(HELD_RETRY_S * 1e6) if ended.held else None
        return await self._tools.claims.release(driver.handle, held_until=until, held_for=held_for)

    async def _release_quietly(self, driver: Driver) -> None:
        """After a failure of the drive itself the run is due again; its lost-lease count tells poison from chance."""
        try:
            await self._tools.claims.release_failed(driver.handle)
        except DatabaseUnavailable as error:
            log.warning("could not release", run_id=driver.handle.run_id, error=str(error))

    def _wake_later(self, driver: Driver) -> None:
        """A retry or an expiry in the near future does not wait for the next look."""
        at = next_wake(driver.handle.state)
        if at is None or self._stopping:
            return
        delay = max(HELD_RETRY_S if driver.was_held else 0.0, (at - self._tools.clock.now()) / 1e6)
        if delay < self._options.check_interval_s:
            asyncio.get_running_loop().call_later(delay, self._rung.set)

    # The lease

    async def _register(self) -> None:
        row = WorkerRow(self.id, socket.gethostname(), os.getpid(), self._options.pools)
        await self._tools.claims.register(row, self._options.lease_s)
        loop = asyncio.get_running_loop()
        self._heartbeat = Heartbeat(
            self._database,
            self.id,
            self._options.lease_s,
            moved=partial(self._moved_from_thread, loop),
            lost=lambda: self._lost(loop),
        )
        self._heartbeat.start()

    async def _deregister(self) -> None:
        if self._heartbeat is not None:
            await asyncio.to_thread(self._heartbeat.stop)
            self._heartbeat = None
        await self._tools.claims.deregister(self.id)

    def _moved_from_thread(self, loop: asyncio.AbstractEventLoop, heads: Mapping[RunId, int]) -> None:
        loop.call_soon_threadsafe(self._moved, heads)

    def _moved(self, heads: Mapping[RunId, int]) -> None:
        for run_id, seq in heads.items():
            driver = self._drivers.get(run_id)
            if driver is not None and driver.handle.head.seq < seq:
                driver.ring()

    def _lost(self, loop: asyncio.AbstractEventLoop) -> None:
        """From the heartbeat's thread: commands die before anything else, even if the loop is busy."""
        log.error("lease lost", worker_id=self.id)
        if self._tools.sandbox is not None:
            self._tools.sandbox.kill_all()
        loop.call_soon_threadsafe(self._begin_anew)

    def _begin_anew(self) -> None:
        """All runs are somebody else's now; a fresh identity may claim again."""
        for driver in list(self._drivers.values()):
            driver.abandon()
        self._heartbeat = None
        self.id = WorkerId(new_id())
        task = asyncio.get_running_loop().create_task(self._register())
        self._drives.add(task)
        task.add_done_callback(self._drives.discard)
