"""What must be true of every state a run can reach, counted anew from its steps alone."""

from collections.abc import Mapping, Sequence

from stepgate.domain import projection
from stepgate.domain.events import Event
from stepgate.domain.evolve import fold
from stepgate.domain.ids import StepId
from stepgate.domain.journal import Head, parse, require, seal, verify
from stepgate.domain.state import UNDO, ApprovalStatus, Effect, Gate, RunState, StepState, satisfies
from stepgate.domain.states import (
    ACTIVE,
    CLOSED,
    DRAINING,
    FINISHED,
    IN_FLIGHT,
    STARTABLE,
    EventType,
    RunStatus,
    StepStatus,
)
from stepgate.domain.wake import next_wake


def check_state(state: RunState) -> None:
    """Lists, counts and times are what the steps say."""
    steps = dict(state.steps.items())
    check_lists(state, steps)
    check_counts(state, steps)
    for step in steps.values():
        check_step(step)
    check_phase(state, steps)
    check_rest(state)
    check_rows(state)


def check_lists(state: RunState, steps: Mapping[StepId, StepState]) -> None:
    waiting: dict[StepId, list[StepId]] = {}
    for step in steps.values():
        unmet = [need for need in step.spec.needs if not satisfies(steps[need])]
        assert step.status in CLOSED or step.blocked == len(unmet)
        for need in unmet:
            waiting.setdefault(need, []).append(step.id)
    for need, ids in waiting.items():
        assert set(ids) <= set(state.dependents[need])

    free = [s for s in steps.values() if s.status in STARTABLE and not s.blocked and s.retry_at is None]
    allowed = {s.id for s in free if state.allowance == "start" or s.granted}
    assert set(state.ready) == allowed
    assert set(state.held) == {s.id for s in free} - allowed
    assert set(state.in_flight) == {s.id for s in steps.values() if s.status in IN_FLIGHT}
    assert set(state.asking) == {s.id for s in steps.values() if s.status is StepStatus.AWAITING_APPROVAL}
    assert set(state.review) == {s.id for s in steps.values() if s.status is StepStatus.NEEDS_REVIEW}

    timers: dict[StepId, int] = {}
    for step in steps.values():
        if step.retry_at is not None:
            timers[step.id] = step.retry_at
        question = step.approval
        if question is not None and question.status is ApprovalStatus.OPEN and question.expires_at is not None:
            span = question.expires_at - question.requested_at
            left = [percent for percent in (50, 90, 100) if percent > question.reminded]
            timers[step.id] = question.requested_at + span * left[0] // 100
    assert list(state.timers) == sorted((at, step_id) for step_id, at in timers.items())
    assert set(state.retrying) == {s.id for s in steps.values() if s.retry_at is not None}
    assert state.next_timer == min(timers.values(), default=None)


def check_counts(state: RunState, steps: Mapping[StepId, StepState]) -> None:
    planned = [s for s in steps.values() if s.spec.type != UNDO]
    assert state.open == sum(s.status not in CLOSED for s in steps.values())
    assert state.total == len(planned)
    assert state.done == sum(s.status in CLOSED for s in planned)
    assert dict(state.keys.items()) == {s.spec.key: s.id for s in steps.values()}
    if planned:
        assert state.last_step == max(planned, key=lambda s: s.spec.number).id
    usages = [s.usage for s in steps.values()]
    assert state.usage.calls == sum(u.calls for u in usages)
    assert state.usage.unknown == sum(u.unknown for u in usages) >= 0
    assert state.usage.cost_usd == sum(u.cost_usd for u in usages)
    assert (state.usage.total_usd is None) == (state.usage.unknown > 0)
    for name in ("input", "output", "cached", "reasoning"):
        known = [getattr(u, name) for u in usages if getattr(u, name) is not None]
        assert getattr(state.usage, name) == (sum(known) if known else None)


def check_step(step: StepState) -> None:
    assert (step.completed_at is not None) == (step.status in CLOSED)
    assert step.retry_at is None or (step.status in STARTABLE and not step.blocked)
    assert step.usage.unknown == step.usage.calls - step.usage.priced >= 0
    assert [a.revision for a in step.approvals] == list(range(1, len(step.approvals) + 1))
    for earlier in step.approvals[:-1]:
        assert earlier.status not in (ApprovalStatus.OPEN, ApprovalStatus.APPROVED), "only the last question counts"
    is_open = step.approval is not None and step.approval.status is ApprovalStatus.OPEN
    assert not is_open or step.status is StepStatus.AWAITING_APPROVAL
    match step.status:
        case StepStatus.PENDING | StepStatus.PREPARING:
            assert step.approval is None or not step.authorised, "an approved step is not merely pending"
        case StepStatus.AWAITING_APPROVAL:
            assert step.approval is not None
            assert step.approval.status in (ApprovalStatus.OPEN, ApprovalStatus.EXPIRED)
        case StepStatus.APPROVED | StepStatus.RUNNING | StepStatus.COMPUTED | StepStatus.COMPLETED:
            assert step.authorised
            assert step.approval is not None or step.spec.gate is Gate.ALLOW
        case _:
            pass
    assert step.blocked == 0 or step.status in (StepStatus.PENDING, *CLOSED)
    assert (step.result is not None) == (step.status in (StepStatus.COMPUTED, StepStatus.COMPLETED)) or (
        step.result is not None and step.status in (StepStatus.NEEDS_REVIEW, StepStatus.SKIPPED, StepStatus.CANCELLED)
    )


