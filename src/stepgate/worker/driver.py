"""Drives one claimed run: starts what is ready, stops what must stop, gives the run back when nothing can move."""

import asyncio
import heapq
from bisect import bisect_right
from collections.abc import Coroutine
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import structlog

from stepgate.domain.commands import Expire, Interrupt, Poison, Settle
from stepgate.domain.errors import DatabaseUnavailable, LeaseLost
from stepgate.domain.ids import StepId
from stepgate.domain.state import StepState
from stepgate.domain.states import DRAINING, IN_FLIGHT, STARTABLE, StepStatus
from stepgate.domain.wake import MAY_START, startable
from stepgate.engine.spending import RunSpending
from stepgate.storage.claim import Claim
from stepgate.worker.attempt import attempt, take_chain
from stepgate.worker.claimed import ClaimedRun
from stepgate.worker.tools import Tools
from stepgate.worker.waits import Held, NotItsTurn

log = structlog.get_logger(__name__)

LOST_LEASES_ALONE = 2
LOST_LEASES_POISON = 3
OUTAGE_WAIT_S = 1.0
LEFT = frozenset({StepStatus.SKIPPED, StepStatus.REJECTED, StepStatus.CANCELLED})
"""What others make of a step while it is in hand."""
MAX_TASKS = 64
"""Steps of one run in hand at once; lanes bound what really runs."""


@dataclass(slots=True)
class Ended:
    """How a drive ended: `held` where the run waits for its workspace, `lost` where another worker has it."""

    held: bool = False
    lost: bool = False


