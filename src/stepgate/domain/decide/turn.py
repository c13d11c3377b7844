"""One decision in progress: the facts decided so far and the state they lead to."""

from collections.abc import Iterable, Mapping
from typing import Any

from stepgate.domain.budget import USED_UP, crossed
from stepgate.domain.errors import IllegalTransition, NotFound
from stepgate.domain.events import Event, budget_alerted, fact
from stepgate.domain.evolve import evolve
from stepgate.domain.ids import StepId
from stepgate.domain.state import UNDO, Actor, RunState, StepState
from stepgate.domain.states import CLOSED, DRAINING, IN_FLIGHT
from stepgate.domain.states import EventType as E
from stepgate.domain.states import RunStatus as R

QUEUED = R.QUEUED


class Turn:
    """Collects events; each is folded at once, so that every later rule sees its consequences."""

    __slots__ = ("actor", "events", "now", "state")

    def __init__(self, state: RunState, actor: Actor, now: int) -> None:
        self.state = state
        self.actor = actor
        self.now = max(now, state.last_at)
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.state = evolve(self.state, event)
        self.events.append(event)

    def say(self, type_: E, step: StepId | None = None, **data: Any) -> None:
        """Emits an event whose data are the keywords."""
        self.emit(fact(type_, self.actor, self.now, data, step))

    def step(self, step_id: StepId) -> StepState:
        step = self.state.steps.get(step_id)
        if step is None:
            raise NotFound(f"the run has no step {step_id}", field="step_id")
        return step

    def begin_run(self) -> None:
        """The first fact a worker records starts the run."""
        if self.state.phase is QUEUED:
            self.say(E.RUN_STARTED)

    def refuse(self, what: str, fix: str | None = None) -> IllegalTransition:
        return IllegalTransition(f"cannot {what} a run that is {self.state.status}", fix=fix)

    def drain(self, type_: E, reason: str | None, how: str) -> None:
        """`how`: `kill` stops what runs, `finish` lets it end; what is being stopped already is not let go on."""
        self.say(type_, reason=reason, drain="kill" if self.killing else how)

    @property
    def killing(self) -> bool:
        return self.state.phase in DRAINING and self.state.drain == "kill"

    def in_order(self, steps: Iterable[StepId]) -> list[StepState]:
        """By number: a set's own order differs from process to process."""
        known = self.state.steps
        return sorted((known[step_id] for step_id in steps), key=lambda step: step.spec.number)

    def tell_spending(self, percent: int) -> None:
        """Of the run's own budget: every threshold reached that people were not told of."""
        own = self.state.budget
        for threshold in crossed(own.told, percent):
            self.emit(budget_alerted(self.actor, self.now, own.alert(threshold)))

    def tell_used_up(self) -> None:
        """A call does not fit any more, whatever is left."""
        own = self.state.budget
        if own.told < USED_UP:
            self.emit(budget_alerted(self.actor, self.now, own.alert(USED_UP)))

    def cancel_step(self, step_id: StepId) -> None:
        """Closes one step of a run that is coming to its end."""
        reason = "run_failed"
        if self.state.phase is R.CANCELLING:
            reason = "run_rejected" if self.state.reason == "rejected" else "run_cancelled"
        self.say(E.STEP_CANCELLED, step_id, reason=reason)

    def cancel_open_steps(self) -> None:
        """Closes every step that is not in flight; what is in flight is brought to its end by a worker."""
        for step in self.in_order(self.state.steps):
            if step.status not in CLOSED and step.status not in IN_FLIGHT and step.spec.type != UNDO:
                self.cancel_step(step.id)

    def settle(self) -> None:
        """What follows from the steps for the run, once nothing is in flight."""
        state = self.state
        if state.in_flight or (state.open and state.phase not in DRAINING):
            return
        match state.phase:
            case R.PAUSING:
                self.say(E.RUN_PAUSED, reason=state.reason)
            case R.CANCELLING:
                self.cancel_open_steps()
                self.say(E.RUN_CANCELLED, reason=state.reason)
            case R.FAILING:
                self.cancel_open_steps()
                self.say(E.RUN_FAILED, reason=state.reason)
            case R.PLANNING | R.QUEUED | R.RUNNING if state.open == 0 and state.total > 0:
                self.say(E.RUN_COMPLETED)
            case _:
                pass


def error_data(code: str, message: str, field: str | None = None) -> Mapping[str, Any]:
    """The shape every recorded error has."""
    return {"code": code, "message": message, "field": field}