def check_phase(state: RunState, steps: Mapping[StepId, StepState]) -> None:
    planned = [s for s in steps.values() if s.spec.type != UNDO]
    assert (state.completed_at is not None) == (state.phase in FINISHED)
    assert (state.drain is not None) == (state.phase in (*DRAINING, RunStatus.PAUSED))
    assert state.phase not in DRAINING or state.in_flight, "a draining run with nothing in flight has settled"
    assert state.phase is not RunStatus.PAUSED or state.settled
    if state.phase in FINISHED:
        assert all(s.status in CLOSED for s in planned)
    elif state.phase in (RunStatus.CANCELLING, RunStatus.FAILING):
        assert all(s.status in (*CLOSED, *IN_FLIGHT, StepStatus.NEEDS_REVIEW) for s in planned)
    elif state.phase in ACTIVE:
        assert state.open > 0, "a run whose steps have all ended has ended"
        assert not state.review, "a run with a step under review stands still"
    if state.phase is RunStatus.COMPLETED:
        assert all(satisfies(s) or is_replaced(s) for s in planned)
    if state.phase in (RunStatus.CREATED, RunStatus.PLANNED):
        waiting = (s for s in planned if s.spec.type != "plan")  # what wrote the others has ended
        assert all(s.status in (StepStatus.PENDING, StepStatus.SKIPPED) for s in waiting)
        assert state.allowance is None


def is_replaced(step: StepState) -> bool:
    """Whether a later revision of the plan took its place."""
    asked = step.approval is not None and step.approval.then == "replan"
    return step.reason == "replanned" or (asked and step.status is StepStatus.REJECTED)


def waits_for(state: RunState) -> str | None:
    """Whom a run that is not awake waits for; None would be a run forgotten by everybody."""
    if state.phase in (RunStatus.CREATED, RunStatus.PLANNED, RunStatus.PAUSED):
        return state.phase.value
    steps = [step for _, step in state.steps.items()]
    if any(s.approval is not None and s.approval.status is ApprovalStatus.OPEN for s in steps):
        return "approval"
    if any(s.status is StepStatus.NEEDS_REVIEW for s in steps):
        return "review"
    if state.phase in FINISHED:
        return "finished" if all(s.status in CLOSED for s in steps) else None
    if state.allowance == "execute" and state.held:
        return "execute"
    return None


def check_rest(state: RunState) -> None:
    """No run is ever neither settled nor awake."""
    if next_wake(state) is None:
        assert not state.in_flight
        assert waits_for(state) is not None


def check_rows(state: RunState) -> None:
    """Every state has its rows, and they hold what a column can hold."""
    run_id = state.info.id
    run = projection.run_row(state)
    assert run.steps_done == state.done
    assert run.wake_at == next_wake(state)
    assert len(projection.run_facts(state)) == len(projection.RunFacts._fields)
    for step in state.steps.values():
        assert projection.step_facts(run_id, step).run_id == run_id
        assert projection.step_row(run_id, step).status == step.status.value
        for approval in step.approvals:
            request = projection.request_row(run_id, step, approval)
            answers = projection.decision_rows(run_id, approval)
            standing = [row for row in answers if row.settles]
            assert request.revision == approval.revision
            assert {row.action_hash for row in answers} <= {approval.action_hash}
            assert len(standing) <= 1
            if approval.status in (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED):
                assert [row.verdict for row in standing] == [approval.status.value]


def check_history(state: RunState, events: Sequence[Event]) -> None:
    """The journal is a verified chain, monotonic in time, and adds up to the state, from its stored texts alone."""
    assert fold(events) == state
    records, head = seal(state.info.id, Head(), events)
    require(verify(state.info.id, records, head))
    assert fold(parse(record.body) for record in records) == state
    assert [record.seq for record in records] == list(range(1, len(events) + 1))
    times = [record.at for record in records]
    assert times == sorted(times)
    assert times[-1] <= state.last_at


def check_gates(state: RunState, events: Sequence[Event]) -> None:
    """Read from the journal alone: an answer stands before anything begins, and serves one effect, or one start."""
    standing: dict[StepId, str] = {}
    asked: set[StepId] = set()
    spent: set[StepId] = set()
    needed, said = dict[StepId, int](), dict[StepId, set[str]]()
    for event in events:
        if event.step_id is None:
            continue
        step_id, spec = event.step_id, state.steps[event.step_id].spec
        gated = spec.gate is Gate.ASK or step_id in asked
        match event.type:
            case EventType.APPROVAL_REQUESTED:
                asked.add(step_id)
                standing.pop(step_id, None)
                needed[step_id], said[step_id] = event.data["required"], set()
            case EventType.APPROVAL_COUNTED:
                assert event.actor.id not in said[step_id], "nobody counts twice"
                said[step_id].add(event.actor.id)
                assert len(said[step_id]) < needed[step_id]
            case EventType.APPROVAL_APPROVED:
                assert len({*said[step_id], event.actor.id}) == needed[step_id], "as many persons as it takes"
                standing[step_id] = event.data["action_hash"]
                spent.discard(step_id)
            case EventType.APPROVAL_REJECTED | EventType.APPROVAL_EXPIRED:
                standing.pop(step_id, None)
            case EventType.STEP_STARTED | EventType.STEP_COMPUTED | EventType.STEP_COMPLETED if gated:
                assert step_id in standing, "an effect without a standing approval"
                if event.type is EventType.STEP_STARTED:
                    assert event.data["action_hash"] == standing[step_id]
            case EventType.STEP_RETRIED if event.actor.kind == "person" and not gated:
                spent.discard(step_id)
            case _:
                pass
        single = EventType.STEP_STARTED if spec.effect is Effect.ONCE else EventType.STEP_COMPUTED
        if event.type is single:
            assert step_id not in spent, "a second effect on one word"
            spent.add(step_id)
