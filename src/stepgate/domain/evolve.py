"""`evolve(state, event)`: the only place where a fact changes a state. Total work is O(the step's dependents)."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from stepgate.domain.errors import IllegalTransition, IntegrityError
from stepgate.domain.events import Event
from stepgate.domain.ids import RequestId, RunId, StepId
from stepgate.domain.state import (
    NO_IDS,
    UNDO,
    Actor,
    Approval,
    ApprovalStatus,
    Effect,
    Gate,
    RunInfo,
    RunState,
    StepResult,
    StepSpec,
    StepState,
    Usage,
    satisfies,
)
from stepgate.domain.states import CLOSED, IN_FLIGHT, STARTABLE, run_targets, step_targets
from stepgate.domain.states import EventType as E
from stepgate.domain.states import RunStatus as R
from stepgate.domain.states import StepStatus as S


def evolve(state: RunState | None, event: Event) -> RunState:
    """The state after the event.

    Raises IllegalTransition where the tables in `states` have no such row, IntegrityError where the event
    does not belong to this state at all.
    """
    if state is None:
        if event.type is not E.RUN_CREATED:
            raise IntegrityError(f"a journal cannot begin with {event.type}")
        return _created(event)
    if event.type is E.RUN_CREATED:
        raise IllegalTransition("a run is created once")
    change = _STEP.get(event.type)
    state = _step_event(state, event, change) if change is not None else _RUN[event.type](state, event)
    return state._replace(last_at=event.at) if event.at > state.last_at else state


def fold(events: Iterable[Event], state: RunState | None = None) -> RunState:
    """All events in order, from a state or from nothing."""
    for event in events:
        state = evolve(state, event)
    if state is None:
        raise IntegrityError("an empty journal has no state")
    return state


# The run


def _created(event: Event) -> RunState:
    data = event.data
    info = RunInfo(
        id=RunId(data["id"]),
        goal=data["goal"],
        name=data["name"],
        workspace_id=data["workspace_id"],
        workspace_path=data["workspace_path"],
        workspace_mode=data["workspace_mode"],
        pool=data["pool"],
        labels=data["labels"],
        metadata=data["metadata"],
        requester=Actor(**data["requester"]),
        limits=data["limits"],
        created_at=event.at,
    )
    return RunState(info=info, last_at=event.at)


def _move(state: RunState, event: Event, target: R | None = None) -> R:
    targets = run_targets(state.phase, event.type)
    if not targets or (target is not None and target not in targets):
        raise IllegalTransition(f"a run that is {state.phase} cannot take {event.type}")
    return target or targets[0]


def _planned(state: RunState, event: Event) -> RunState:
    phase = _move(state, event)
    for data in event.data["steps"]:
        state = _add(state, spec_from(data, event.at))
    return state._replace(phase=phase, revision=event.data["revision"])


def _added(state: RunState, event: Event) -> RunState:
    _move(state, event)
    return _add(state, spec_from(event.data, event.at))


def _queued(state: RunState, event: Event) -> RunState:
    phase = _move(state, event)
    if event.data["allowance"] == "start":
        state = state._replace(phase=phase, allowance="start", queued_at=event.at)
        ready = state.ready
        for step_id in state.held:
            ready = ready.insert(step_id)
        return state._replace(ready=ready, held=NO_IDS)
    state = state._replace(phase=phase, allowance=state.allowance or "execute", queued_at=event.at)
    step = _known(state, event.step_id)
    if step.status not in step_targets(step.status, event.type):
        raise _illegal(step, event)
    return _put(state, step, step._replace(granted=True))


def _started(state: RunState, event: Event) -> RunState:
    return state._replace(phase=_move(state, event), started_at=event.at)


def _draining(state: RunState, event: Event) -> RunState:
    drain = event.data.get("drain", "kill")
    return state._replace(phase=_move(state, event), reason=event.data["reason"], drain=drain)


def _resumed(state: RunState, event: Event) -> RunState:
    target = R.RUNNING if state.started_at is not None else R.QUEUED if state.allowance else R.PLANNED
    phase = _move(state, event, target)
    return state._replace(phase=phase, reason=None, drain=None, queued_at=event.at)


def _paused(state: RunState, event: Event) -> RunState:
    return state._replace(phase=_move(state, event))


def _ended(state: RunState, event: Event) -> RunState:
    return state._replace(phase=_move(state, event), drain=None, completed_at=event.at)


def _undone(state: RunState, event: Event) -> RunState:
    return state._replace(phase=_move(state, event), undone_at=event.at)


_RUN: Mapping[E, Callable[[RunState, Event], RunState]] = {
    E.RUN_PLANNED: _planned,
    E.RUN_QUEUED: _queued,
    E.RUN_STARTED: _started,
    E.RUN_PAUSING: _draining,
    E.RUN_PAUSED: _paused,
    E.RUN_RESUMED: _resumed,
    E.RUN_CANCELLING: _draining,
    E.RUN_CANCELLED: _ended,
    E.RUN_FAILING: _draining,
    E.RUN_FAILED: _ended,
    E.RUN_COMPLETED: _ended,
    E.RUN_UNDONE: _undone,
    E.STEP_ADDED: _added,
}


# Steps


def spec_from(data: Mapping[str, Any], at: int) -> StepSpec:
    """A step's definition out of event data."""
    return StepSpec(
        id=StepId(data["id"]),
        key=data["key"],
        number=data["number"],
        type=data["type"],
        effect=Effect(data["effect"]),
        gate=Gate(data["gate"]),
        needs=tuple(StepId(need) for need in data["needs"]),
        max_attempts=data["max_attempts"],
        backoff_ms=data["backoff_ms"],
        timeout_ms=data["timeout_ms"],
        on_error=data["on_error"],
        input_sha256=data["input_sha256"],
        input_size=data["input_size"],
        created_at=at,
        why=data["why"],
    )


