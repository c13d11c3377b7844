"""Every state meets every event: allowed exactly where the tables have a row, refused everywhere else."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, get_args

import pytest

from stepgate.domain import commands
from stepgate.domain.budget import FREE, Alert
from stepgate.domain.decide import _DECIDERS
from stepgate.domain.errors import IllegalTransition, IntegrityError
from stepgate.domain.events import Event, run_created, spec_data
from stepgate.domain.evolve import evolve, fold
from stepgate.domain.forking import usage_data
from stepgate.domain.ids import StepId
from stepgate.domain.state import NO_USAGE, UNDO, Effect, Inherited
from stepgate.domain.states import (
    ANYTIME,
    CLOSED,
    DRAINING,
    FINISHED,
    IN_FLIGHT,
    RUN_TRANSITIONS,
    STARTABLE,
    STEP_TRANSITIONS,
    EventType,
    RunStatus,
    StepStatus,
    run_targets,
    step_targets,
)
from tests.domain.runs import (
    CHANGE,
    DIGEST,
    HASH,
    NO_TOKENS,
    OTHER_HASH,
    PERSON,
    Run,
    fault,
    gated,
    info,
    planned,
    planning,
    question,
    spec,
    started,
    undo_spec,
    uuid,
)

STEP = StepId(uuid(1, 1))
STEP_EVENTS = [
    event
    for event in EventType
    if not event.value.startswith(("run.", "budget.")) and event is not EventType.STEP_ADDED
]
RUN_EVENTS = [event for event in EventType if event not in STEP_EVENTS]
DERIVED = (RunStatus.AWAITING_APPROVAL,)
"""Run statuses that no event records (yet)."""

RESULT: Mapping[str, Any] = {"attempt": 1, **CHANGE._asdict()}
ANSWER: Mapping[str, Any] = {
    "request_id": uuid(3, 1),
    "action_hash": HASH,
    "reason": None,
    "then": "skip",
    "implied": False,
}
ENDED: Mapping[str, Any] = {"reason": "because"}
STEP_DATA: Mapping[EventType, Mapping[str, Any]] = {
    EventType.STEP_INHERITED: {
        **Inherited(STEP, STEP, StepStatus.COMPLETED, 1, None, DIGEST, 2, 1, 2, NO_USAGE)._asdict(),
        "usage": usage_data(NO_USAGE),
    },
    EventType.STEP_PREPARING: {},
    EventType.STEP_PREPARED: {},
    EventType.STEP_STARTED: {"attempt": 1, "action_hash": HASH, "again": False},
    EventType.STEP_COMPUTED: RESULT,
    EventType.STEP_COMPLETED: RESULT,
    EventType.STEP_FAILED: {"attempt": 1, "error": fault()},
    EventType.STEP_RETRIED: {"attempt": 1, "retry_at": None, "reason": "again", "error": None},
    EventType.STEP_SKIPPED: ENDED,
    EventType.STEP_REJECTED: ENDED,
    EventType.STEP_CANCELLED: ENDED,
    EventType.STEP_DISCARDED: {"what": "result", "output_sha256": DIGEST},
    EventType.STEP_NEEDS_REVIEW: {"reason": "because", "error": fault()},
    EventType.APPROVAL_REQUESTED: {
        **question(OTHER_HASH, number=2)._replace(revision=2)._asdict(),
        "matched_rules": [],
    },
    EventType.APPROVAL_COUNTED: {**ANSWER, "then": None},
    EventType.APPROVAL_APPROVED: {**ANSWER, "then": None},
    EventType.APPROVAL_REJECTED: ANSWER,
    EventType.APPROVAL_REMINDED: {**ANSWER, "percent": 50},
    EventType.APPROVAL_EDITED: {**ANSWER, "then": None, "input_sha256": DIGEST, "input_size": 2},
    EventType.APPROVAL_EXPIRED: {**ANSWER, "then": "abort"},
    EventType.MODEL_CALLED: {"call_id": "c", "request_hash": DIGEST, "router": "offline", "model": None},
    EventType.MODEL_SETTLED: {
        "call_id": "c",
        "status": "ok",
        "model": None,
        "cost_usd": None,
        "cost_source": "unknown",
        "tokens": dict(NO_TOKENS),
        "latency_ms": 1,
    },
}


def asking() -> Run:
    run = started(gated(1), spec(2, needs=()))
    run.ask(1)
    return run


def after(*actions: Callable[[Run], object], run: Run | None = None) -> Run:
    """A run with step 1 in the status that these actions lead to, beside a step that keeps the run going."""
    run = run or started(spec(1, effect=Effect.WORKSPACE), spec(2, needs=()))
    for action in actions:
        action(run)
    return run


STEP_IN: Mapping[StepStatus, Callable[[], Run]] = {
    StepStatus.PENDING: after,
    StepStatus.PREPARING: lambda: after(lambda run: run.prepare(1)),
    StepStatus.AWAITING_APPROVAL: asking,
    StepStatus.APPROVED: lambda: after(lambda run: run.approve(1), run=asking()),
    StepStatus.RUNNING: lambda: after(lambda run: run.begin(1)),
    StepStatus.COMPUTED: lambda: after(lambda run: run.compute(1)),
    StepStatus.COMPLETED: lambda: after(lambda run: run.complete(1)),
    StepStatus.FAILED: lambda: after(lambda run: run.begin(2), lambda run: run.fail(1)),
    StepStatus.SKIPPED: lambda: after(lambda run: run.skip(1)),
    StepStatus.REJECTED: lambda: after(lambda run: run.reject(1, then="skip"), run=asking()),
    StepStatus.CANCELLED: lambda: after(lambda run: run.cancel()),
    StepStatus.NEEDS_REVIEW: lambda: after(lambda run: run.review(1)),
}
PHASE_IN: Mapping[RunStatus, Callable[[], Run]] = {
    RunStatus.CREATED: planned,
    RunStatus.PLANNING: planning,
    RunStatus.PLANNED: lambda: planned(spec(1)),
    RunStatus.QUEUED: lambda: started(spec(1)),
    RunStatus.RUNNING: lambda: after(lambda run: run.begin(1)),
    RunStatus.PAUSING: lambda: after(lambda run: run.begin(1), lambda run: run.pause()),
    RunStatus.PAUSED: lambda: after(lambda run: run.pause()),
    RunStatus.CANCELLING: lambda: after(lambda run: run.begin(1), lambda run: run.cancel()),
    RunStatus.CANCELLED: lambda: after(lambda run: run.cancel()),
    RunStatus.FAILING: lambda: after(lambda run: run.begin(2), lambda run: run.fail(1)),
    RunStatus.FAILED: lambda: after(lambda run: run.fail(1)),
    RunStatus.COMPLETED: lambda: after(lambda run: run.complete(1), lambda run: run.complete(2)),
}


def run_event(event: EventType, phase: RunStatus, now: int) -> Event:
    """An event about the run that belongs to any run, as far as its data go."""
    match event:
        case EventType.RUN_CREATED:
            return run_created(info(), now)
        case EventType.RUN_PLANNED:
            data: dict[str, Any] = {"revision": 1, "steps": [spec_data(spec(9, needs=()))]}
        case EventType.STEP_ADDED:
            data = spec_data(undo_spec(9) if phase in FINISHED else spec(9, needs=()))
        case EventType.RUN_QUEUED:
            data = {"allowance": "start"}
        case EventType.RUN_PAUSING | EventType.RUN_CANCELLING | EventType.RUN_FAILING:
            data = {"reason": "because", "drain": "finish"}
        case EventType.RUN_UNDONE:
            data = {"change_set_id": None}
        case EventType.BUDGET_ALERTED:
            data = Alert(50, Decimal(1), None, FREE).data()
        case EventType.BUDGET_EXTENDED:
            data = {"added": {"cost_usd": "1", "tokens": None}, "limit": {"cost_usd": "2", "tokens": None}}
        case _:
            data = {"reason": "because"}
    return Event(event, StepId(uuid(1, 9)) if event is EventType.STEP_ADDED else None, PERSON, now, data)


@pytest.mark.parametrize("event", STEP_EVENTS)
@pytest.mark.parametrize("status", StepStatus)
def test_a_step_takes_an_event_exactly_where_the_table_has_a_row(status: StepStatus, event: EventType) -> None:
    run = STEP_IN[status]()
    assert run.step(1).status is status
    state = run.state
    if event is EventType.MODEL_SETTLED:
        state = evolve(state, Event(EventType.MODEL_CALLED, STEP, PERSON, run.now, STEP_DATA[EventType.MODEL_CALLED]))
    told = Event(event, STEP, PERSON, run.now, STEP_DATA[event])
    targets = step_targets(status, event)
    if targets:
        assert evolve(state, told).steps[STEP].status in targets
    else:
        with pytest.raises(IllegalTransition):
            evolve(state, told)


@pytest.mark.parametrize("event", RUN_EVENTS)
@pytest.mark.parametrize("phase", RunStatus)
def test_a_run_takes_an_event_exactly_where_the_table_has_a_row(phase: RunStatus, event: EventType) -> None:
    if phase in DERIVED:
        run = after()
        state = run.state._replace(phase=phase)
    else:
        run = PHASE_IN[phase]()
        state = run.state
    assert state.phase is phase
    told = run_event(event, phase, run.now)
    targets = run_targets(phase, event)
    if targets:
        assert evolve(state, told).phase in targets
    else:
        with pytest.raises(IllegalTransition):
            evolve(state, told)


@pytest.mark.parametrize("status", StepStatus)
def test_execute_may_name_exactly_the_steps_whose_row_says_so(status: StepStatus) -> None:
    run = STEP_IN[status]()
    state = run.state._replace(phase=RunStatus.RUNNING)
    told = Event(EventType.RUN_QUEUED, STEP, PERSON, run.now, {"allowance": "execute"})
    if step_targets(status, EventType.RUN_QUEUED):
        assert evolve(state, told).steps[STEP].granted
    else:
        with pytest.raises(IllegalTransition):
            evolve(state, told)


def test_the_tables_name_every_status_and_no_event_twice_over() -> None:
    assert set(STEP_TRANSITIONS) == set(StepStatus)
    assert set(RUN_TRANSITIONS) == set(RunStatus) - set(DERIVED)
    for status, row in STEP_TRANSITIONS.items():
        assert not ANYTIME & set(row), "what moves nothing needs no row"
        assert status not in CLOSED or not row, "what has ended stays as it is"


def test_the_groups_of_statuses_are_what_their_names_say() -> None:
    for phase in FINISHED:
        assert {target for targets in RUN_TRANSITIONS[phase].values() for target in targets} == {phase}
    for phase in DRAINING:
        assert EventType.RUN_QUEUED not in RUN_TRANSITIONS[phase]
    assert not CLOSED & (IN_FLIGHT | STARTABLE)
    assert {status for status in StepStatus if EventType.STEP_COMPUTED in STEP_TRANSITIONS[status]} == {
        *STARTABLE,
        StepStatus.RUNNING,
    }


def test_every_status_but_the_first_can_be_reached() -> None:
    for first, table in ((RunStatus.CREATED, RUN_TRANSITIONS), (StepStatus.PENDING, STEP_TRANSITIONS)):
        reached = {first, *(target for row in table.values() for targets in row.values() for target in targets)}
        assert reached == set(table)


def test_a_journal_begins_with_the_creation_of_its_run() -> None:
    with pytest.raises(IntegrityError):
        evolve(None, Event(EventType.RUN_STARTED, None, PERSON, 1, {}))
    with pytest.raises(IntegrityError):
        fold([])


def test_an_event_about_an_unknown_step_contradicts_the_journal() -> None:
    told = Event(EventType.STEP_STARTED, StepId("nobody"), PERSON, 1, STEP_DATA[EventType.STEP_STARTED])
    with pytest.raises(IntegrityError):
        evolve(started(spec(1)).state, told)
    with pytest.raises(IntegrityError):
        evolve(started(spec(1)).state, told._replace(step_id=None))


def test_a_step_cannot_be_recorded_twice() -> None:
    run = started(spec(1))
    again = run_event(EventType.STEP_ADDED, RunStatus.RUNNING, run.now)
    state = evolve(run.state, again)
    with pytest.raises(IntegrityError):
        evolve(state, again)


def test_an_answer_to_another_question_than_the_open_one_is_refused() -> None:
    run = asking()
    other = {**ANSWER, "request_id": uuid(3, 99)}
    with pytest.raises(IllegalTransition):
        evolve(run.state, Event(EventType.APPROVAL_APPROVED, STEP, PERSON, run.now, other))


def test_every_command_has_its_decider() -> None:
    assert set(get_args(commands.Command)) - {commands.Create} == set(_DECIDERS)


def test_only_an_undo_joins_a_finished_run_and_never_an_open_one() -> None:
    done = PHASE_IN[RunStatus.COMPLETED]()
    ordinary = Event(EventType.STEP_ADDED, StepId(uuid(1, 9)), PERSON, done.now, spec_data(spec(9, needs=())))
    with pytest.raises(IllegalTransition):
        evolve(done.state, ordinary)
    undo = Event(EventType.STEP_ADDED, StepId(uuid(1, 9)), PERSON, done.now, spec_data(undo_spec(9)))
    assert evolve(done.state, undo).steps[StepId(uuid(1, 9))].spec.type == UNDO
    with pytest.raises(IllegalTransition):
        evolve(started(spec(1)).state, undo)
