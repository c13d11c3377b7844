"""The verbs people use on runs: each is one command, decided and committed in one transaction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import structlog

from stepgate.domain.commands import (
    AddSteps,
    Cancel,
    Command,
    Create,
    Execute,
    ExtendBudget,
    Pause,
    Plan,
    Resume,
    Start,
    Undo,
)
from stepgate.domain.errors import DatabaseUnavailable, IllegalTransition, InvalidValue, StaleSteps
from stepgate.domain.events import Event
from stepgate.domain.identity import DEFAULT_TENANT
from stepgate.domain.ids import RunId, StepId, WorkspaceId, new_id
from stepgate.domain.limits import RunLimits
from stepgate.domain.plan import PlannedStep
from stepgate.domain.state import Actor, RunInfo, RunState
from stepgate.domain.states import EventType, RunStatus
from stepgate.engine import planning
from stepgate.engine.deciding import ADD_ATTEMPTS, Deciding
from stepgate.engine.delivery import Delivery
from stepgate.engine.derived import Derived
from stepgate.engine.forking import PLAN, Forking
from stepgate.engine.places import Places
from stepgate.engine.policies import Policies
from stepgate.engine.undoing import Undoing
from stepgate.executors.registry import Registry
from stepgate.storage.attachments import IdempotencyRow
from stepgate.storage.committer import Attachments, Committer
from stepgate.storage.database import Database
from stepgate.storage.workspaces import Workspaces
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.isolated import Copies

DEFAULT_POOL = "default"
ENDS = frozenset({EventType.STEP_SKIPPED, EventType.STEP_CANCELLED, EventType.STEP_REJECTED})
"""How a person closes a step."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewRun:
    """A request for a run, as it came in: nothing is checked yet. At most one of `plan` and `steps`.

    The folder is given by `workspace_path` or by the name `workspace`; `workspace_mode` None leaves the mode to it.
    """

    goal: Any = None
    workspace_path: str | None = None
    workspace: str | None = None
    workspace_mode: str | None = None
    plan: Any = None
    steps: Any = None
    params: Mapping[str, Any] | None = None
    limits: Any = None
    labels: Any = None
    metadata: Any = None
    start: bool = False
    tenant: str = DEFAULT_TENANT


