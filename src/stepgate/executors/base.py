"""What an executor is, what it is given, and what it gives back: the seam between the engine and the work."""

import builtins
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from stepgate.domain.errors import SandboxUnavailable
from stepgate.domain.state import Effect, Gate
from stepgate.executors.screen import visible_json
from stepgate.llm.protocol import ModelAnswer, ModelRequest
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.bubblewrap import Sandbox
from stepgate.workspace.sandbox.limits import Limits


class Params(BaseModel):
    """The base of every step's input model: unknown fields are refused, values are never coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


P = TypeVar("P", bound=Params)


class Models(Protocol):
    """Model calls that are journaled before they leave and settled when they are back."""

    async def complete(self, request: ModelRequest) -> ModelAnswer:
        """Raises ModelFailure; retries and attempt rows are the engine's."""
        ...


@dataclass(frozen=True, slots=True)
class FinishedStep:
    """An earlier step of the run, as context for a model: `output` is its recorded output."""

    key: str
    number: int
    type: str
    output: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AppliedSet:
    """A change set of the run that was applied, in applied order."""

    step_id: str
    step_key: str
    step_number: int
    change_set: ChangeSet


@dataclass(frozen=True, slots=True)
class Bounds:
    """What settings allow a step, in bytes."""

    max_read_bytes: int
    max_output_bytes: int
    command: Limits


class Context(NamedTuple):
    """What one attempt of one step may use. The workspace is locked by the worker for as long as it is needed."""

    run_id: str
    step_id: str
    step_key: str
    goal: str
    root: Root
    blobs: BlobStore
    layers: Layers
    bounds: Bounds
    models: Models
    finished: Callable[[Sequence[str] | None], Awaitable[Sequence[FinishedStep]]]
    """Outputs of the named steps, or of all finished ones, by number."""
    applied: Callable[[], Awaitable[Sequence[AppliedSet]]]
    sandbox: Sandbox | None = None
    on_output: Callable[[str, bytes], None] | None = None
    prepared: "Prepared | None" = None
    """For `execute`: what `prepare` gave for this attempt, whose hash was approved; None where nobody was asked. An
    executor that computes its effect again raises StaleApproval where it would be another."""
    shown: Callable[[], Awaitable[Mapping[str, Any] | None]] | None = None
    """For `prepare`: the rendering of the step's latest question, so that a model is not asked to write it twice."""

    def require_sandbox(self) -> Sandbox:
        """No sandbox: no command."""
        if self.sandbox is None:
            raise SandboxUnavailable("no sandbox of the required strength works on this host")
        return self.sandbox


@dataclass(frozen=True, slots=True)
class Prepared:
    """What an approver is shown, and what the approval will be bound to.

    `action` is everything executor-specific that the approval covers (JSON; hashed); `rendering` is what a person
    sees, made by the engine, never by a model (JSON: `title`, and any of `diff`, `command`, `cwd`, `env`, `sandbox`,
    `files`, `notes`); `risk` is low, medium or high.
    """

    action: Mapping[str, Any]
    rendering: Mapping[str, Any]
    risk: str
    failure: str | None = None
    """Why there is no preview, where making one failed."""


@dataclass(frozen=True, slots=True)
class Done:
    """The step's output (JSON) and, for a step that changes its workspace, the change set still to be applied."""

    output: Mapping[str, Any]
    change_set: ChangeSet | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The step did not do what it should; `retryable` where trying again may help."""

    code: str
    message: str
    field: str | None = None
    retryable: bool = False
    retry_after_ms: int | None = None
    output: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Outcome = Done | Failed


class Executor(ABC, Generic[P]):
    """One step type. Stateless: one instance serves all steps."""

    type: ClassVar[str]
    version: ClassVar[str] = "1"
    effect: ClassVar[Effect] = Effect.NONE
    gate: ClassVar[Gate] = Gate.ALLOW
    lasts: ClassVar[bool] = False
    """Whether a start event is journaled: it can take long, or must not start twice unnoticed."""
    max_attempts: ClassVar[int] = 1
    """How often a step is tried where its plan does not say."""
    step_keys: ClassVar[tuple[str, ...]] = ()
    """Input fields that list keys of earlier steps; a plan is refused unless the step waits for all of them."""
    reads_workspace: ClassVar[bool] = True
    summary: ClassVar[str]
    """One sentence for people who choose a step type."""
    internal: ClassVar[bool] = False
    """Whether only the engine may add such a step (undo)."""
    params: builtins.type[P]

    def prepares_long(self, params: P) -> bool:
        """Whether `prepare` can last, so that its beginning is journaled and people see what is going on."""
        return False

    async def prepare(self, context: Context, params: P) -> Prepared:
        """Effect-free: what the step would do, for the approver and for the action's hash."""
        given = params.model_dump(mode="json", by_alias=True)
        rendering = {"title": f"{self.type} {context.step_key}", "input": visible_json(given)}
        return Prepared(action={"input": given}, rendering=rendering, risk="low")

    @abstractmethod
    async def execute(self, context: Context, params: P) -> Outcome:
        """One attempt. Expected failures are values; a StepgateError means the input or environment is at fault."""
