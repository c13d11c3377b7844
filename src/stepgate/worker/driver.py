"""Drives one claimed run: starts what is ready, stops what must stop, gives the run back when nothing can move."""

import asyncio
import heapq
from bisect import bisect_right
from collections.abc import Awaitable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import structlog

from stepgate.domain import canonical, references
from stepgate.domain.commands import Command, Expire, Interrupt, Poison, Settle
from stepgate.domain.errors import DatabaseUnavailable, InvalidReference, LeaseLost
from stepgate.domain.events import Event
from stepgate.domain.ids import ChangeSetId, StepId, WorkspaceId
from stepgate.domain.state import StepState
from stepgate.domain.states import DRAINING, IN_FLIGHT, STARTABLE, StepStatus
from stepgate.domain.wake import MAY_START, startable
from stepgate.engine.model_calls import JournaledModels
from stepgate.executors.base import AppliedSet, Context, FinishedStep, Prepared
from stepgate.storage.attachments import Attachments, ChangeSetRow
from stepgate.storage.claim import Claim
from stepgate.worker.attempt import attempt, take_chain
from stepgate.worker.tools import Tools
from stepgate.worker.waits import Held, NotItsTurn
from stepgate.workspace.access import Root
from stepgate.workspace.changes import FIRST_REV, ChangeSet
from stepgate.workspace.locks import ReadingLock

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