def _add(state: RunState, spec: StepSpec) -> RunState:
    if state.finished is not (spec.type == UNDO):
        raise IllegalTransition(f"a run that is {state.phase} takes no step of type {spec.type}")
    if spec.id in state.steps or spec.key in state.keys:
        raise IntegrityError(f"the run has a step {spec.key} already")
    blocked, dependents = 0, state.dependents
    for need in spec.needs:
        if not satisfies(_known(state, need)):
            blocked += 1
            dependents = dependents.insert(need, (*dependents.get(need, ()), spec.id))
    step = StepState(spec, blocked=blocked, granted=spec.type == UNDO)
    planned = spec.type != UNDO
    state = state._replace(
        steps=state.steps.insert(spec.id, step),
        keys=state.keys.insert(spec.key, spec.id),
        dependents=dependents,
        open=state.open + 1,
        total=state.total + planned,
        last_step=spec.id if planned else state.last_step,
    )
    return _file(state, step)


def _known(state: RunState, step_id: StepId | None) -> StepState:
    step = state.steps.get(step_id) if step_id is not None else None
    if step is None:
        raise IntegrityError(f"the run has no step {step_id}")
    return step


def _file(state: RunState, step: StepState) -> RunState:
    """Puts an unblocked step on the list that says what it waits for."""
    step_id, status = step.spec.id, step.status
    if status in STARTABLE:
        if step.blocked:
            return state
        if step.retry_at is not None:
            return _set_timer(state, step_id, step.retry_at)
        if state.allowance == "start" or step.granted:
            return state._replace(ready=state.ready.insert(step_id))
        return state._replace(held=state.held.insert(step_id))
    if status in IN_FLIGHT:
        return state._replace(in_flight=state.in_flight.insert(step_id))
    if status is S.AWAITING_APPROVAL:
        state = state._replace(asking=state.asking.insert(step_id))
        question = step.approvals[-1]
        if question.expires_at is None or question.status is not ApprovalStatus.OPEN:
            return state
        return _set_timer(state, step_id, question.expires_at)
    if status is S.NEEDS_REVIEW:
        return state._replace(review=state.review.insert(step_id))
    return state


def _unfile(state: RunState, step: StepState) -> RunState:
    step_id, status = step.spec.id, step.status
    if step_id in state.timers:
        state = _drop_timer(state, step_id)
    if status in STARTABLE:
        if step_id in state.ready:
            return state._replace(ready=state.ready.remove(step_id))
        return state._replace(held=state.held.remove(step_id)) if step_id in state.held else state
    if status in IN_FLIGHT:
        return state._replace(in_flight=state.in_flight.remove(step_id))
    if status is S.AWAITING_APPROVAL:
        return state._replace(asking=state.asking.remove(step_id))
    if status is S.NEEDS_REVIEW:
        return state._replace(review=state.review.remove(step_id))
    return state


def _set_timer(state: RunState, step_id: StepId, at: int) -> RunState:
    soonest = at if state.next_timer is None else min(at, state.next_timer)
    return state._replace(timers=state.timers.insert(step_id, at), next_timer=soonest)


def _drop_timer(state: RunState, step_id: StepId) -> RunState:
    at, timers = state.timers[step_id], state.timers.remove(step_id)
    soonest = state.next_timer
    if at == soonest:  # only then can the minimum have moved
        soonest = min(timers.values(), default=None)
    return state._replace(timers=timers, next_timer=soonest)


