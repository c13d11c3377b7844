"""What somebody may ask of a run: people through the API and the command line, workers with what they found."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from stepgate.domain.ids import StepId
from stepgate.domain.state import Actor, Approval, RunInfo, StepResult, StepSpec


@dataclass(frozen=True, slots=True)
class Create:
    """A new run, with its first plan if it has one."""

    actor: Actor
    info: RunInfo
    steps: tuple[StepSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class AddSteps:
    actor: Actor
    steps: tuple[StepSpec, ...]


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


@dataclass(frozen=True, slots=True)
class Reject:
    actor: Actor
    step_id: StepId
    action_hash: str | None
    reason: str | None = None
    then: str = "abort"


@dataclass(frozen=True, slots=True)
class Skip:
    actor: Actor
    step_id: StepId
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
    """Puts the action before a person; `approval` carries everything but revision and time."""

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
    actor: Actor
    step_id: StepId
    result: StepResult
    action_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """`error` is {code, message, field}; a retry hint from the outside is in milliseconds."""

    actor: Actor
    step_id: StepId
    error: Mapping[str, Any]
    retryable: bool = False
    retry_after_ms: int | None = None


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
    """A model is about to be called: known before the request leaves, because it may be billed and lost."""

    actor: Actor
    step_id: StepId
    call_id: str
    request_hash: str
    router: str
    model: str | None


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


Command = (
    Create
    | AddSteps
    | Start
    | Execute
    | Pause
    | Resume
    | Cancel
    | Approve
    | Reject
    | Skip
    | Undo
    | Prepare
    | Ask
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
)
