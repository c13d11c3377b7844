"""The verbs people use on runs: each is one command, decided and committed in one transaction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from stepgate.domain import canonical
from stepgate.domain.commands import (
    AddSteps,
    Approve,
    Cancel,
    Command,
    Create,
    Execute,
    Pause,
    Reject,
    Resume,
    Skip,
    Start,
    Undo,
)
from stepgate.domain.errors import DatabaseUnavailable, Forbidden, InvalidValue, StaleSteps
from stepgate.domain.events import Event
from stepgate.domain.ids import RunId, StepId, WorkspaceId, new_id
from stepgate.domain.limits import RunLimits
from stepgate.domain.plan import PlannedStep
from stepgate.domain.state import Actor, RunInfo, RunState
from stepgate.domain.states import EventType
from stepgate.engine import planning
from stepgate.executors.registry import Registry
from stepgate.storage.attachments import IdempotencyRow
from stepgate.storage.committer import Attachments, Committer
from stepgate.storage.database import Database
from stepgate.storage.workspaces import Workspaces
from stepgate.workspace.access import check_workspace

DEFAULT_POOL = "default"
ADD_ATTEMPTS = 5
ENDS = frozenset({EventType.STEP_SKIPPED, EventType.STEP_CANCELLED, EventType.STEP_REJECTED})
"""How a person closes a step."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewRun:
    """A request for a run, as it came in: nothing is checked yet. At most one of `plan` and `steps`."""

    goal: Any = None
    workspace_path: str | None = None
    plan: Any = None
    steps: Any = None
    params: Mapping[str, Any] | None = None
    limits: Any = None
    labels: Any = None
    metadata: Any = None
    start: bool = False


class Engine:
    """Everything that changes a run on a person's behalf."""

    def __init__(
        self,
        *,
        database: Database,
        committer: Committer,
        registry: Registry,
        workspace_root: Path,
        ring: Callable[[RunId], None],
        pool: str = DEFAULT_POOL,
        local_trust: bool = False,
    ) -> None:
        self.database = database
        self.committer = committer
        self.registry = registry
        self._workspaces = Workspaces(database)
        self._workspace_root = workspace_root
        self._ring = ring
        self._pool = pool
        self._local_trust = local_trust

    async def create(self, new: NewRun, actor: Actor, idempotency: IdempotencyRow | None = None) -> RunState:
        """A new run, planned if it came with steps, queued if it came with `start`.

        Raises InvalidValue, InvalidPlan or PathRefused naming the field; then nothing was created.
        """
        goal, name, limits, definitions = self._definition(new)
        path = check_workspace(new.workspace_path or str(self._workspace_root), self._workspace_root)
        labels, metadata = planning.check_labels(new.labels), planning.check_metadata(new.metadata)
        workspace = await self._workspaces.get_or_create(path, pool=self._pool, mode="in_place")
        run_id = RunId(new_id())
        info = RunInfo(
            id=run_id,
            goal=goal,
            name=name,
            workspace_id=workspace.id,
            workspace_path=str(path),
            workspace_mode=workspace.mode,
            pool=self._pool,
            labels=labels,
            metadata=metadata,
            requester=actor,
            limits=limits,
            created_at=0,
        )
        commands: list[Command] = [Create(actor, info, definitions.specs)]
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
        definitions = planning.define(planned, self.registry)
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
        definitions = planning.define(planned, self.registry, state)
        attachments = Attachments(inputs=dict(definitions.inputs), idempotency=idempotency)
        state, _ = await self._commit(run_id, [AddSteps(actor, definitions.specs)], attachments)
        return state, [spec.id for spec in definitions.specs]

    async def start(self, run_id: RunId, actor: Actor, idempotency: IdempotencyRow | None = None) -> RunState:
        return await self._do(run_id, Start(actor), idempotency)

    async def execute(
        self, run_id: RunId, actor: Actor, idempotency: IdempotencyRow | None = None
    ) -> tuple[RunState, StepId]:
        """Lets the next step run; returns which one."""
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

    async def skip(
        self,
        run_id: RunId,
        step_id: StepId,
        actor: Actor,
        reason: str | None,
        idempotency: IdempotencyRow | None = None,
    ) -> RunState:
        return await self._do(run_id, Skip(actor, step_id, check_reason(reason)), idempotency)

    async def approve(
        self,
        run_id: RunId,
        step_id: StepId,
        actor: Actor,
        *,
        action_hash: str | None,
        reason: str | None = None,
        idempotency: IdempotencyRow | None = None,
    ) -> RunState:
        """Without a hash only where this installation trusts local callers, and only for a first revision."""
        self._check_decision(actor, action_hash)
        return await self._do(run_id, Approve(actor, step_id, action_hash, check_reason(reason)), idempotency)

    async def reject(
        self,
        run_id: RunId,
        step_id: StepId,
        actor: Actor,
        *,
        action_hash: str | None,
        reason: str | None = None,
        then: str = "abort",
        idempotency: IdempotencyRow | None = None,
    ) -> RunState:
        """`then`: `abort` ends the run, `skip` goes on without the step. Saying no needs no hash."""
        if then not in ("abort", "skip"):
            raise InvalidValue(f"{then!r} is not one of abort, skip", field="then", fix="send abort or skip")
        if actor.kind == "agent":
            raise Forbidden("an agent may not decide")
        return await self._do(run_id, Reject(actor, step_id, action_hash, check_reason(reason), then), idempotency)

    async def undo(
        self, run_id: RunId, actor: Actor, to: str | None = None, idempotency: IdempotencyRow | None = None
    ) -> tuple[RunState, StepId]:
        """Adds the undo step, which asks before it changes anything; returns its id."""
        state = await self.committer.load(run_id)
        definitions = planning.define_undo(state, self.registry, to)
        attachments = Attachments(inputs=dict(definitions.inputs), idempotency=idempotency)
        state, _ = await self._commit(run_id, [Undo(actor, definitions.specs[0])], attachments)
        return state, definitions.specs[0].id

    def _check_decision(self, actor: Actor, action_hash: str | None) -> None:
        if actor.kind == "agent":
            raise Forbidden("an agent may not decide")
        if action_hash is None and not self._local_trust:
            raise InvalidValue(
                "an approval names the action it approves",
                field="action_hash",
                fix="send the action_hash shown with the request, or set STEPGATE_LOCAL_TRUST=1",
            )

    async def _do(self, run_id: RunId, command: Command, idempotency: IdempotencyRow | None) -> RunState:
        state, _ = await self._commit(run_id, [command], Attachments(idempotency=idempotency))
        return state

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


def check_reason(reason: str | None) -> str | None:
    """Free text of at most 2,000 characters."""
    if reason is None:
        return None
    canonical.check_text(reason, "reason")
    if len(reason) > 2000:
        raise InvalidValue("more than 2,000 characters", field="reason", fix="shorten the reason")
    return reason