def _put(state: RunState, old: StepState, new: StepState) -> RunState:
    """Replaces a step and keeps the lists and counts true; unblocks dependents when it comes to an end."""
    state = _file(_unfile(state, old), new)
    state = state._replace(steps=state.steps.insert(new.spec.id, new))
    if new.status not in CLOSED or old.status in CLOSED:
        return state
    planned = new.spec.type != UNDO
    state = state._replace(open=state.open - 1, done=state.done + planned)
    return _unblock(state, new.spec.id) if satisfies(new) else state


def _unblock(state: RunState, step_id: StepId) -> RunState:
    waiting = state.dependents.get(step_id)
    if waiting is None:
        return state
    state = state._replace(dependents=state.dependents.remove(step_id))
    for dependent in waiting:
        step = state.steps[dependent]
        if step.status in CLOSED:
            continue
        freed = step._replace(blocked=step.blocked - 1)
        state = state._replace(steps=state.steps.insert(dependent, freed))
        if freed.blocked == 0:
            state = _file(state, freed)
    return state


def _step_event(state: RunState, event: Event, change: Callable[[StepState, Event], StepState]) -> RunState:
    old = _known(state, event.step_id)
    targets = step_targets(old.status, event.type)
    if not targets:
        raise _illegal(old, event)
    new = change(old, event)
    if new.status not in targets:
        raise _illegal(old, event)
    if event.type is E.MODEL_CALLED or event.type is E.MODEL_SETTLED:
        return state._replace(steps=state.steps.insert(old.spec.id, new), usage=_account(state.usage, event))
    state = _put(state, old, new)
    if event.type is E.STEP_COMPLETED and new.result is not None and new.result.workspace_after is not None:
        state = state._replace(workspace_rev=new.result.workspace_after)
    return state


def _illegal(step: StepState, event: Event) -> IllegalTransition:
    return IllegalTransition(f"a step that is {step.status} cannot take {event.type}")


def _preparing(step: StepState, event: Event) -> StepState:
    return step._replace(status=S.PREPARING, retry_at=None, started_at=step.started_at or event.at)


def _begun(step: StepState, event: Event) -> StepState:
    attempt = event.data["attempt"]
    started_at = step.started_at or event.at
    return step._replace(
        status=S.RUNNING, attempt=attempt, retry_at=None, reason=None, error=None, started_at=started_at
    )


def _result(data: Mapping[str, Any]) -> StepResult:
    return StepResult(
        data["output_sha256"],
        data["output_size"],
        data["change_set_id"],
        data["change_set_digest"],
        data["workspace_before"],
        data["workspace_after"],
        data["latency_ms"],
    )


def _computed(step: StepState, event: Event) -> StepState:
    data = event.data
    started_at = step.started_at or event.at
    return step._replace(
        status=S.COMPUTED,
        attempt=data["attempt"],
        retry_at=None,
        result=_result(data),
        started_at=started_at,
        error=None,
        reason=None,
    )


def _completed(step: StepState, event: Event) -> StepState:
    data = event.data
    return step._replace(
        status=S.COMPLETED,
        attempt=data["attempt"],
        retry_at=None,
        result=_result(data),
        error=None,
        reason=None,
        started_at=step.started_at or event.at,
        completed_at=event.at,
    )


def _failed(step: StepState, event: Event) -> StepState:
    data = event.data
    return step._replace(
        status=S.FAILED,
        attempt=data["attempt"],
        retry_at=None,
        error=data["error"],
        reason=data["error"]["code"],
        approvals=_void(step.approvals),
        started_at=step.started_at or event.at,
        completed_at=event.at,
    )


def _retried(step: StepState, event: Event) -> StepState:
    data = event.data
    if step.status is S.NEEDS_REVIEW and step.result is not None:
        return step._replace(status=S.COMPUTED, reason=None, error=None)
    approvals = step.approvals
    if step.status is S.NEEDS_REVIEW and step.spec.effect is Effect.ONCE:
        approvals = _supersede(approvals)  # it may have served its one start
    approved = bool(approvals) and approvals[-1].status is ApprovalStatus.APPROVED
    return step._replace(
        status=S.APPROVED if approved else S.PENDING,
        approvals=approvals,
        attempt=data["attempt"],
        retry_at=data["retry_at"],
        reason=data["reason"],
        error=data["error"],
    )


def _closing(status: S) -> Callable[[StepState, Event], StepState]:
    def close(step: StepState, event: Event) -> StepState:
        return step._replace(
            status=status,
            retry_at=None,
            reason=event.data["reason"],
            approvals=_void(step.approvals),
            completed_at=event.at,
        )

    return close


def _review(step: StepState, event: Event) -> StepState:
    data = event.data
    return step._replace(status=S.NEEDS_REVIEW, retry_at=None, reason=data["reason"], error=data["error"])


