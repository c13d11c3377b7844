"""Claims due runs, drives them, gives them back: one per process."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from stepgate.domain.errors import DatabaseUnavailable, LeaseLost
from stepgate.domain.ids import RunId, WorkerId
from stepgate.domain.wake import next_wake
from stepgate.storage.claim import Claim
from stepgate.storage.database import Database
from stepgate.storage.workspaces import HELD_FOR
from stepgate.worker.driver import LOST_LEASES_ALONE, Driver, Ended
from stepgate.worker.lease import Lease
from stepgate.worker.tools import Tools

log = structlog.get_logger(__name__)

T = TypeVar("T")

FIRST_HELD_S = 1.0
LONGEST_HELD_S = 60.0
"""How long a run waits for its workspace before it looks again; mostly it is rung before."""
RETRY_S = 1.0


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
        self._tools = tools
        self._options = options
        self._drivers: dict[RunId, Driver] = {}
        self._drives: set[asyncio.Task[None]] = set()
        self._rung = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._stopping = False
        self._claiming = asyncio.Lock()
        self._batch = min(options.batch, options.runs)
        self._held: dict[RunId, float] = {}
        self._alone: RunId | None = None
        self._quiet_until = 0.0
        self._has_strays = False
        self._lease = Lease(
            database,
            options.pools,
            options.lease_s,
            kill=self._kill_commands,
            lost=self._abandon_all,
            taken=self._rung.set,
            moved=self._moved,
        )

    @property
    def id(self) -> WorkerId:
        """Another one after a lost lease."""
        return self._lease.id

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
        return bool(self._drives) or self._claiming.locked() or (self.running and self._rung.is_set())

    async def start(self) -> None:
        """Raises DatabaseUnavailable."""
        self._stopping = False
        await self._lease.take()
        self._tools.live.start()
        self._rung.set()
        self._loop_task = asyncio.create_task(self._run(), name="stepgate-worker")

    async def stop(self, timeout_s: float = 30.0) -> None:
        """Gives every run back: what was running returns to its beginning, what was computed is applied first."""
        self._stopping = True
        self._rung.set()
        for driver in self._drivers.values():
            driver.stop()
        if self._loop_task is not None:
            await self._end([self._loop_task], timeout_s)
        async with self._claiming:  # a claim under way stops what it took
            drives = list(self._drives)
        await self._end(drives, timeout_s)
        await self._tools.live.stop()
        await self._lease.give_back()

    async def _end(self, tasks: "Sequence[asyncio.Task[None]]", timeout_s: float) -> None:
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

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
            if room <= 0 or self._stopping or self._is_quiet():
                return 0
            try:
                claims = await self._tools.claims.claim(self.id, self._options.pools, room, self._options.only)
            except Exception:
                self._has_strays = True
                raise
            return await self._sort_out(claims)

    # Runs that may be what workers die of

    def _is_quiet(self) -> bool:
        """Whether nothing new is claimed: a suspect is driven alone, or could be as soon as the others have ended."""
        return bool(self._drivers) and (self._alone is not None or time.monotonic() < self._quiet_until)

    async def _sort_out(self, claims: Sequence[Claim]) -> int:
        """Takes up the claims; a suspect alone, so that no other run is lost, and blamed, with it.

        For one lease's time the runs in hand may come to their end first; then it is taken up beside them.
        """
        suspects = [claim for claim in claims if claim.lost_leases >= LOST_LEASES_ALONE]
        taken: Sequence[Claim] = claims
        if suspects and not self._drivers:
            taken, self._alone, self._quiet_until = suspects[:1], suspects[0].handle.run_id, 0.0
        elif suspects and self._quiet_until == 0.0:
            taken = [claim for claim in claims if claim not in suspects]
            self._quiet_until = time.monotonic() + self._options.lease_s
            asyncio.get_running_loop().call_later(self._options.lease_s, self._rung.set)
        else:
            self._quiet_until = 0.0
        for claim in taken:
            self._take(claim)
        for claim in claims:
            if claim not in taken:
                await self._tools.claims.release(claim.handle)
        return len(taken)

    # The loop

    async def _run(self) -> None:
        while not self._stopping:
            self._rung.clear()
            try:
                if self._has_strays:
                    await self._put_down_strays()
                await self._claim_due()
                if await self._tools.claims.free_dead():
                    await asyncio.to_thread(self._tools.sweep)
                    await self._claim_due()
                wait_s = self._options.check_interval_s
            except DatabaseUnavailable as error:
                log.warning("database unavailable", error=str(error))
                wait_s = RETRY_S
            except Exception:
                log.exception("claiming failed")
                wait_s = RETRY_S
            try:
                await asyncio.wait_for(self._rung.wait(), wait_s)
            except TimeoutError:
                continue

    async def _claim_due(self) -> None:
        """Until fewer are due than were asked for; what becomes due meanwhile rings."""
        while len(self._drivers) < self._options.runs and await self.claim() == self._batch:
            continue

    def _take(self, claim: Claim) -> None:
        driver = Driver(self._tools, claim)
        if self._stopping:
            driver.stop()
        self._drivers[driver.handle.run_id] = driver
        task = asyncio.create_task(self._drive(driver))
        self._drives.add(task)
        task.add_done_callback(self._drives.discard)

    async def _drive(self, driver: Driver) -> None:
        run_id = driver.handle.run_id
        try:
            await self._drive_and_release(driver)
        except LeaseLost:
            log.info("another worker drives the run", run_id=run_id)
        except DatabaseUnavailable as error:  # only when stopping: the lease runs out, and with it the claim
            log.warning("could not release", run_id=run_id, error=str(error))
        except Exception:
            log.exception("drive failed", run_id=run_id)
            await self._give_up(driver)
        finally:
            if self._drivers.get(run_id) is driver:
                del self._drivers[run_id]
            if self._alone == run_id:
                self._alone = None
            # Room for a whole batch, so that a busy worker does not claim run by run.
            if len(self._drivers) == self._options.runs - self._batch or not self._drivers or driver.was_rung:
                self._rung.set()
        self._wake_later(driver)
        if not driver.lost:
            await self._ask_again(driver)

    async def _ask_again(self, driver: Driver) -> None:
        try:
            await driver.ask_again()
        except DatabaseUnavailable as error:  # it looks again by itself, a little later
            log.warning("database unavailable", run_id=driver.handle.run_id, error=str(error))

    async def _drive_and_release(self, driver: Driver) -> None:
        while True:
            ended = await driver.drive()
            if ended.lost or await self._insist(driver, partial(self._release, driver, ended)):
                return
            driver.ring()

    async def _release(self, driver: Driver, ended: Ended) -> bool:
        """False when the run moved meanwhile: it is driven on instead of being put down."""
        run_id = driver.handle.run_id
        if not ended.held:
            self._held.pop(run_id, None)
            return await self._tools.claims.release(driver.handle)
        self._held[run_id] = wait_s = min(2 * self._held.get(run_id, FIRST_HELD_S / 2), LONGEST_HELD_S)
        until = self._tools.clock.now() + round(wait_s * 1e6)
        return await self._tools.claims.release(driver.handle, held_until=until, held_for=HELD_FOR)

    async def _give_up(self, driver: Driver) -> None:
        """After a failure of the drive itself the run is due again; its lost-lease count tells poison from chance."""
        try:
            await self._insist(driver, partial(self._tools.claims.release_failed, driver.handle))
        except DatabaseUnavailable as error:
            log.warning("could not release", run_id=driver.handle.run_id, error=str(error))

    async def _insist(self, driver: Driver, act: Callable[[], Awaitable[T]]) -> T:
        """Until the database answers: a run that is not put down would stay with this worker for good."""
        while True:
            try:
                return await act()
            except DatabaseUnavailable as error:
                if self._stopping or driver.lost:
                    raise
                log.warning("database unavailable", run_id=driver.handle.run_id, error=str(error))
            await asyncio.sleep(RETRY_S)

    def _wake_later(self, driver: Driver) -> None:
        """A retry or an expiry in the near future does not wait for the next look."""
        at = next_wake(driver.handle.state)
        if at is None or self._stopping:
            return
        held_s = self._held.get(driver.handle.run_id, 0.0) if driver.was_held else 0.0
        delay = max(held_s, (at - self._tools.clock.now()) / 1e6)
        if delay < self._options.check_interval_s:
            asyncio.get_running_loop().call_later(delay, self._rung.set)

    # The lease

    def _kill_commands(self) -> None:
        if self._tools.sandbox is not None:
            self._tools.sandbox.kill_all()

    def _abandon_all(self) -> None:
        for driver in self._drivers.values():
            driver.abandon()

    def _moved(self, heads: Mapping[RunId, int]) -> None:
        """What the doorbell did not tell; and runs under this lease that it does not know of are given back."""
        for run_id, seq in heads.items():
            driver = self._drivers.get(run_id)
            if driver is None:
                self._has_strays = True
                self._rung.set()
            elif driver.handle.head.seq < seq:
                driver.ring()

    async def _put_down_strays(self) -> None:
        """A claim whose answer was lost left runs under this lease that nobody drives."""
        async with self._claiming:
            strays = await self._tools.claims.put_down(self.id, list(self._drivers))
        self._has_strays = False
        if strays:
            log.warning("runs were claimed and not driven", run_ids=strays)
