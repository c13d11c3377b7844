"""Any interleaving of what people and workers may say keeps every promise about a run."""

from collections.abc import Callable
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stepgate.domain import commands as c
from stepgate.domain.decide import decide
from stepgate.domain.errors import Conflict, Expired, NotFound
from stepgate.domain.events import Event
from stepgate.domain.evolve import fold
from stepgate.domain.ids import StepId
from stepgate.domain.state import UNDO, ApprovalStatus, Effect, Gate, RunState, StepSpec, StepState
from stepgate.domain.states import CLOSED, FINISHED, IN_FLIGHT, EventType, RunStatus, StepStatus
from stepgate.domain.wake import next_wake, startable
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

    @initialize(plan=plans(), mode=st.sampled_from(["start", "execute", None]))
    def create(self, plan: tuple[StepSpec, ...], mode: str | None) -> None:
        self.run = planned(*plan)
        if plan and mode is not None:
            self.attempt(c.Start(PERSON) if mode == "start" else c.Execute(PERSON))

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

    @invariant()
    def consistent(self) -> None:
        invariants.check_state(self.run.state)

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
    @rule(pick=picks, off=seldom, implied=seldom)
    def approve(self, pick: int, off: bool, implied: bool) -> None:
        step = self.pick(pick, is_asking)
        assert step is not None
        assert step.approval is not None
        shown = step.approval.action_hash
        hash_ = None if implied else self.action(step, off=True) if off else shown
        if self.attempt(c.Approve(PERSON, step.id, hash_)):
            assert step.approval.status is ApprovalStatus.OPEN
            assert hash_ == shown or (hash_ is None and step.approval.revision == 1)
            assert self.attempt(c.Approve(PERSON, step.id, shown)) == ()
            assert self.attempt(c.Reject(PERSON, step.id, shown)) is None

    approve_more = approve

    @precondition(lambda self: self.run.state.asking)
    @rule(pick=picks, seldom=seldom, then=st.sampled_from(["skip", "skip", "abort"]))
    def reject(self, pick: int, seldom: bool, then: str) -> None:
        step = self.pick(pick, is_asking)
        assert step is not None
        assert step.approval is not None
        if seldom and self.attempt(c.Reject(PERSON, step.id, step.approval.action_hash, "no", then)):
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
    )
    def ask(self, pick: int, unneeded: bool, expires: int | None, on_expiry: str) -> None:
        step = self.pick(
            pick, lambda s: (self.may_start(s) or s.status is StepStatus.PREPARING) and (unneeded or not s.authorised)
        )
        if step is not None:
            self.ask_about(step, expires, on_expiry)

    ask_more = ask

    def ask_about(self, step: StepState, expires: int | None = None, on_expiry: str = "reject") -> None:
        self.run.questions += 1
        until = None if expires is None else self.run.now + expires
        asked = question(self.present(step), number=self.run.questions, expires_at=until, on_expiry=on_expiry)
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
    @rule(pick=picks)
    def call_model(self, pick: int) -> None:
        step = self.pick(pick, lambda s: s.status in IN_FLIGHT)
        assert step is not None
        self.calls += 1
        call_id = f"call-{self.calls}"
        if self.attempt(c.CallModel(WORKER, step.id, call_id, "0" * 64, "router", None)):
            self.open_calls.append((step, call_id))

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


def is_asking(step: StepState) -> bool:
    return step.status is StepStatus.AWAITING_APPROVAL


OneRun.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestOneRun = OneRun.TestCase
