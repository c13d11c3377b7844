"""`decide(state, command, now)`: which facts a command causes. Pure; the one rule book for every channel."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from stepgate.domain import commands as c
from stepgate.domain import events
from stepgate.domain.decide import approvals, budgets, runs, steps
from stepgate.domain.decide.turn import Turn
from stepgate.domain.errors import Conflict, NotFound
from stepgate.domain.events import Event
from stepgate.domain.evolve import evolve
from stepgate.domain.state import RunState

_DECIDERS: Mapping[type, Callable[[Turn, Any], None]] = {
    c.AddSteps: runs.add_steps,
    c.Plan: runs.plan,
    c.Start: runs.start,
    c.Execute: runs.execute,
    c.Pause: runs.pause,
    c.Resume: runs.resume,
    c.Cancel: runs.cancel,
    c.Undo: runs.undo,
    c.Poison: runs.poison,
    c.Settle: runs.settle,
    c.Ask: approvals.ask,
    c.Grant: approvals.grant,
    c.Approve: approvals.approve,
    c.Reject: approvals.reject,
    c.Skip: approvals.skip,
    c.Edit: approvals.edit,
    c.Expire: approvals.expire,
    c.Prepare: steps.prepare,
    c.Begin: steps.begin,
    c.Compute: steps.compute,
    c.Complete: steps.complete,
    c.Fail: steps.fail,
    c.Interrupt: steps.interrupt,
    c.Review: steps.review,
    c.CallModel: steps.call_model,
    c.SettleModel: steps.settle_model,
    c.StopForBudget: budgets.stop_for_budget,
    c.ExtendBudget: budgets.extend,
    c.AlertBudget: budgets.alert,
}


class Decision(NamedTuple):
    """The events a command causes (none when it asks for what already stands) and the state after them."""

    state: RunState
    events: tuple[Event, ...]


def decide(state: RunState | None, command: c.Command, now: int) -> Decision:
    """Raises a Conflict, NotFound, Expired or InvalidValue when the command does not fit; then nothing happened.

    `now` is the database's time in microseconds; it never runs behind the run's last event.
    """
    if isinstance(command, c.Create):
        if state is not None:
            raise Conflict("the run exists already")
        return _create(command, now)
    if state is None:
        raise NotFound("no such run")
    turn = Turn(state, command.actor, now)
    _DECIDERS[type(command)](turn, command)
    turn.settle()
    return Decision(turn.state, tuple(turn.events))


def _create(command: c.Create, now: int) -> Decision:
    first = events.run_created(command.info, now)
    turn = Turn(evolve(None, first), command.actor, now)
    if command.steps:
        turn.emit(events.run_planned(command.actor, turn.now, 1, command.steps))
    for one in command.inherited:
        turn.emit(events.step_inherited(command.actor, turn.now, one))
    return Decision(turn.state, (first, *turn.events))