class Driver:
    """One run in this worker's hands, from its claim to its release."""

    def __init__(self, tools: Tools, claim: Claim) -> None:
        self.tools = tools
        self.handle = claim.handle
        self._inputs = dict(claim.inputs)
        self._lost_leases = claim.lost_leases
        self._tasks: dict[StepId, asyncio.Task[None]] = {}
        self._queue: list[tuple[int, StepId]] = []
        self._background: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._stale = False
        self._stopping = False
        self._root: Root | None = None
        self._reading: ReadingLock | None = None
        self._held = False
        self._waits_for_turn = False
        self._lost = False
        self._taken_over = False
        self._told: set[StepId] = set()
        self._holding: set[StepId] = set()

    @property
    def workspace_id(self) -> WorkspaceId:
        return WorkspaceId(self.handle.state.info.workspace_id)

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
    def lost(self) -> bool:
        """Whether the lease is gone: nothing more may be recorded."""
        return self._lost

    @property
    def careful(self) -> bool:
        """Whether this run may be what workers die of: then every start is journaled, one step at a time."""
        return self._lost_leases >= LOST_LEASES_ALONE

    @property
    def undisturbed(self) -> bool:
        """Whether the next step may be taken up without a look at anything else."""
        return not (self._stale or self._stopping or self._lost or self._held or self._tasks or self.careful)

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
        self._lost = True
        self._changed.set()
        for task in self._tasks.values():
            task.cancel()

    async def drive(self) -> Ended:
        """Until nothing can move; the caller releases the run."""
        self._held = self._waits_for_turn = False
        try:
            while not self._lost:
                try:
                    if await self._go_on():
                        break
                except DatabaseUnavailable as error:
                    await self._sit_out(error)
            return Ended(held=self._held, lost=self._lost)
        except LeaseLost:
            log.info("another worker drives the run", run_id=self.handle.run_id)
            self.abandon()
            return Ended(lost=True)
        finally:
            await self._finish_tasks()
            if self._reading is not None:
                self._reading.close()
                self._reading = None
            if self._root is not None:
                self._root.close()
                self._root = None

    async def _go_on(self) -> bool:
        """One round: takes up news, stops and starts what must be, waits; True when nothing can move any more."""
        if self._stale:
            self._stale = self._held = False
            await self.tools.committer.refresh(self.handle)
        await self._take_over()
        await self._expire_due()
        self._drain()
        if not self._held:
            await self._start_ready()
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
        self._taken_over = True
        if self.handle.state.phase in DRAINING and not self.handle.state.in_flight:
            await self.submit([Settle(self.tools.actor)])

    async def _start_ready(self) -> None:
        """A chain of steps that cannot last runs here, without the cost of a task for each; others side by side."""
        await take_chain(self)
        if self._stale or self._held:
            return
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
            if self._lost or not (self._stopping or self.handle.state.phase in DRAINING):
                raise
            await self._interrupt(step.id)
        finally:
            if step.id in self._holding and not self._lost:
                await asyncio.shield(self.background(self._end_turn(step.id)))

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

    # What an attempt needs

    def submit(
        self, commands: Sequence[Command], attachments: Attachments | None = None
    ) -> Awaitable[tuple[Event, ...]]:
        """Decides and commits once awaited; raises LeaseLost when another worker drives the run."""
        if self._lost:
            raise LeaseLost("another worker may drive the run now")
        return self.tools.committer.submit(self.handle, commands, attachments)

    @property
    def root(self) -> Root:
        """The workspace's folder, opened once for the drive."""
        if self._root is None:
            self._root = Root.open(Path(self.handle.state.info.workspace_path), exact=True)
        return self._root

    def context(self, step: StepState, prepared: Prepared | None = None) -> Context:
        """What the step's executor may use; `prepared` is the action that was approved, where one was."""
        tools = self.tools
        spec = step.spec
        return Context(  # by position: one is made for every step
            self.handle.run_id,
            spec.id,
            spec.key,
            self.handle.state.info.goal,
            self._root or self.root,
            tools.blobs,
            tools.layers,
            tools.bounds,
            JournaledModels(tools.router, tools.actor, spec.id, self.submit),
            self._finished,
            self._applied,
            tools.sandbox,
            None,
            prepared,
            partial(self._shown, step),
        )

    async def _shown(self, step: StepState) -> Mapping[str, Any] | None:
        approval = step.approval
        if approval is None:
            return None
        shown: Mapping[str, Any] | None = await self.tools.approvals.rendering(self.handle.run_id, approval.request_id)
        return shown

    def plain_input(self, step_id: StepId) -> Mapping[str, Any] | None:
        """The input where it is at hand and refers to nothing; None where it must be fetched or resolved."""
        text = self._inputs.get(step_id)
        if text is None or references.OPENING in text:
            return None
        value: Mapping[str, Any] = canonical.loads(text)
        return value

    async def resolved_input(self, step_id: StepId) -> Mapping[str, Any]:
        """The input with every reference replaced; raises InvalidReference where an output is missing."""
        text = self._inputs.get(step_id)
        if text is None:  # added after the claim
            text = self._inputs[step_id] = await self.tools.steps.input(self.handle.run_id, step_id)
        value: Mapping[str, Any] = canonical.loads(text)
        if references.OPENING not in text:
            return value
        outputs = await self.outputs_of({reference.name for reference in references.find(value)})
        resolved: Mapping[str, Any] = references.resolve(value, outputs.__getitem__)
        return resolved

    async def outputs_of(self, keys: Collection[str]) -> Mapping[str, Any]:
        """Outputs of completed steps by key; a step without one (skipped, failed) is absent."""
        state = self.handle.state
        wanted = {key: state.steps[state.keys[key]] for key in keys if key in state.keys}
        done = {key: step.id for key, step in wanted.items() if step.status is StepStatus.COMPLETED}
        texts = await self.tools.steps.outputs(self.handle.run_id, list(done.values()))
        return {key: canonical.loads(texts[step_id]) for key, step_id in done.items()}

    async def _finished(self, keys: Sequence[str] | None) -> Sequence[FinishedStep]:
        state = self.handle.state
        for key in keys or ():
            if key not in state.keys:
                raise InvalidReference(f"the run has no step {key!r}", field="input.context")
        steps = [step for _, step in state.steps.items() if keys is None or step.spec.key in keys]
        steps = sorted((s for s in steps if s.status is StepStatus.COMPLETED), key=lambda s: s.spec.number)
        outputs = await self.outputs_of([step.spec.key for step in steps])
        return [FinishedStep(s.spec.key, s.spec.number, s.spec.type, outputs[s.spec.key]) for s in steps]

    async def _applied(self) -> Sequence[AppliedSet]:
        state = self.handle.state
        found = []
        for row in await self.tools.change_sets.applied(self.handle.run_id):
            spec = state.steps[StepId(row.step_id)].spec
            found.append(AppliedSet(row.step_id, spec.key, spec.number, ChangeSet.from_json(row.body)))
        return found

    # The workspace

    def begin_reading(self) -> bool:
        """Keeps change sets from being applied until `end_reading`; False while one is, or must be first."""
        if self._reading is None:
            self._reading = ReadingLock(self.root)
        if not self._reading.try_enter():
            return False
        if self.tools.marks.standing(self.workspace_id) is not None:
            self._reading.leave()
            return False
        return True

    def end_reading(self) -> None:
        if self._reading is not None:
            self._reading.leave()

    async def hold_workspace(self, step_id: StepId) -> None:
        """One mutating step at a time in a workspace, over all runs; raises Held when it is another's turn."""
        if not await self.tools.workspaces.acquire(self.workspace_id, self.handle.run_id, step_id):
            raise NotItsTurn("another step changes this workspace")
        self._holding.add(step_id)

    async def _end_turn(self, step_id: StepId) -> None:
        """Lets other steps change the workspace, unless this one must go on or half of its set may be there."""
        self._holding.discard(step_id)
        status = self.handle.state.steps[step_id].status
        if status in IN_FLIGHT or status is StepStatus.NEEDS_REVIEW:
            return
        for run_id in await self.tools.workspaces.release(self.workspace_id, step_id, self.handle.epoch):
            self.tools.ring(run_id)

    async def workspace_rev(self) -> str:
        """The workspace's revision now: a chain over every change set applied to it."""
        return await self.tools.workspaces.rev(self.workspace_id) or FIRST_REV

    def change_set_row(self, step: StepState, change_set: ChangeSet) -> ChangeSetRow:
        return ChangeSetRow(
            ChangeSetId(change_set.id), step.id, self.workspace_id, change_set.digest, change_set.to_json()
        )
