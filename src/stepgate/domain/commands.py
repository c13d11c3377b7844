"""What somebody may ask of a run: people through the API and the command line, workers with what they found."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from stepgate.domain.budget import Alert, Charge
from stepgate.domain.ids import StepId
from stepgate.domain.quorum import OWN, Authority
from stepgate.domain.state import Actor, Approval, Inherited, RunInfo, StepResult, StepSpec


@dataclass(frozen=True, slots=True)
class Create:
    """A new run, with its first plan if it has one; of a fork: with what it inherits, in order of number."""

    actor: Actor
    info: RunInfo
    steps: tuple[StepSpec, ...] = ()
    inherited: tuple[Inherited, ...] = ()


@dataclass(frozen=True, slots=True)
class AddSteps:
    actor: Actor
    steps: tuple[StepSpec, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Has the steps of a run with only a goal written, by this step."""

    actor: Actor
    step: StepSpec


@dataclass(frozen=True, slots=True)
class Start:
    """Run everything as it becomes ready."""

    actor: Actor


@dataclass(frozen=True, slots=True)
class Execute:
    """Run one more step: the lowest-numbered one that is ready."""

    actor: Actor


@dataclass(frozen=True, slots=True)
class Pause:
    actor: Actor
    reason: str = "manual"


@dataclass(frozen=True, slots=True)
class Resume:
    actor: Actor


@dataclass(frozen=True, slots=True)
class Cancel:
    actor: Actor
    reason: str = "cancelled"


@dataclass(frozen=True, slots=True)
class Approve:
    """`action_hash` None means implied: only ever accepted for a first revision."""

    actor: Actor
    step_id: StepId
    action_hash: str | None
    reason: str | None = None
    authority: Authority = OWN


@dataclass(frozen=True, slots=True)
class Reject:
    """`then`: abort, skip, or replan, which comes with the step that plans anew and how often a run may be."""

    actor: Actor
    step_id: StepId
    action_hash: str | None
    reason: str | None = None
    then: str = "abort"
    authority: Authority = OWN
    planner: StepSpec | None = None
    most_replans: int = 0


@dataclass(frozen=True, slots=True)
class Skip:
    actor: Actor
    step_id: StepId
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """Another input for a step that is asked about: what was asked under `action_hash` is void."""

    actor: Actor
    step_id: StepId
    action_hash: str
    input_sha256: str
    input_size: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Undo:
    """Adds the undo step to a finished run."""

    actor: Actor
    step: StepSpec


@dataclass(frozen=True, slots=True)
class Prepare:
    """Effect-free work that can last begins."""

    actor: Actor
    step_id: StepId


@dataclass(frozen=True, slots=True)
class Ask:
    """Puts the action before a person; `approval` carries everything but revision and time.

    `reason` says why a step that runs is asked about: `parked` where what it has computed must be seen first.
    """

    actor: Actor
    step_id: StepId
    approval: Approval
    reason: str = "interrupted"


@dataclass(frozen=True, slots=True)
class Grant:
    """A rule allows the action: the question is recorded together with its answer."""

    actor: Actor
    step_id: StepId
    approval: Approval


@dataclass(frozen=True, slots=True)
class Begin:
    """A step that can last, or whose start must be known, starts."""

    actor: Actor
    step_id: StepId
    action_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Compute:
    """The step's change set is durable; it must now be applied."""

    actor: Actor
    step_id: StepId
    result: StepResult
    action_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Complete:
    """`steps` are those that it has planned: they join the run as the next revision of its plan."""

    actor: Actor
    step_id: StepId
    result: StepResult
    action_hash: str | None = None
    steps: tuple[StepSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Fail:
    """`error` is {code, message, field}; a retry hint from the outside is in milliseconds.

    `output` is {sha256, size} of what the step printed and is kept for people, where anything is.
    """

    actor: Actor
    step_id: StepId
    error: Mapping[str, Any]
    retryable: bool = False
    retry_after_ms: int | None = None
    output: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The worker stopped the step because the run is draining or the worker is shutting down."""

    actor: Actor
    step_id: StepId


@dataclass(frozen=True, slots=True)
class Review:
    """The engine cannot go on by itself; `error` is {code, message, field, paths}."""

    actor: Actor
    step_id: StepId
    error: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Poison:
    """Three workers were lost on this run without one new fact."""

    actor: Actor


@dataclass(frozen=True, slots=True)
class Expire:
    """Some question's time may be over."""

    actor: Actor


@dataclass(frozen=True, slots=True)
class Settle:
    """Brings a draining run with nothing in flight to its end."""

    actor: Actor


@dataclass(frozen=True, slots=True)
class CallModel:
    """A model is about to be called: known before the request leaves, because it may be billed and lost.

    `worst` is what it may cost at most, where a budget is watched.
    """

    actor: Actor
    step_id: StepId
    call_id: str
    request_hash: str
    router: str
    model: str | None
    worst: Charge | None = None


@dataclass(frozen=True, slots=True)
class SettleModel:
    actor: Actor
    step_id: StepId
    call_id: str
    status: str
    model: str | None
    cost_usd: Decimal | None
    cost_source: str
    tokens: Mapping[str, int | None]
    latency_ms: int | None
    answer_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class StopForBudget:
    """The step's next call does not fit into a budget: the run pauses and the step begins again when it goes on.

    `own` is whether it is the run's own budget that came to its end.
    """

    actor: Actor
    step_id: StepId
    error: Mapping[str, Any]
    own: bool


@dataclass(frozen=True, slots=True)
class ExtendBudget:
    """Adds to the run's limits."""

    actor: Actor
    add_usd: Decimal | None = None
    add_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class AlertBudget:
    """So much of a budget that runs share is spent."""

    actor: Actor
    alert: Alert


Command = (
    Create
    | AddSteps
    | Plan
    | Start
    | Execute
    | Pause
    | Resume
    | Cancel
    | Approve
    | Reject
    | Skip
    | Edit
    | Undo
    | Prepare
    | Ask
    | Grant
    | Begin
    | Compute
    | Complete
    | Fail
    | Interrupt
    | Review
    | Poison
    | Expire
    | Settle
    | CallModel
    | SettleModel
    | StopForBudget
    | ExtendBudget
    | AlertBudget
)