class Driver(ClaimedRun):
    """One run in this worker's hands, from its claim to its release."""

    def __init__(self, tools: Tools, claim: Claim) -> None:
        super().__init__(tools, claim)
        self._lost_leases = claim.lost_leases
        self._tasks: dict[StepId, asyncio.Task[None]] = {}
        self._queue: list[tuple[int, StepId]] = []
        self._background: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._stale = False
        self._stopping = False
        self._held = False
        self._waits_for_turn = False
        self._taken_over = False
        self._told: set[StepId] = set()

    @property
    def was_held(self) -> bool:
        """Whether it ended because its workspace is in use."""
        return self._held

    async def ask_again(self) -> None:
        """Once put down to wait for its turn, the run is due at once where that has come meanwhile."""
        if self._waits_for_turn:
            for run_id in await self.tools.workspaces.wake(self.workspace_id):
                self.tools.ring(run_id)

    @property
    def was_rung(self) -> bool:
        """Whether somebody rang who was not yet heard."""
        return self._stale

    @property
    def careful(self) -> bool:
        """Whether this run may be what workers die of: then every start is journaled, one step at a time."""
        return self._lost_leases >= LOST_LEASES_ALONE

    @property
    def undisturbed(self) -> bool:
        """Whether the next step may be taken up without a look at anything else."""
        idle = not (self._stale or self._stopping or self.lost or self._held or self._tasks or self.careful)
        return idle and self.workplace.ready

    # What the worker says to it

    def ring(self) -> None:
        """Somebody else may have changed the run."""
        self._stale = True
        self._changed.set()

    def stop(self) -> None:
        """Brings what runs back to its beginning and gives the run away; nothing is marked cancelled."""
        self._stopping = True
        self._changed.set()

    def abandon(self) -> None:
        """The lease is lost: everything stops at once and nothing more is recorded."""
        self.lost = True
        self._changed.set()
        for task in self._tasks.values():
            task.cancel()

    async def drive(self) -> Ended:
        """Until nothing can move; the caller releases the run."""
        self._held = self._waits_for_turn = False
        try:
            while not self.lost:
                try:
                    await take_chain(self)
                    if await self._go_on():
                        break
                except DatabaseUnavailable as error:
                    await self._sit_out(error)
            return Ended(held=self._held, lost=self.lost)
        except LeaseLost:
            log.info("another worker drives the run", run_id=self.handle.run_id)
            self.abandon()
            return Ended(lost=True)
        finally:
            if self._tasks or self._background:
                await self._finish_tasks()
            self.close()

    async def _go_on(self) -> bool:
        """One round: takes up news, stops and starts what must be, waits; True when nothing can move any more."""
        if self._stale:
            self._stale = self._held = False
            await self.tools.committer.refresh(self.handle)
        await self._take_over()
        await self._expire_due()
        self._drain()
        if not self._held:
            self._start_ready()
        if self._tasks:
            await self._wait()
            return False
        return not self._stale

    async def _sit_out(self, error: DatabaseUnavailable) -> None:
        """Nothing is lost by waiting: what runs goes on, and what could not be recorded is taken up again."""
        self._stale = True
        if self._stopping:
            raise error
        log.warning("database unavailable", run_id=self.handle.run_id, error=str(error))
        await asyncio.sleep(OUTAGE_WAIT_S)

    async def _expire_due(self) -> None:
        state = self.handle.state
        if state.asking and state.next_timer is not None and state.next_timer <= self.tools.clock.now():
            await self.submit([Expire(self.tools.actor)])

    # Starting and stopping steps

    async def _take_over(self) -> None:
        """What an earlier worker left in flight is taken up; a run that keeps killing workers is put aside."""
        state = self.handle.state
        suspect = self._lost_leases >= LOST_LEASES_POISON and not self._taken_over
        if suspect and (state.in_flight or state.phase in MAY_START):
            await self.submit([Poison(self.tools.actor)])
        if not self._taken_over and (state.in_flight or state.usage.calls):
            await RunSpending(self.tools.spending, self.handle, self.tools.actor, self.submit).recover()
        self._taken_over = True
        if self.handle.state.phase in DRAINING and not self.handle.state.in_flight:
            await self.submit([Settle(self.tools.actor)])

    def _start_ready(self) -> None:
        while (step := self._next()) is not None:
            self._tasks[step.id] = asyncio.create_task(self._attempt(step))

    def _next(self) -> StepState | None:
        """A step that may be taken up and is not in hand, lowest numbers first.

        The queue is filled again only when it is empty, so that picking stays cheap however many steps are ready.
        """
        if len(self._tasks) >= (1 if self.careful else MAX_TASKS):
            return None
        steps = self.handle.state.steps
        while self._queue or self._fill():
            _, step_id = heapq.heappop(self._queue)
            if step_id not in self._tasks and self._takeable(steps[step_id]):
                return steps[step_id]
        return None

    def _fill(self) -> bool:
        state = self.handle.state
        found = [*state.in_flight, *state.ready]
        if state.retrying:
            found += state.retrying
        self._queue = [
            (state.steps[step].spec.number, step)
            for step in found
            if step not in self._tasks and self._takeable(state.steps[step])
        ]
        heapq.heapify(self._queue)
        return bool(self._queue)

    def takeable(self, step_id: StepId) -> bool:
        """Whether the step, as it stands now, may be taken up."""
        return self._takeable(self.handle.state.steps[step_id])

    def _takeable(self, step: StepState) -> bool:
        if step.status in IN_FLIGHT:
            return self._wanted(step.id)
        state = self.handle.state
        if self._stopping:
            return False
        if step.retry_at is None:
            return step.status in STARTABLE and step.id in state.ready and state.phase in MAY_START
        return startable(state, step, self.tools.clock.now())

    def _wanted(self, step_id: StepId) -> bool:
        """While stopping or draining, what is computed is applied; what runs begins again only if it may finish."""
        state = self.handle.state
        if not self._stopping and state.phase not in DRAINING:
            return True
        status = state.steps[step_id].status
        finishing = state.drain == "finish" and not self._stopping
        return status is StepStatus.COMPUTED or (finishing and status is StepStatus.RUNNING)

    def _drain(self) -> None:
        """Stops steps that the run no longer wants, or that a stopping worker must give back; each is told once."""
        state = self.handle.state
        kill = self._stopping or (state.phase in DRAINING and state.drain == "kill")
        for step_id, task in self._tasks.items():
            status = state.steps[step_id].status
            if step_id not in self._told and ((kill and status is not StepStatus.COMPUTED) or status in LEFT):
                self._told.add(step_id)
                task.cancel()
        if state.phase in DRAINING or self._stopping:
            for step_id in state.in_flight:
                if step_id not in self._tasks and not self._wanted(step_id):
                    self._told.add(step_id)
                    self._tasks[step_id] = asyncio.create_task(self._interrupt(step_id))

    async def _attempt(self, step: StepState) -> None:
        try:
            await attempt(self, step)
        except Held as held:
            self._held = True
            self._waits_for_turn |= isinstance(held, NotItsTurn)
        except DatabaseUnavailable as error:
            await self._sit_out(error)
        except asyncio.CancelledError:
            if self.lost or not (self._stopping or self.handle.state.phase in DRAINING):
                raise
            await self._interrupt(step.id)
        finally:
            self.tools.live.end(step.id)
            if self.has_turn(step.id) and not self.lost:
                await asyncio.shield(self.background(self.end_turn(step.id)))

    async def _interrupt(self, step_id: StepId) -> None:
        if self.handle.state.steps[step_id].status in (StepStatus.RUNNING, StepStatus.PREPARING):
            await self.submit([Interrupt(self.tools.actor, step_id)])

    async def _wait(self) -> None:
        """Until a step ends, somebody rings, or a timer of the run is due."""
        state = self.handle.state
        timeout = None
        now = self.tools.clock.now()
        coming = bisect_right(state.timers, now, key=itemgetter(0))  # those before were seen to, or cannot be now
        if coming < len(state.timers):
            timeout = (state.timers[coming][0] - now) / 1e6
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait([changed, *self._tasks.values()], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        self._changed.clear()
        for step_id, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[step_id]
                self._told.discard(step_id)
                if not task.cancelled():
                    task.result()

    async def _finish_tasks(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._background, return_exceptions=True)

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that outlives the cancellation of the step it belongs to, but not the drive."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        """Whoever waited for it has its error; a step that was cancelled meanwhile leaves nobody to hear it."""
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("background work failed", run_id=self.handle.run_id, error=str(error))
