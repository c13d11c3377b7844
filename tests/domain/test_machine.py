"""Any interleaving of what people and workers may say keeps every promise about a run."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stepgate.domain import commands as c
from stepgate.domain.budget import FREE, Alert, Charge
from stepgate.domain.decide import decide
from stepgate.domain.errors import Conflict, Expired, NotFound
from stepgate.domain.events import Event
from stepgate.domain.evolve import fold
from stepgate.domain.ids import StepId
from stepgate.domain.quorum import Quorum
from stepgate.domain.state import POLICY, UNDO, ApprovalStatus, Effect, Gate, RunState, StepSpec, StepState
from stepgate.domain.states import ACTIVE, CLOSED, FINISHED, IN_FLIGHT, EventType, RunStatus, StepStatus
from stepgate.domain.wake import MAY_START, next_wake, startable
from tests.domain import driving, invariants
from tests.domain.runs import CHANGE, NO_TOKENS, OUTPUT, PERSON, WORKER, fault, planned, question, spec, undo_spec

REFUSALS = (Conflict, Expired, NotFound)
"""What a person or a worker may be told; anything else would be a fault of the engine."""

picks = st.integers(0, 30)
seldom = st.integers(0, 3).map(lambda n: n == 1)
very_seldom = st.integers(0, 12).map(lambda n: n == 1)
"""What ends or stops a run comes seldom, so that the others get far."""


@st.composite
def definitions(draw: st.DrawFn, number: int) -> StepSpec:
    needs = draw(st.sets(st.integers(1, number - 1), max_size=3)) if number > 1 else set()
    return spec(
        number,
        needs=sorted(needs),
        gate=draw(st.sampled_from(Gate)),
        effect=draw(st.sampled_from(Effect)),
        on_error=draw(st.sampled_from(["fail", "continue"])),
        max_attempts=draw(st.integers(1, 3)),
        backoff_ms=draw(st.sampled_from([0, 1, 1000])),
    )


@st.composite
def plans(draw: st.DrawFn) -> tuple[StepSpec, ...]:
    return tuple(draw(definitions(number)) for number in range(1, draw(st.integers(0, 6)) + 1))


class OneRun(RuleBasedStateMachine):
    """One run, everybody who may say something about it, and a workspace that moves under their hands."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: dict[str, int] = {}
        self.calls = 0
        self.open_calls: list[tuple[StepState, str]] = []

    @initialize(
        plan=plans(),
        mode=st.sampled_from(["start", "execute", "plan", "plan next", None]),
        limits=st.sampled_from([{}, {"tokens": 25}]),
    )
    def create(self, plan: tuple[StepSpec, ...], mode: str | None, limits: dict[str, int]) -> None:
        planning = mode is not None and mode.startswith("plan")
        self.run = planned(limits=limits) if planning else planned(*plan, limits=limits)
        if planning:
            gate = Gate.ASK if plan and plan[0].gate is Gate.ASK else Gate.ALLOW
            assert self.attempt(c.Plan(PERSON, spec(1, type_="plan", gate=gate)))
        if planning or (plan and mode is not None):
            self.attempt(c.Start(PERSON) if mode in ("start", "plan") else c.Execute(PERSON))

    # The promise about every single decision

    def attempt(self, command: c.Command) -> tuple[Event, ...] | None:
        """None where the command is refused; then nothing has changed."""
        before, text = self.run.state, repr(self.run.state)
        try:
            events = self.run.do(command)
        except REFUSALS:
            assert self.run.state is before
            assert repr(before) == text
            return None
        after = self.run.state
        assert fold(events, before) == after
        assert not events or after.last_at == events[-1].at >= before.last_at
        assert decide(before, command, self.run.now).events == events, "one state and one command, one answer"
        self.check_unmoved(before, after)
        self.check_authority(before, command, events)
        return events

    def check_unmoved(self, before: RunState, after: RunState) -> None:
        """What has ended stays as it is; only the cost of its calls may still come in."""
        for step_id, old in before.steps.items():
            if old.status in CLOSED:
                assert after.steps[step_id]._replace(usage=old.usage, open_calls=old.open_calls) == old
        if before.phase in FINISHED:
            assert after.phase is before.phase
            assert after.reason == before.reason
            assert after.completed_at == before.completed_at

    def check_authority(self, before: RunState, command: c.Command, events: tuple[Event, ...]) -> None:
        """A gated step goes forward only under a standing approval of exactly the action the worker is about to do."""
        if not isinstance(command, c.Begin | c.Compute | c.Complete):
            return
        step = before.steps[command.step_id]
        took_effect = {EventType.STEP_STARTED, EventType.STEP_COMPUTED, EventType.STEP_COMPLETED}
        if not took_effect & {event.type for event in events} or step.status is StepStatus.COMPUTED:
            return
        if step.spec.gate is Gate.ASK or step.approvals:
            assert step.approval is not None
            assert step.approval.status is ApprovalStatus.APPROVED
            assert step.approval.action_hash == command.action_hash
        assert not step.blocked
        if step.spec.effect is Effect.ONCE:
            begins = isinstance(command, c.Begin)
            assert begins != (step.status is StepStatus.RUNNING), "one start, and an end only after it"
        if step.status is not StepStatus.RUNNING:
            assert before.phase in MAY_START, "nothing new starts in a run that stands still"

    @invariant()
    def consistent(self) -> None:
        invariants.check_state(self.run.state)

    @invariant()
    def nobody_gets_past_a_gate(self) -> None:
        """Whatever the moment: a worker with another action in its hands, or none approved, or a second start."""
        state = self.run.state
        for step in state.steps.values():
            for hash_ in (None, self.present(step), "f" * 64):
                for command in (
                    c.Begin(WORKER, step.id, hash_),
                    c.Compute(WORKER, step.id, CHANGE, hash_),
                    c.Complete(WORKER, step.id, OUTPUT, hash_),
                ):
                    self.check_authority(state, command, attempted(state, command, self.run.now))

    @invariant()
    def what_has_ended_stays(self) -> None:
        state = self.run.state
        for step in state.steps.values():
            if step.status in CLOSED:
                for command in (c.Fail(WORKER, step.id, fault(), retryable=True), c.Interrupt(WORKER, step.id)):
                    assert {event.type for event in attempted(state, command, self.run.now)} <= {
                        EventType.STEP_DISCARDED
                    }

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        self.check_history()
        driving.to_the_end(self.run, self.present)
        self.check_history()
        invariants.check_state(self.run.state)

    def check_history(self) -> None:
        invariants.check_history(self.run.state, self.run.events)
        invariants.check_gates(self.run.state, self.run.events)

    # Whom a command names

    def pick(self, pick: int, fits: Callable[[StepState], bool]) -> StepState | None:
        steps = sorted(filter(fits, self.run.state.steps.values()), key=lambda step: step.spec.number)
        return steps[pick % len(steps)] if steps else None

    def present(self, step: StepState, off: bool = False) -> str:
        """The hash of what the step would do now, as its worker computes it."""
        return f"{step.spec.number:x}{self.moved.get(step.id, 0) + off:03x}".rjust(64, "0")

    def action(self, step: StepState, off: bool = False) -> str | None:
        return self.present(step, off) if step.spec.gate is Gate.ASK or step.approvals or off else None

    def may_start(self, step: StepState) -> bool:
        return startable(self.run.state, step, self.run.now)

    # People

    @rule()
    def start(self) -> None:
        self.attempt(c.Start(PERSON))

    @precondition(lambda self: self.run.state.held)
    @rule()
    def execute(self) -> None:
        before = self.run.state
        if self.attempt(c.Execute(PERSON)):
            granted = [s for s in before.held if self.run.state.steps[s].granted]
            assert granted == [min(before.held, key=lambda held: before.steps[held].spec.number)]

    @rule(seldom=seldom, reason=st.sampled_from(["manual", "budget", "sandbox_unavailable"]))
    def pause(self, seldom: bool, reason: str) -> None:
        if seldom:
            self.attempt(c.Pause(PERSON, reason))

    @precondition(lambda self: self.run.state.phase is RunStatus.PAUSED or self.run.state.review)
    @rule()
    def resume(self) -> None:
        self.attempt(c.Resume(PERSON))

    resume_soon = resume

    @rule(very_seldom=very_seldom)
    def cancel(self, very_seldom: bool) -> None:
        if very_seldom:
            self.attempt(c.Cancel(PERSON))

    @precondition(lambda self: len(self.run.state.steps) < 10)
    @rule(data=st.data(), count=st.integers(1, 2), stale=seldom)
    def add_steps(self, data: st.DataObject, count: int, stale: bool) -> None:
        stale = stale and len(self.run.state.steps) > 0
        first = len(self.run.state.steps) + (0 if stale else 1)
        specs = [data.draw(definitions(number)) for number in range(first, first + count)]
        planned_ids = {s.id for s in (*self.run.state.steps.values(), *map(StepState, specs)) if s.spec.type != UNDO}
        specs = [s._replace(needs=tuple(need for need in s.needs if need in planned_ids)) for s in specs]
        accepted = self.attempt(c.AddSteps(PERSON, tuple(specs)))
        assert not (stale and accepted)

    @precondition(lambda self: self.run.state.asking)
    @rule(pick=picks, off=seldom, implied=seldom, who=st.sampled_from(["ada", "bob"]))
    def approve(self, pick: int, off: bool, implied: bool, who: str = "ada") -> None:
        step = self.pick(pick, is_asking)
        assert step is not None
        assert step.approval is not None
        shown = step.approval.action_hash
        hash_ = None if implied else self.action(step, off=True) if off else shown
        person = PERSON._replace(id=who)
        if events := self.attempt(c.Approve(person, step.id, hash_)):
            assert step.approval.status is ApprovalStatus.OPEN
            assert hash_ == shown or (hash_ is None and step.approval.revision == 1)
            assert self.attempt(c.Approve(person, step.id, shown)) == ()
            settled = events[0].type is EventType.APPROVAL_APPROVED
            assert settled == (len(step.approval.voices) + 1 == step.approval.required.persons)
            assert not settled or self.attempt(c.Reject(PERSON, step.id, shown)) is None

    approve_more = approve

    @precondition(lambda self: self.run.state.asking)
    @rule(pick=picks, off=seldom, seldom=seldom)
    def edit(self, pick: int, off: bool, seldom: bool) -> None:
        step = self.pick(pick, is_asking)
        assert step is not None
        assert step.approval is not None
        if not seldom:
            return
        shown = step.approval.action_hash
        hash_ = (self.action(step, off=True) or shown) if off else shown
        if self.attempt(c.Edit(PERSON, step.id, hash_, f"{pick:064x}", pick)):
            assert hash_ == shown
            edited = self.run.state.steps[step.id]
            assert (edited.spec.input_sha256, edited.authorised) == (f"{pick:064x}", False)
            assert self.attempt(c.Edit(PERSON, step.id, shown, f"{pick:064x}", pick)) == ()
            assert self.attempt(c.Approve(PERSON, step.id, shown)) is None

    @precondition(lambda self: self.run.state.asking)
    @rule(pick=picks, seldom=seldom, then=st.sampled_from(["skip", "skip", "abort", "replan"]))
    def reject(self, pick: int, seldom: bool, then: str) -> None:
        step = self.pick(pick, is_asking)
        assert step is not None
        assert step.approval is not None
        said = c.Reject(PERSON, step.id, step.approval.action_hash, "no", then)
        if then == "replan":
            planner = spec(len(self.run.state.steps) + 1, needs=(), type_="plan")
            said = replace(said, planner=planner, most_replans=3)
        if seldom and self.attempt(said):
            assert self.run.state.steps[step.id].status is StepStatus.REJECTED
            assert self.attempt(c.Approve(PERSON, step.id, step.approval.action_hash)) is None

    @rule(pick=picks, seldom=seldom)
    def skip(self, pick: int, seldom: bool) -> None:
        step = self.pick(pick, lambda s: True)
        if step is not None and seldom:
            self.attempt(c.Skip(PERSON, step.id))

    @precondition(lambda self: self.run.state.finished and len(self.run.state.steps) < 12)
    @rule(max_attempts=st.integers(1, 2))
    def undo(self, max_attempts: int) -> None:
        self.attempt(c.Undo(PERSON, undo_spec(len(self.run.state.steps) + 1, max_attempts=max_attempts)))

    @precondition(lambda self: not self.run.state.finished)
    @rule(seldom=seldom)
    def undo_too_early(self, seldom: bool) -> None:
        if seldom:
            assert self.attempt(c.Undo(PERSON, undo_spec(len(self.run.state.steps) + 1))) is None

    # Workers

    @rule(moves=st.integers(1, 4))
    def work_goes_on(self, moves: int) -> None:
        """What is next happens, and goes well."""
        for _ in range(moves):
            command = driving.next_command(self.run, self.present)
            if command is None:
                return
            assert self.attempt(command)

    work_goes_on_and_on = work_goes_on

    @rule()
    def a_person_gives_what_is_waited_for(self) -> None:
        if next_wake(self.run.state) is None and not driving.at_rest(self.run.state):
            driving.answer(self.run)

    @precondition(lambda self: self.run.state.ready)
    @rule(pick=picks)
    def prepare(self, pick: int) -> None:
        step = self.pick(pick, lambda s: self.may_start(s) and not s.approvals)
        if step is not None:
            self.attempt(c.Prepare(WORKER, step.id))

    @precondition(lambda self: self.run.state.ready or self.run.state.in_flight)
    @rule(
        pick=picks,
        unneeded=seldom,
        expires=st.sampled_from([None, 1, 5_000_000]),
        on_expiry=st.sampled_from(["reject", "pause"]),
        count=st.integers(1, 2),
    )
    def ask(self, pick: int, unneeded: bool, expires: int | None, on_expiry: str, count: int = 1) -> None:
        step = self.pick(
            pick, lambda s: (self.may_start(s) or s.status is StepStatus.PREPARING) and (unneeded or not s.authorised)
        )
        if step is not None:
            self.ask_about(step, expires, on_expiry, count)

    ask_more = ask

    @precondition(lambda self: self.run.state.ready or self.run.state.in_flight)
    @rule(pick=picks, seldom=seldom)
    def grant(self, pick: int, seldom: bool) -> None:
        """A rule allows what would otherwise be asked."""
        step = self.pick(pick, lambda s: (self.may_start(s) or s.status is StepStatus.PREPARING) and not s.authorised)
        if step is None or not seldom:
            return
        self.run.questions += 1
        granted = self.attempt(c.Grant(WORKER, step.id, question(self.present(step), number=self.run.questions)))
        after = self.run.state.steps[step.id]
        if granted and after.status not in CLOSED:
            assert after.status is StepStatus.APPROVED
            assert after.approval is not None
            assert after.approval.decided_by == POLICY
            assert after.approval.action_hash == self.present(step)

    def ask_about(self, step: StepState, expires: int | None = None, on_expiry: str = "reject", count: int = 1) -> None:
        self.run.questions += 1
        until = None if expires is None else self.run.now + expires
        asked = question(
            self.present(step),
            number=self.run.questions,
            expires_at=until,
            on_expiry=on_expiry,
            required=Quorum(count),
        )
        self.attempt(c.Ask(WORKER, step.id, asked))

    @precondition(lambda self: self.run.state.ready or self.run.state.in_flight or self.run.state.timers)
    @rule(pick=picks, off=seldom)
    def begin(self, pick: int, off: bool) -> None:
        step = self.pick(pick, lambda s: (self.may_start(s) or s.status is StepStatus.PREPARING) and s.authorised)
        if step is not None:
            self.attempt(c.Begin(WORKER, step.id, self.action(step, off)))

    begin_more = begin

    @precondition(lambda self: self.run.state.ready or self.run.state.in_flight or self.run.state.timers)
    @rule(pick=picks, off=seldom)
    def finish(self, pick: int, off: bool) -> None:
        """A step's work succeeds: its set is computed, a computed set is applied, or it just completes."""
        step = self.pick(
            pick,
            lambda s: s.status in (StepStatus.RUNNING, StepStatus.COMPUTED) or (self.may_start(s) and s.authorised),
        )
        if step is None:
            return
        hash_ = self.action(step, off)
        if step.spec.effect is Effect.WORKSPACE and step.status is not StepStatus.COMPUTED:
            self.attempt(c.Compute(WORKER, step.id, CHANGE, hash_))
        elif step.spec.effect is Effect.ONCE and step.status is not StepStatus.RUNNING:
            assert self.attempt(c.Complete(WORKER, step.id, OUTPUT, hash_)) is None
        else:
            self.attempt(c.Complete(WORKER, step.id, step.result or OUTPUT, hash_))

    finish_more = finish
    finish_even_more = finish

    @precondition(lambda self: self.run.state.ready or self.run.state.in_flight)
    @rule(pick=picks, seldom=seldom, retryable=st.booleans(), hint=st.sampled_from([None, 0, 50, 10**12]))
    def fail(self, pick: int, seldom: bool, retryable: bool, hint: int | None) -> None:
        step = self.pick(pick, lambda s: self.may_start(s) or s.status in IN_FLIGHT)
        if step is not None and (seldom or retryable):
            self.attempt(c.Fail(WORKER, step.id, fault(), retryable, hint))

    @precondition(lambda self: self.run.state.in_flight)
    @rule(pick=picks)
    def interrupt(self, pick: int) -> None:
        step = self.pick(pick, lambda s: s.status in IN_FLIGHT)
        assert step is not None
        self.attempt(c.Interrupt(WORKER, step.id))
        assert self.run.state.steps[step.id].attempt <= step.attempt, "being stopped uses up no attempt"

    @precondition(lambda self: self.run.state.ready or self.run.state.in_flight)
    @rule(pick=picks, seldom=seldom)
    def review(self, pick: int, seldom: bool) -> None:
        step = self.pick(pick, lambda s: self.may_start(s) or s.status in IN_FLIGHT)
        if step is not None and seldom:
            self.attempt(c.Review(WORKER, step.id, fault("workspace_conflict")))

    @precondition(lambda self: self.run.state.in_flight)
    @rule()
    def lose_the_lease(self) -> None:
        """Another worker finds what is in flight and takes it up the way recovery must."""
        for step_id in sorted(self.run.state.in_flight):
            step = self.run.state.steps[step_id]
            match step.status:
                case StepStatus.COMPUTED:
                    assert step.result is not None
                    assert self.attempt(c.Complete(WORKER, step_id, step.result)), "what is computed is applied"
                case StepStatus.RUNNING if step.spec.effect is Effect.ONCE:
                    assert self.attempt(c.Begin(WORKER, step_id, self.action(step))) is None, "a second start"
                    assert self.attempt(c.Review(WORKER, step_id, fault("lost_end")))
                case StepStatus.RUNNING if self.run.state.drain == "kill":
                    assert self.attempt(c.Interrupt(WORKER, step_id))
                case StepStatus.RUNNING if step.approval and step.approval.action_hash != self.present(step):
                    self.ask_about(step)
                    assert self.run.state.steps[step_id].status is not StepStatus.RUNNING
                case StepStatus.RUNNING:
                    assert self.attempt(c.Begin(WORKER, step_id, self.action(step)))
                    assert self.run.state.steps[step_id].attempt == step.attempt
                case StepStatus.PREPARING:
                    self.attempt(c.Prepare(WORKER, step_id))
                case _:
                    pass

    @rule(very_seldom=very_seldom)
    def poison(self, very_seldom: bool) -> None:
        if very_seldom:
            self.attempt(c.Poison(WORKER))

    @precondition(lambda self: self.run.state.asking)
    @rule()
    def expire(self) -> None:
        self.attempt(c.Expire(WORKER))

    @rule(very_seldom=very_seldom)
    def settle(self, very_seldom: bool) -> None:
        if very_seldom:
            assert not self.attempt(c.Settle(WORKER)), "a run settles in the decision that lets it settle"

    @precondition(lambda self: self.run.state.in_flight)
    @rule(pick=picks, worst=st.sampled_from([Charge(None, 0), Charge(None, 10), Charge(None, 20)]))
    def call_model(self, pick: int, worst: Charge) -> None:
        step = self.pick(pick, lambda s: s.status in IN_FLIGHT)
        assert step is not None
        self.calls += 1
        call_id = f"call-{self.calls}"
        fits = self.run.state.budget.shortage(worst) is None
        if self.attempt(c.CallModel(WORKER, step.id, call_id, "0" * 64, "router", None, worst)):
            assert fits
            self.open_calls.append((step, call_id))
        elif not fits:
            self.cannot_pay(step)

    def cannot_pay(self, step: StepState) -> None:
        """Nothing starts any more until somebody looks, and the step has used up no attempt."""
        assert self.attempt(c.StopForBudget(WORKER, step.id, fault("budget_exhausted"), own=True)) is not None
        after = self.run.state
        assert after.phase not in ACTIVE
        assert after.budget.told == 100
        assert after.steps[step.id].attempt <= step.attempt

    @precondition(lambda self: self.run.state.budget.limited and not self.run.state.finished)
    @rule(more=st.sampled_from([1, 30]))
    def extend_the_budget(self, more: int) -> None:
        before = self.run.state
        assert self.attempt(c.ExtendBudget(PERSON, add_tokens=more))
        after = self.run.state
        assert (after.phase, after.budget.spent) == (before.phase, before.budget.spent)
        assert (after.budget.tokens or 0) - (before.budget.tokens or 0) == more

    @rule(seldom=seldom, percent=st.sampled_from([50, 80, 100]))
    def hear_of_a_shared_budget(self, seldom: bool, percent: int) -> None:
        if seldom:
            alert = Alert(percent, None, 10, FREE, "b1", "day", None, "2026-01-31")
            self.attempt(c.AlertBudget(WORKER, alert))
            assert self.attempt(c.AlertBudget(WORKER, alert)) == ()

    @precondition(lambda self: self.open_calls)
    @rule(
        pick=picks,
        cost=st.sampled_from([None, Decimal(0), Decimal("0.25")]),
        tokens=st.sampled_from([None, 3]),
        again=seldom,
    )
    def settle_model(self, pick: int, cost: Decimal | None, tokens: int | None, again: bool) -> None:
        index = pick % len(self.open_calls)
        step, call_id = self.open_calls[index] if again else self.open_calls.pop(index)
        counts = {**NO_TOKENS, "output": tokens}
        self.attempt(c.SettleModel(WORKER, step.id, call_id, "ok", "m", cost, "router", counts, 5))

    # Anybody

    @precondition(lambda self: len(self.run.state.steps) > 0)
    @rule(pick=picks, kind=st.integers(0, 11), hash_=st.sampled_from([None, "a" * 64]))
    def say_something_that_does_not_fit(self, pick: int, kind: int, hash_: str | None) -> None:
        step = self.pick(pick, lambda s: True)
        assert step is not None
        messages: tuple[c.Command, ...] = (
            c.Prepare(WORKER, step.id),
            c.Begin(WORKER, step.id, hash_),
            c.Compute(WORKER, step.id, CHANGE, hash_),
            c.Complete(WORKER, step.id, OUTPUT, hash_),
            c.Complete(WORKER, step.id, CHANGE, hash_),
            c.Fail(WORKER, step.id, fault(), retryable=True),
            c.Interrupt(WORKER, step.id),
            c.Review(WORKER, step.id, fault()),
            c.Approve(PERSON, step.id, hash_),
            c.Reject(PERSON, step.id, hash_),
            c.Resume(PERSON),
            c.Begin(WORKER, StepId("nobody"), hash_),
        )
        self.attempt(messages[kind])

    # The world

    @rule(seconds=st.sampled_from([0, 1, 60, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.run.wait(seconds * 1_000_000)

    @rule()
    def the_clock_steps_back(self) -> None:
        self.run.wait(-3)

    @rule()
    def time_passes_until_something_is_due(self) -> None:
        self.run.now = max(self.run.now, next_wake(self.run.state) or 0)

    @rule(pick=picks)
    def somebody_changes_the_workspace(self, pick: int) -> None:
        step = self.pick(pick, lambda s: s.status not in CLOSED)
        if step is not None:
            self.moved[step.id] = self.moved.get(step.id, 0) + 1


def attempted(state: RunState, command: c.Command, now: int) -> tuple[Event, ...]:
    """The events the command would cause."""
    try:
        return decide(state, command, now).events
    except REFUSALS:
        return ()


def is_asking(step: StepState) -> bool:
    return step.status is StepStatus.AWAITING_APPROVAL


OneRun.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestOneRun = OneRun.TestCase


def random_plan(dice: Random) -> tuple[StepSpec, ...]:
    return tuple(
        spec(
            number,
            needs=sorted(dice.sample(range(1, number), min(number - 1, dice.choice([0, 0, 1, 1, 2])))),
            gate=dice.choice(list(Gate)),
            effect=dice.choice(list(Effect)),
            on_error=dice.choice(["fail", "continue", "continue"]),
            max_attempts=dice.randint(1, 3),
            backoff_ms=dice.choice([0, 1, 1000]),
        )
        for number in range(1, dice.randint(3, 12))
    )


def life(dice: Random, machine: OneRun) -> dict[Callable[[], object], float]:
    """What may happen next, and how often it does: mostly progress, so that lives get long."""
    pick, now_and_then = dice.randrange(30), dice.random() < 0.2
    expires, on_expiry = dice.choice([None, 1, 2_000_000, 5_000_000]), dice.choice(["reject", "pause", "pause"])
    cost = dice.choice([None, Decimal("0.25")])
    who, count = dice.choice(["ada", "bob"]), dice.choice([1, 1, 2])
    state = machine.run.state
    busy, able = bool(state.in_flight), bool(state.ready or state.in_flight or state.retrying)
    return {
        machine.start: 1,
        machine.execute: 1 if state.held else 0,
        lambda: machine.pause(seldom=True, reason="manual"): 0.3,
        machine.resume: 3 if state.phase is RunStatus.PAUSED else 0,
        lambda: machine.cancel(very_seldom=True): 0.05,
        lambda: machine.approve(pick=pick, off=now_and_then, implied=False, who=who): 2 if state.asking else 0,
        lambda: machine.reject(pick=pick, seldom=True, then="skip"): 0.3 if state.asking else 0,
        lambda: machine.reject(pick=pick, seldom=True, then="abort"): 0.05 if state.asking else 0,
        lambda: machine.reject(pick=pick, seldom=True, then="replan"): 0.3 if state.asking else 0,
        lambda: machine.edit(pick=pick, off=now_and_then, seldom=True): 0.3 if state.asking else 0,
        lambda: machine.skip(pick=pick, seldom=True): 0.1,
        lambda: machine.prepare(pick=pick): 0.5 if able else 0,
        lambda: machine.ask(pick=pick, unneeded=now_and_then, expires=expires, on_expiry=on_expiry, count=count): 2
        if able
        else 0,
        lambda: machine.begin(pick=pick, off=False): 2 if able else 0,
        lambda: machine.finish(pick=pick, off=False): 1 if able else 0,
        lambda: machine.fail(pick=pick, seldom=now_and_then, retryable=True, hint=pick * 100): 0.7 if able else 0,
        lambda: machine.interrupt(pick=pick): 0.5 if busy else 0,
        lambda: machine.review(pick=pick, seldom=True): 0.1 if able else 0,
        machine.lose_the_lease: 0.5 if busy else 0,
        lambda: machine.poison(very_seldom=True): 0.05,
        machine.expire: 0.5 if state.asking else 0,
        lambda: machine.call_model(pick=pick, worst=Charge(None, pick)): 0.4 if busy else 0,
        lambda: machine.extend_the_budget(more=30): 0.2 if state.budget.limited and not state.finished else 0,
        lambda: machine.settle_model(pick=pick, cost=cost, tokens=pick, again=now_and_then): 0.4
        if machine.open_calls
        else 0,
        lambda: machine.work_goes_on(moves=1): 0.5,
        machine.a_person_gives_what_is_waited_for: 0.3,
        lambda: machine.undo(max_attempts=2): 0.5 if state.finished and len(state.steps) < 18 else 0,
        lambda: machine.time_passes(seconds=dice.choice([0, 1, 2, 60])): 1,
        machine.the_clock_steps_back: 0.2,
        lambda: machine.somebody_changes_the_workspace(pick=pick): 0.5,
    }


@pytest.mark.parametrize("seed", range(40))
def test_a_long_life_keeps_every_promise(seed: int) -> None:
    dice, machine = Random(seed), OneRun()
    mode = dice.choice(["start", "start", "execute", "plan", "plan next"])
    machine.create(plan=random_plan(dice), mode=mode, limits=dice.choice([{}, {"tokens": 60}]))
    for age in range(150):
        moves = life(dice, machine)
        (move,) = dice.choices(list(moves), list(moves.values()))
        move()
        machine.consistent()
        if age % 5 == 0:
            machine.nobody_gets_past_a_gate()
            machine.what_has_ended_stays()
    machine.teardown()
