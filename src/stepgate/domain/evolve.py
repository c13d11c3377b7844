"""`evolve(state, event)`: the only place where a fact changes a state."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stepgate.domain.errors import IllegalTransition, IntegrityError
from stepgate.domain.events import Event
from stepgate.domain.filing import Filing
from stepgate.domain.ids import RunId
from stepgate.domain.state import UNDO, Actor, RunInfo, RunState, StepState
from stepgate.domain.states import EventType as E
from stepgate.domain.states import RunStatus as R
from stepgate.domain.states import run_targets, step_targets
from stepgate.domain.step_events import STEP_CHANGES, account, spec_from


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
        return filing.filed(event.at)._replace(usage=account(state.usage, event))
    filing.put(old, new)
    if event.type is E.STEP_COMPLETED and new.result is not None:
        return filing.filed(event.at, new.result.workspace_after)
    return filing.filed(event.at)


def _known(state: RunState, event: Event) -> StepState:
    step = state.steps.get(event.step_id) if event.step_id is not None else None
    if step is None:
        raise IntegrityError(f"the run has no step {event.step_id}")
    return step


def _add(state: RunState, steps: Iterable[Mapping[str, Any]], at: int) -> RunState:
    filing, keys, total, last = Filing(state), state.keys, state.total, state.last_step
    for data in steps:
        spec = spec_from(data, at)
        if state.finished is not (spec.type == UNDO):
            raise IllegalTransition(f"a run that is {state.phase} takes no step of type {spec.type}")
        if spec.id in filing.steps or spec.key in keys:
            raise IntegrityError(f"the run has a step {spec.key} already")
        filing.add(spec)
        keys = keys.insert(spec.key, spec.id)
        if spec.type != UNDO:
            total, last = total + 1, spec.id
    return filing.filed(at)._replace(keys=keys, total=total, last_step=last)


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


def _planned(state: RunState, event: Event) -> RunState:
    return _add(state, event.data["steps"], event.at)._replace(revision=event.data["revision"])


def _added(state: RunState, event: Event) -> RunState:
    return _add(state, (event.data,), event.at)


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
    phase = R.RUNNING if state.started_at is not None else R.QUEUED if state.allowance else R.PLANNED
    return state._replace(phase=phase, reason=None, drain=None, queued_at=event.at)


def _ended(state: RunState, event: Event) -> RunState:
    return state._replace(drain=None, completed_at=event.at)


def _undone(state: RunState, event: Event) -> RunState:
    return state._replace(undone_at=event.at)


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
