"""The lists and counts that follow from a run's steps, kept true as steps change. Work is O(the step's dependents)."""

from bisect import bisect_left, insort
from collections.abc import Sequence

from stepgate.domain.errors import IntegrityError
from stepgate.domain.expiry import next_look
from stepgate.domain.ids import StepId
from stepgate.domain.state import NO_IDS, UNDO, RunState, StepSpec, StepState, satisfies
from stepgate.domain.states import CLOSED, IN_FLIGHT, STARTABLE
from stepgate.domain.states import StepStatus as S

# An enum's member costs three times a name's look-up, and every step of every run comes along here.
AWAITING_APPROVAL, NEEDS_REVIEW, PENDING = S.AWAITING_APPROVAL, S.NEEDS_REVIEW, S.PENDING


class Filing:
    """A state's lists while one event changes them: read once, written back once, because `_replace` is dear."""

    __slots__ = (
        "asking",
        "dependents",
        "done",
        "held",
        "in_flight",
        "open",
        "ready",
        "retrying",
        "review",
        "state",
        "steps",
        "timers",
    )

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.steps = state.steps
        self.dependents = state.dependents
        self.ready = state.ready
        self.held = state.held
        self.in_flight = state.in_flight
        self.asking = state.asking
        self.review = state.review
        self.retrying = state.retrying
        self.timers = state.timers
        self.open = state.open
        self.done = state.done

    def filed(self, at: int, workspace_rev: str | None = None) -> RunState:
        """The state with these lists, after an event of this time (positional: a third of what `_replace` costs)."""
        state = self.state
        return RunState._make(
            (
                *state[:15],
                max(state.last_at, at),
                workspace_rev or state.workspace_rev,
                self.steps,
                self.dependents,
                self.ready,
                self.held,
                self.in_flight,
                self.asking,
                self.review,
                self.retrying,
                self.timers,
                self.open,
                self.done,
            )
        )

    def add(self, specs: Sequence[StepSpec]) -> None:
        """New steps, which wait for those of their needs that are not yet satisfied."""
        known, added = self.steps, dict[StepId, StepState]()
        waiting: dict[StepId, list[StepId]] = {}
        for spec in specs:
            blocked = 0
            for need in spec.needs:
                step = added.get(need) or known.get(need)
                if step is None:
                    raise IntegrityError(f"step {spec.key} needs {need}, which the run does not have")
                if not satisfies(step):
                    blocked += 1
                    waiting.setdefault(need, []).append(spec.id)
            added[spec.id] = new = StepState(spec, PENDING, blocked, spec.type == UNDO)
            if not blocked:
                self._file(new)
        self.steps = known.update(added)
        if len(self.steps) != len(known) + len(specs):
            raise IntegrityError("the run has a step of the same id already")
        earlier = self.dependents
        self.dependents = earlier.update({need: (*earlier.get(need, ()), *ids) for need, ids in waiting.items()})
        self.open += len(added)

    def put(self, old: StepState, new: StepState) -> None:
        """Replaces a step; its end frees its dependents."""
        self._unfile(old)
        self.steps = self.steps.insert(new.spec.id, new)
        if new.status not in CLOSED:
            self._file(new)
        elif old.status not in CLOSED:
            self.open -= 1
            self.done += new.spec.type != UNDO
            if satisfies(new):
                self._unblock(new.spec.id)

    def release(self) -> None:
        """What waited for permission may run."""
        for step_id in self.held:
            self.ready = self.ready.insert(step_id)
        self.held = NO_IDS

    def _unblock(self, step_id: StepId) -> None:
        for dependent in self.dependents.get(step_id, ()):
            step = self.steps[dependent]
            if step.status in CLOSED:
                continue
            freed = step.less_blocked()
            self.steps = self.steps.insert(dependent, freed)
            self._file(freed)

    def _file(self, step: StepState) -> None:
        """Puts an open, unblocked step on the list that says what it waits for."""
        step_id, status = step.spec.id, step.status
        if status in STARTABLE:
            if step.blocked:
                return
            if step.retry_at is not None:
                self.retrying = self.retrying.insert(step_id)
                self._set_timer(step.retry_at, step_id)
            elif step.granted or self.state.allowance == "start":
                self.ready = self.ready.insert(step_id)
            else:
                self.held = self.held.insert(step_id)
        elif status in IN_FLIGHT:
            self.in_flight = self.in_flight.insert(step_id)
        elif status is AWAITING_APPROVAL:
            self.asking = self.asking.insert(step_id)
            self._set_timer(next_look(step.approvals[-1]), step_id)
        elif status is NEEDS_REVIEW:
            self.review = self.review.insert(step_id)

    def _unfile(self, step: StepState) -> None:
        step_id, status = step.spec.id, step.status
        if status in STARTABLE:
            if step_id in self.ready:
                # Most runs have one step ready at a time, and nothing left is cheaper than one less.
                self.ready = self.ready.remove(step_id) if len(self.ready) > 1 else NO_IDS
            elif step.retry_at is not None:
                self.retrying = self.retrying.remove(step_id)
                self._drop_timer(step.retry_at, step_id)
            elif step_id in self.held:
                self.held = self.held.remove(step_id)
        elif status in IN_FLIGHT:
            self.in_flight = self.in_flight.remove(step_id)
        elif status is AWAITING_APPROVAL:
            self.asking = self.asking.remove(step_id)
            self._drop_timer(next_look(step.approvals[-1]), step_id)
        elif status is NEEDS_REVIEW:
            self.review = self.review.remove(step_id)

    def _set_timer(self, at: int | None, step_id: StepId) -> None:
        if at is not None:
            timers = list(self.timers)
            insort(timers, (at, step_id))
            self.timers = tuple(timers)

    def _drop_timer(self, at: int | None, step_id: StepId) -> None:
        if at is not None:
            index = bisect_left(self.timers, (at, step_id))
            self.timers = self.timers[:index] + self.timers[index + 1 :]