class Engine(Derived, Deciding):
    """Everything that changes a run on a person's behalf."""

    def __init__(
        self,
        *,
        database: Database,
        committer: Committer,
        registry: Registry,
        workspace_root: Path,
        copies: Copies,
        blobs: BlobStore,
        git_author: str,
        policies: Policies,
        ring: Callable[[RunId], None],
        pool: str = DEFAULT_POOL,
        local_trust: bool = False,
        plans: bool = False,
        plan_approval: bool = False,
        max_replans: int = 3,
    ) -> None:
        self.database = database
        self.committer = committer
        self.registry = registry
        self._workspaces = Workspaces(database)
        self.places = Places(database, copies, workspace_root, pool)
        self._policies = policies
        self._undoing = Undoing(database, blobs, copies)
        self.forking = Forking(database, committer.load, registry, blobs, copies.state_dir)
        self.delivery = Delivery(database, committer, blobs, copies, git_author)
        self._ring = ring
        self._pool = pool
        self._local_trust = local_trust
        self._plans = plans
        self._plan_approval = plan_approval
        self._max_replans = max_replans

    async def create(self, new: NewRun, actor: Actor, idempotency: IdempotencyRow | None = None) -> RunState:
        """A new run, planned if it came with steps, queued if it came with `start`.

        Raises InvalidValue, InvalidPlan or PathRefused naming the field; then nothing was created.
        """
        goal, name, limits, definitions = self._definition(new)
        labels, metadata = planning.check_labels(new.labels), planning.check_metadata(new.metadata)
        run_id = RunId(new_id())
        place = await self.places.choose(
            run_id, new.tenant, path=new.workspace_path, name=new.workspace, mode=new.workspace_mode
        )
        info = RunInfo(
            id=run_id,
            goal=goal,
            name=name,
            workspace_id=place.workspace_id,
            workspace_path=place.path,
            workspace_mode=place.mode,
            pool=self._pool,
            labels=labels,
            metadata=metadata,
            requester=actor,
            limits=limits,
            created_at=0,
            tenant=new.tenant,
        )
        commands: list[Command] = [Create(actor, info, definitions.specs)]
        if new.start and not definitions.specs and self._plans:
            raw = [self.planning_step({"add": True}, "plan-1")]
            definitions = planning.define(planning.steps_of(raw, self.registry), self.registry)
            commands.append(Plan(actor, definitions.specs[0]))
        if new.start:
            commands.append(Start(actor))
        attachments = Attachments(inputs=dict(definitions.inputs), idempotency=idempotency)
        state, _ = await self._commit(run_id, commands, attachments)
        return state

    def _definition(self, new: NewRun) -> tuple[str, str | None, dict[str, Any], planning.Definitions]:
        if new.plan is not None and new.steps is not None:
            raise InvalidValue("send a plan or steps, not both", field="steps", fix="leave one of them out")
        raw_limits, name, goal = new.limits, None, new.goal
        planned: tuple[PlannedStep, ...] = ()
        if new.plan is not None:
            plan = planning.plan_of(new.plan, self.registry, new.params)
            name, goal, planned = plan.name, new.goal or plan.goal, plan.steps
            limits = plan.limits if raw_limits is None else planning.limits_of(raw_limits)
        else:
            limits = RunLimits() if raw_limits is None else planning.limits_of(raw_limits)
            if new.steps is not None:
                planned = planning.steps_of(new.steps, self.registry, max_steps=limits.max_steps)
        definitions = planning.define(self._seen(planned), self.registry)
        return planning.check_goal(goal), name, limits.model_dump(mode="json", exclude_none=True), definitions

    async def add_steps(
        self, run_id: RunId, raw: Any, actor: Actor, idempotency: IdempotencyRow | None = None
    ) -> tuple[RunState, Sequence[StepId]]:
        """Adds steps, before or while the run goes; returns their ids in order."""
        for _ in range(ADD_ATTEMPTS):
            try:
                return await self._add(run_id, raw, actor, idempotency)
            except StaleSteps:
                continue
        raise StaleSteps("other steps keep being added", fix="send the request again")

    async def _add(
        self, run_id: RunId, raw: Any, actor: Actor, idempotency: IdempotencyRow | None
    ) -> tuple[RunState, Sequence[StepId]]:
        state = await self.committer.load(run_id)
        planned = planning.steps_of(raw, self.registry, state, max_steps=state.info.limits.get("max_steps"))
        definitions = planning.define(self._seen(planned), self.registry, state)
        attachments = Attachments(inputs=dict(definitions.inputs), idempotency=idempotency)
        state, _ = await self._commit(run_id, [AddSteps(actor, definitions.specs)], attachments)
        return state, [spec.id for spec in definitions.specs]

    def planning_step(self, input_: Mapping[str, Any], key: str = "plan", *, approval: bool = False) -> dict[str, Any]:
        """A step that plans, as a plan writes it; a person sees what it would add where that is wanted or set."""
        step = {"key": key, "type": PLAN, "input": dict(input_)}
        asks = input_.get("add", True) and (approval or self._plan_approval)
        return {**step, "gate": "ask"} if asks else step

    def _seen(self, planned: Sequence[PlannedStep]) -> Sequence[PlannedStep]:
        """Where it is set, a person sees what a step that plans would add, whoever wrote that step."""
        if not self._plan_approval:
            return planned
        adds = {step.key for step in planned if step.type == PLAN and step.input.get("add", True) is not False}
        return [replace(step, gate="ask") if step.key in adds else step for step in planned]

    async def plan(
        self,
        run_id: RunId,
        input_: Mapping[str, Any],
        actor: Actor,
        idempotency: IdempotencyRow | None = None,
        *,
        approval: bool = False,
        only_next: bool = False,
    ) -> StepId:
        """Adds a step that plans, behind all others; returns its id.

        A run without steps is started with it, or (`only_next`) only the planning is let go.
        """
        state = await self.committer.load(run_id)
        if state.phase is RunStatus.PLANNED:
            raise IllegalTransition("the run has steps that nobody started", fix="start it first, or plan a new run")
        raw = self.planning_step(input_, f"plan-{len(state.steps) + 1}", approval=approval)
        definitions = planning.define(planning.steps_of([raw], self.registry, state), self.registry, state)
        (step,) = definitions.specs
        begins = state.phase is RunStatus.CREATED
        commands: list[Command] = [
            Plan(actor, step) if begins and input_.get("add", True) else AddSteps(actor, (step,))
        ]
        if begins:
            commands.append(Execute(actor) if only_next else Start(actor))
        attachments = Attachments(inputs=dict(definitions.inputs), idempotency=idempotency)
        await self._commit(run_id, commands, attachments)
        return step.id

    async def _planned_first(
        self, run_id: RunId, actor: Actor, idempotency: IdempotencyRow | None, *, only_next: bool
    ) -> StepId | None:
        """The step that plans a run with only a goal, where a model can; None where there is nothing to plan."""
        if not self._plans or (await self.committer.load(run_id)).phase is not RunStatus.CREATED:
            return None
        try:
            return await self.plan(run_id, {"add": True}, actor, idempotency, only_next=only_next)
        except IllegalTransition:  # somebody else was faster
            return None

    async def start(self, run_id: RunId, actor: Actor, idempotency: IdempotencyRow | None = None) -> RunState:
        """A run with only a goal is planned first, where a model can."""
        if await self._planned_first(run_id, actor, idempotency, only_next=False) is not None:
            return await self.committer.load(run_id)
        return await self._do(run_id, Start(actor), idempotency)

    async def execute(
        self, run_id: RunId, actor: Actor, idempotency: IdempotencyRow | None = None
    ) -> tuple[RunState, StepId]:
        """Lets the next step run; returns which one. Of a run with only a goal that is the one that plans it."""
        planner = await self._planned_first(run_id, actor, idempotency, only_next=True)
        if planner is not None:
            return await self.committer.load(run_id), planner
        attachments = Attachments(idempotency=idempotency)
        state, events = await self._commit(run_id, [Execute(actor)], attachments)
        granted = next(event.step_id for event in events if event.step_id is not None)
        return state, granted

    async def pause(self, run_id: RunId, actor: Actor, idempotency: IdempotencyRow | None = None) -> RunState:
        return await self._do(run_id, Pause(actor), idempotency)

    async def resume(self, run_id: RunId, actor: Actor, idempotency: IdempotencyRow | None = None) -> RunState:
        return await self._do(run_id, Resume(actor), idempotency)

    async def cancel(self, run_id: RunId, actor: Actor, idempotency: IdempotencyRow | None = None) -> RunState:
        return await self._do(run_id, Cancel(actor), idempotency)

    async def extend_budget(
        self,
        run_id: RunId,
        actor: Actor,
        *,
        add_usd: Decimal | None = None,
        add_tokens: int | None = None,
        idempotency: IdempotencyRow | None = None,
    ) -> RunState:
        """Adds to what the run may spend; it goes on when somebody resumes it. An agent may not."""
        return await self._do(run_id, ExtendBudget(actor, add_usd, add_tokens), idempotency)

    async def undo(
        self, run_id: RunId, actor: Actor, to: str | None = None, idempotency: IdempotencyRow | None = None
    ) -> tuple[RunState, StepId]:
        """Adds the undo step, which asks before it changes anything; returns its id.

        Raises WorkspaceConflict, or Conflict `cannot_undo`, with the paths where it can be seen now that it cannot be
        made: then nothing is added.
        """
        state = await self.committer.load(run_id)
        await self.delivery.check_copy(state)
        definitions = planning.define_undo(state, self.registry, to)
        if state.finished and not state.open:
            await self._undoing.check(state, to)
        attachments = Attachments(inputs=dict(definitions.inputs), idempotency=idempotency)
        state, _ = await self._commit(run_id, [Undo(actor, definitions.specs[0])], attachments)
        return state, definitions.specs[0].id

    async def _commit(
        self, run_id: RunId, commands: Sequence[Command], attachments: Attachments
    ) -> tuple[RunState, tuple[Event, ...]]:
        state, events = await self.committer.submit_once(run_id, commands, attachments)
        if events:
            self._ring(run_id)
        if any(event.type in ENDS for event in events):
            await self._end_turn(state)
        return state, events

    async def _end_turn(self, state: RunState) -> None:
        """A step that a person closed may have kept its workspace from other runs; they look again by themselves."""
        try:
            waiting = await self._workspaces.release_ended(WorkspaceId(state.info.workspace_id))
        except DatabaseUnavailable as error:
            log.warning("the workspace was not freed yet", run_id=state.info.id, error=str(error))
            return
        for run_id in waiting:
            self._ring(run_id)