def _void(approvals: tuple[Approval, ...]) -> tuple[Approval, ...]:
    """A question still open when its step goes elsewhere is closed with it."""
    if not approvals or approvals[-1].status is not ApprovalStatus.OPEN:
        return approvals
    return (*approvals[:-1], approvals[-1]._replace(status=ApprovalStatus.VOID))


def _supersede(approvals: tuple[Approval, ...]) -> tuple[Approval, ...]:
    """An earlier question or answer stops counting where a new one must be asked."""
    if not approvals or approvals[-1].status not in (ApprovalStatus.OPEN, ApprovalStatus.APPROVED):
        return approvals
    return (*approvals[:-1], approvals[-1]._replace(status=ApprovalStatus.SUPERSEDED))


def _asked(step: StepState, event: Event) -> StepState:
    data = event.data
    approval = Approval(
        request_id=RequestId(data["request_id"]),
        revision=data["revision"],
        action_hash=data["action_hash"],
        risk=data["risk"],
        rendering_sha256=data["rendering_sha256"],
        required=data["required"],
        expires_at=data["expires_at"],
        on_expiry=data["on_expiry"],
        policy_version=data["policy_version"],
        matched_rules=tuple(data["matched_rules"]),
        requested_at=event.at,
    )
    approvals = (*_supersede(step.approvals), approval)
    return step._replace(status=S.AWAITING_APPROVAL, approvals=approvals, retry_at=None, reason=None)


def _decided(status: ApprovalStatus) -> Callable[[StepState, Event], StepState]:
    def decide(step: StepState, event: Event) -> StepState:
        data, latest = event.data, step.approvals[-1]
        if latest.request_id != data["request_id"] or latest.status is not ApprovalStatus.OPEN:
            raise IllegalTransition(f"the question {data['request_id']} is not open")
        decided = latest._replace(
            status=status,
            decided_at=event.at,
            decided_by=event.actor,
            reason=data.get("reason"),
            then=data.get("then"),
            implied=data.get("implied", False),
        )
        after = S.APPROVED if status is ApprovalStatus.APPROVED else step.status
        return step._replace(status=after, approvals=(*step.approvals[:-1], decided))

    return decide


def _called(step: StepState, event: Event) -> StepState:
    call_id = event.data["call_id"]
    return step._replace(usage=_account(step.usage, event), open_calls=(*step.open_calls, call_id))


def _settled(step: StepState, event: Event) -> StepState:
    call_id = event.data["call_id"]
    if call_id not in step.open_calls:
        raise IllegalTransition(f"the model call {call_id} is not open")
    still_open = tuple(call for call in step.open_calls if call != call_id)
    return step._replace(usage=_account(step.usage, event), open_calls=still_open)


def _account(usage: Usage, event: Event) -> Usage:
    """A call counts as unknown from the moment it is made until its cost is known."""
    if event.type is E.MODEL_CALLED:
        return usage._replace(calls=usage.calls + 1)
    data = event.data
    if data["cost_usd"] is not None:
        usage = usage._replace(priced=usage.priced + 1, cost_usd=usage.cost_usd + Decimal(data["cost_usd"]))
    tokens: Mapping[str, int | None] = data["tokens"]
    source = data["cost_source"]
    return usage._replace(
        input=_sum(usage.input, tokens["input"]),
        output=_sum(usage.output, tokens["output"]),
        cached=_sum(usage.cached, tokens["cached"]),
        reasoning=_sum(usage.reasoning, tokens["reasoning"]),
        source=source if usage.source in (None, source) else "mixed",
        model=data["model"] or usage.model,
    )


def _sum(total: int | None, more: int | None) -> int | None:
    return total if more is None else more if total is None else total + more


_STEP: Mapping[E, Callable[[StepState, Event], StepState]] = {
    E.STEP_PREPARING: _preparing,
    E.STEP_PREPARED: lambda step, event: step,
    E.STEP_STARTED: _begun,
    E.STEP_COMPUTED: _computed,
    E.STEP_COMPLETED: _completed,
    E.STEP_FAILED: _failed,
    E.STEP_RETRIED: _retried,
    E.STEP_SKIPPED: _closing(S.SKIPPED),
    E.STEP_REJECTED: _closing(S.REJECTED),
    E.STEP_CANCELLED: _closing(S.CANCELLED),
    E.STEP_DISCARDED: lambda step, event: step,
    E.STEP_NEEDS_REVIEW: _review,
    E.APPROVAL_REQUESTED: _asked,
    E.APPROVAL_APPROVED: _decided(ApprovalStatus.APPROVED),
    E.APPROVAL_REJECTED: _decided(ApprovalStatus.REJECTED),
    E.APPROVAL_EXPIRED: _decided(ApprovalStatus.EXPIRED),
    E.MODEL_CALLED: _called,
    E.MODEL_SETTLED: _settled,
}
