"""A run in a test's hands: commands by short names, with every promise about a single decision checked on the way."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from stepgate.domain import commands as c
from stepgate.domain import journal
from stepgate.domain.decide import decide
from stepgate.domain.errors import StepgateError
from stepgate.domain.events import Event
from stepgate.domain.ids import RequestId, RunId, StepId
from stepgate.domain.quorum import ANYBODY, OWN, Authority, Quorum
from stepgate.domain.state import (
    UNDO,
    Actor,
    Approval,
    Effect,
    Gate,
    RunInfo,
    RunState,
    StepResult,
    StepSpec,
    StepState,
)

PERSON = Actor("ada", "person", "cli")
WORKER = Actor("worker-1", "system", "worker")
SECOND = 1_000_000
HASH = "a" * 64
OTHER_HASH = "b" * 64
DIGEST = "0" * 64
OUTPUT = StepResult(DIGEST, 2)
CHANGE = StepResult(DIGEST, 2, "c-1", "d" * 64, "rev-0", "rev-1", 5)
NO_TOKENS: Mapping[str, int | None] = {"input": None, "output": None, "cached": None, "reasoning": None}


def uuid(kind: int, number: int) -> str:
    """A fixed UUIDv7, so that a journal made of them has the same bytes every time."""
    return f"01890a5d-ac96-774b-{0x8000 + kind:04x}-{number:012x}"


def spec(
    number: int,
    *,
    key: str | None = None,
    needs: Iterable[int] | None = None,
    gate: Gate = Gate.ALLOW,
    effect: Effect = Effect.NONE,
    on_error: str = "fail",
    max_attempts: int = 1,
    backoff_ms: int = 0,
    type_: str = "noop",
) -> StepSpec:
    """Step `s<number>`; without `needs` it waits for the step before it."""
    before = (number - 1,) if number > 1 else ()
    return StepSpec(
        id=StepId(uuid(1, number)),
        key=key or f"s{number}",
        number=number,
        type=type_,
        effect=effect,
        gate=gate,
        needs=tuple(StepId(uuid(1, need)) for need in (before if needs is None else needs)),
        max_attempts=max_attempts,
        backoff_ms=backoff_ms,
        timeout_ms=None,
        on_error=on_error,
        input_sha256=DIGEST,
        input_size=2,
        created_at=0,
    )


def undo_spec(number: int, *, max_attempts: int = 1) -> StepSpec:
    return spec(
        number, key=f"undo-{number}", needs=(), gate=Gate.ASK, effect=Effect.WORKSPACE, type_=UNDO, on_error="continue"
    )._replace(max_attempts=max_attempts)


def info(goal: str = "make the tests pass") -> RunInfo:
    return RunInfo(
        id=RunId(uuid(0, 1)),
        goal=goal,
        name=None,
        workspace_id=uuid(2, 1),
        workspace_path="/w",
        workspace_mode="in_place",
        pool="default",
        labels={"team": "core"},
        metadata={"ticket": 7},
        requester=PERSON,
        limits={},
        created_at=0,
        tenant="default",
    )


def question(
    action_hash: str = HASH,
    *,
    number: int = 1,
    expires_at: int | None = None,
    on_expiry: str = "reject",
    required: Quorum = ANYBODY,
) -> Approval:
    return Approval(
        request_id=RequestId(uuid(3, number)),
        revision=0,
        action_hash=action_hash,
        risk="medium",
        rendering_sha256=DIGEST,
        required=required,
        expires_at=expires_at,
        on_expiry=on_expiry,
        policy_version="builtin-1",
        matched_rules=("default:noop",),
        requested_at=0,
    )


def fault(code: str = "boom") -> dict[str, Any]:
    return {"code": code, "message": "it went wrong", "field": None}


@dataclass
class Run:
    """The state and the journal of one run under test; `now` is in microseconds."""

    state: RunState
    events: list[Event]
    now: int = SECOND
    questions: int = 0
    log: list[c.Command] = field(default_factory=list)

    def do(self, command: c.Command) -> tuple[Event, ...]:
        """Decides and keeps the result; on an error nothing has happened."""
        decision = decide(self.state, command, self.now)
        self.state = decision.state
        self.events.extend(decision.events)
        self.log.append(command)
        return decision.events

    def wait(self, microseconds: int) -> None:
        self.now += microseconds

    def records(self) -> tuple[list[journal.Record], journal.Head]:
        return journal.seal(self.state.info.id, journal.Head(), self.events)

    def id(self, number: int) -> StepId:
        return StepId(uuid(1, number))

    def step(self, number: int) -> StepState:
        return self.state.steps[self.id(number)]

    def status(self, number: int) -> str:
        return self.step(number).status.value

    @property
    def statuses(self) -> list[str]:
        steps = sorted((step for _, step in self.state.steps.items()), key=lambda step: step.spec.number)
        return [step.status.value for step in steps]

    # What people do

    def start(self) -> tuple[Event, ...]:
        return self.do(c.Start(PERSON))

    def execute(self) -> tuple[Event, ...]:
        return self.do(c.Execute(PERSON))

    def pause(self, reason: str = "manual") -> tuple[Event, ...]:
        return self.do(c.Pause(PERSON, reason))

    def resume(self) -> tuple[Event, ...]:
        return self.do(c.Resume(PERSON))

    def cancel(self) -> tuple[Event, ...]:
        return self.do(c.Cancel(PERSON))

    def add(self, *specs: StepSpec) -> tuple[Event, ...]:
        return self.do(c.AddSteps(PERSON, specs))

    def approve(
        self, number: int, action_hash: str | None = HASH, *, by: Actor = PERSON, authority: Authority = OWN
    ) -> tuple[Event, ...]:
        return self.do(c.Approve(by, self.id(number), action_hash, None, authority))

    def reject(self, number: int, action_hash: str | None = HASH, then: str = "abort") -> tuple[Event, ...]:
        return self.do(c.Reject(PERSON, self.id(number), action_hash, "no", then))

    def edit(
        self, number: int, action_hash: str = HASH, *, by: Actor = PERSON, digest: str = "e" * 64
    ) -> tuple[Event, ...]:
        return self.do(c.Edit(by, self.id(number), action_hash, digest, 7))

    def skip(self, number: int) -> tuple[Event, ...]:
        return self.do(c.Skip(PERSON, self.id(number)))

    def undo(self, number: int, *, max_attempts: int = 1) -> tuple[Event, ...]:
        return self.do(c.Undo(PERSON, undo_spec(number, max_attempts=max_attempts)))

    # What workers report

    def prepare(self, number: int) -> tuple[Event, ...]:
        return self.do(c.Prepare(WORKER, self.id(number)))

    def ask(
        self,
        number: int,
        action_hash: str = HASH,
        *,
        expires_at: int | None = None,
        on_expiry: str = "reject",
        required: Quorum = ANYBODY,
    ) -> tuple[Event, ...]:
        self.questions += 1
        approval = question(
            action_hash, number=self.questions, expires_at=expires_at, on_expiry=on_expiry, required=required
        )
        return self.do(c.Ask(WORKER, self.id(number), approval))

    def begin(self, number: int, action_hash: str | None = None) -> tuple[Event, ...]:
        return self.do(c.Begin(WORKER, self.id(number), action_hash))

    def compute(self, number: int, action_hash: str | None = None, result: StepResult = CHANGE) -> tuple[Event, ...]:
        return self.do(c.Compute(WORKER, self.id(number), result, action_hash))

    def complete(self, number: int, action_hash: str | None = None, result: StepResult = OUTPUT) -> tuple[Event, ...]:
        return self.do(c.Complete(WORKER, self.id(number), result, action_hash))

    def fail(
        self, number: int, *, retryable: bool = False, retry_after_ms: int | None = None, code: str = "boom"
    ) -> tuple[Event, ...]:
        return self.do(c.Fail(WORKER, self.id(number), fault(code), retryable, retry_after_ms))

    def interrupt(self, number: int) -> tuple[Event, ...]:
        return self.do(c.Interrupt(WORKER, self.id(number)))

    def review(self, number: int, code: str = "workspace_conflict") -> tuple[Event, ...]:
        return self.do(c.Review(WORKER, self.id(number), fault(code)))

    def poison(self) -> tuple[Event, ...]:
        return self.do(c.Poison(WORKER))

    def expire(self) -> tuple[Event, ...]:
        return self.do(c.Expire(WORKER))

    def settle(self) -> tuple[Event, ...]:
        return self.do(c.Settle(WORKER))

    def call_model(self, number: int, call_id: str = "call-1", model: str | None = None) -> tuple[Event, ...]:
        return self.do(c.CallModel(WORKER, self.id(number), call_id, DIGEST, "offline", model))

    def settle_model(
        self,
        number: int,
        call_id: str = "call-1",
        *,
        cost: Decimal | None = None,
        source: str = "unknown",
        tokens: Mapping[str, int | None] = NO_TOKENS,
        model: str | None = None,
    ) -> tuple[Event, ...]:
        return self.do(c.SettleModel(WORKER, self.id(number), call_id, "ok", model, cost, source, tokens, latency_ms=3))


def planned(*specs: StepSpec, limits: Mapping[str, Any] | None = None) -> Run:
    """A run with these steps that nobody has started."""
    decision = decide(None, c.Create(PERSON, info()._replace(limits=limits or {}), specs), SECOND)
    return Run(decision.state, list(decision.events))


def planning(*, only_next: bool = False, **more: Any) -> Run:
    """A run with only a goal whose step 1 writes its plan."""
    run = planned()
    run.do(c.Plan(PERSON, spec(1, type_="plan", **more)))
    run.do(c.Execute(PERSON) if only_next else c.Start(PERSON))
    return run


def started(*specs: StepSpec) -> Run:
    run = planned(*specs)
    run.start()
    return run


def gated(number: int = 1, **more: Any) -> StepSpec:
    return spec(number, gate=Gate.ASK, **more)


def types(events: Sequence[Event]) -> list[str]:
    return [event.type.value for event in events]


def refusal(run: Run, command: c.Command) -> StepgateError | None:
    """The error the command meets, or None where it is accepted; the run stays as it was."""
    try:
        decide(run.state, command, run.now)
    except StepgateError as error:
        return error
    return None
