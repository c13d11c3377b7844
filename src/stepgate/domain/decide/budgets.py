"""Decisions about money: what stops for want of it, who adds to it, and when people are told."""

from stepgate.domain import budget, events
from stepgate.domain.commands import AlertBudget, ExtendBudget, StopForBudget
from stepgate.domain.decide.steps import stop
from stepgate.domain.decide.turn import Turn
from stepgate.domain.errors import Forbidden, InvalidValue
from stepgate.domain.identity import Kind
from stepgate.domain.states import ACTIVE, IN_FLIGHT
from stepgate.domain.states import EventType as E

BUDGET = "budget"
_FIX = "leave it out, or create the run with this limit"


def extend(turn: Turn, command: ExtendBudget) -> None:
    """Adds and never takes back; the run stands where it is until somebody resumes it."""
    if turn.actor.kind == Kind.AGENT:
        raise Forbidden("an agent may not extend a budget", fix="let a person or a service extend it")
    own = turn.state.budget
    if turn.state.finished:
        raise turn.refuse("extend the budget of", "fork it, or create a run with a larger limit")
    if command.add_usd is not None and own.cost_usd is None:
        raise InvalidValue("the run has no limit of its cost: there is nothing to add to", field="add_usd", fix=_FIX)
    if command.add_tokens is not None and own.tokens is None:
        raise InvalidValue("the run has no limit of tokens: there is nothing to add to", field="add_tokens", fix=_FIX)
    if not command.add_usd and not command.add_tokens:
        raise InvalidValue("nothing is added", field="add_usd", fix="add to add_usd, add_tokens or both")
    turn.emit(events.budget_extended(turn.actor, turn.now, own, command.add_usd, command.add_tokens))


def stop_for_budget(turn: Turn, command: StopForBudget) -> None:
    """What runs beside it may finish: it is paid for. The step has not begun, and has used up no attempt."""
    step = turn.step(command.step_id)
    if step.status in IN_FLIGHT:
        stop(turn, step, BUDGET, command.error)
    if turn.state.phase in ACTIVE:
        turn.drain(E.RUN_PAUSING, BUDGET, "finish")
    if command.own:
        turn.tell_spending(turn.state.budget.taken)
        turn.tell_used_up()


def alert(turn: Turn, command: AlertBudget) -> None:
    """Each once, also where the worker that told of it was lost before it knew."""
    if not budget.was_told(turn.state.budget, command.alert.data()):
        turn.emit(events.budget_alerted(turn.actor, turn.now, command.alert))
