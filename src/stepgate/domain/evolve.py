"""`evolve(state, event)`: the only place where a fact changes a state."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stepgate.domain import budget
from stepgate.domain.errors import IllegalTransition, IntegrityError
from stepgate.domain.events import Event
from stepgate.domain.filing import Filing
from stepgate.domain.identity import DEFAULT_TENANT
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.state import SYSTEM, UNDO, Actor, RunInfo, RunState, StepState
from stepgate.domain.states import EventType as E
from stepgate.domain.states import RunStatus as R
from stepgate.domain.states import run_targets, step_targets
from stepgate.domain.step_events import STEP_CHANGES, account, spec_from

COMPLETED = E.STEP_COMPLETED


def evolve(state: RunState | None, event: Event) -> RunState:
    """The state after the event.

    Raises IllegalTransition where the tables in `states` have no such row, IntegrityError where the event
    does not belong to this state at all.
    """
    if state is None:
        if event.type is not E.RUN_CREATED:
            raise IntegrityError(f"a journal cannot begin with {event.type}")
        return _created(event)
    change = STEP_CHANGES.get(event.type)
    if change is not None:
        return _step_event(state, event, change)
    targets = run_targets(state.phase, event.type)
    if not targets:
        raise IllegalTransition(f"a run that is {state.phase} cannot take {event.type}")
    return _RUN[event.type](state._replace(phase=targets[0], last_at=_later(state, event)), event)


def fold(events: Iterable[Event], state: RunState | None = None) -> RunState:
    """All events in order, from a state or from nothing."""
    for event in events:
        state = evolve(state, event)
    if state is None:
        raise IntegrityError("an empty journal has no state")
    return state


def _later(state: RunState, event: Event) -> int:
    return max(state.last_at, event.at)


# Steps


def _step_event(state: RunState, event: Event, change: Callable[[StepState, Event], StepState]) -> RunState:
    old = _known(state, event)
    targets = step_targets(old.status, event.type)
    new = change(old, event) if targets else old
    if new.status not in targets:
        raise IllegalTransition(f"a step that is {old.status} cannot take {event.type}")
    filing = Filing(state)
    if new.usage is not old.usage:
        filing.steps = filing.steps.insert(new.spec.id, new)
        own = budget.account(state.budget, event.data)
        return filing.filed(event.at)._replace(usage=account(state.usage, event), budget=own)
    filing.put(old, new)
    if event.type is COMPLETED and new.result is not None:
        return filing.filed(event.at, new.result.workspace_after)
    return filing.filed(event.at)


def _known(state: RunState, event: Event) -> StepState:
    step = state.steps.get(event.step_id) if event.step_id is not None else None
    if step is None:
        raise IntegrityError(f"the run has no step {event.step_id}")
    return step


def _add(state: RunState, steps: Iterable[Mapping[str, Any]], event: Event) -> RunState:
    at, by = event.at, event.actor
    added_by = None if by.kind == SYSTEM else by.id  # a model's steps are asked for with the run
    planner = event.data.get("planner")
    specs = [spec_from(data, at, added_by, planner) for data in steps]
    finished, keys, total, last = state.finished, dict[str, StepId](), state.total, state.last_step
    for spec in specs:
        if finished is not (spec.type == UNDO):
            raise IllegalTransition(f"a run that is {state.phase} takes no step of type {spec.type}")
        if spec.key in keys or spec.key in state.keys:
            raise IntegrityError(f"the run has a step {spec.key} already")
        keys[spec.key] = spec.id
        if spec.type != UNDO:
            total, last = total + 1, spec.id
    filing = Filing(state)
    filing.add(specs)
    return filing.filed(at)._replace(keys=state.keys.update(keys), total=total, last_step=last)


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
        tenant=data.get("tenant", DEFAULT_TENANT),
        origin=data.get("origin"),
    )
    return RunState(info=info, budget=budget.of_limits(info.limits), last_at=event.at)


def _planned(state: RunState, event: Event) -> RunState:
    """While it is being planned, `start` has been said or not: then the run may go on, or waits for a word."""
    planned = _add(state, event.data["steps"], event)._replace(revision=event.data["revision"])
    if state.revision:
        return planned
    if state.allowance == "start":
        return planned._replace(phase=R.QUEUED if state.phase is R.PLANNED else state.phase)
    return planned._replace(allowance=None)


def _planning(state: RunState, event: Event) -> RunState:
    return state


def _added(state: RunState, event: Event) -> RunState:
    return _add(state, (event.data,), event)


def _queued(state: RunState, event: Event) -> RunState:
    filing = Filing(state)
    if event.data["allowance"] == "start":
        filing.release()
        return filing.filed(event.at)._replace(allowance="start", queued_at=event.at)
    step = _known(state, event)
    if not step_targets(step.status, event.type):
        raise IllegalTransition(f"a step that is {step.status} cannot take {event.type}")
    filing.put(step, step._replace(granted=True))
    allowance = state.allowance or "execute"
    return filing.filed(event.at)._replace(allowance=allowance, queued_at=event.at)


def _started(state: RunState, event: Event) -> RunState:
    return state._replace(started_at=event.at)


def _draining(state: RunState, event: Event) -> RunState:
    return state._replace(reason=event.data["reason"], drain=event.data["drain"])


def _paused(state: RunState, event: Event) -> RunState:
    return state


def _resumed(state: RunState, event: Event) -> RunState:
    if state.revision == 0:
        phase = R.PLANNING
    else:
        phase = R.RUNNING if state.started_at is not None else R.QUEUED if state.allowance else R.PLANNED
    return state._replace(phase=phase, reason=None, drain=None, queued_at=event.at)


def _ended(state: RunState, event: Event) -> RunState:
    return state._replace(drain=None, completed_at=event.at)


def _undone(state: RunState, event: Event) -> RunState:
    return state._replace(undone_at=event.at)


def _alerted(state: RunState, event: Event) -> RunState:
    return state._replace(budget=budget.tell(state.budget, event.data))


def _extended(state: RunState, event: Event) -> RunState:
    return state._replace(budget=budget.extended(state.budget, event.data["limit"]))


_RUN: Mapping[E, Callable[[RunState, Event], RunState]] = {
    E.RUN_PLANNING: _planning,
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
    E.BUDGET_ALERTED: _alerted,
    E.BUDGET_EXTENDED: _extended,
}
