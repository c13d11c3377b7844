"""What an executor is, what it is given, and what it gives back: the seam between the engine and the work."""

import asyncio
import builtins
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from stepgate.domain.errors import SandboxUnavailable
from stepgate.domain.policy.action import Change, Reach
from stepgate.domain.state import Effect, Gate
from stepgate.executors.screen import is_cut, visible_json
from stepgate.llm.protocol import ModelAnswer, ModelRequest
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.sandbox import Sandbox
from stepgate.workspace.secrets import SecretFolder


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
    """What settings allow a step, in bytes; `environment` is what commands see of the worker's own."""

    max_read_bytes: int
    max_output_bytes: int
    command: Limits
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Planning(Protocol):
    """What a plan for this run may be made of."""

    def step_types(self) -> Sequence[Mapping[str, Any]]:
        """Each with `type`, `summary` and the JSON Schema of its `input`."""
        ...

    def check(self, steps: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """What policy will say of each: `{key, type, verdict, rules}`. Raises InvalidPlan with every problem."""
        ...


class Replaying(Protocol):
    """How another run is done again, in a throw-away copy and out of its record."""

    async def again(self, run_id: str, *, printed: bool) -> Mapping[str, Any]:
        """`{run_id, steps, agreed, taken, divergence}`: how many steps ended, how many of them came out the same when
        they were executed again, the keys of those that were taken from the record, and null or the first that came out
        otherwise, `{step, what, expected, found, names}`. `printed`: whether what commands print must be the same.
        """
        ...


class Context(Protocol):
    """What one attempt of one step may use. The workspace is locked by the worker for as long as it is needed."""

    @property
    def run_id(self) -> str: ...

    @property
    def step_id(self) -> str: ...

    @property
    def step_key(self) -> str: ...

    @property
    def goal(self) -> str: ...

    @property
    def root(self) -> Root:
        """The workspace, opened when it is first asked for."""
        ...

    @property
    def blobs(self) -> BlobStore: ...

    @property
    def layers(self) -> Layers: ...

    @property
    def bounds(self) -> Bounds: ...

    @property
    def models(self) -> Models: ...

    @property
    def planning(self) -> Planning: ...

    @property
    def replaying(self) -> Replaying: ...

    @property
    def sandbox(self) -> Sandbox | None: ...

    @property
    def secrets(self) -> SecretFolder | None:
        """Where secrets named by a step are read."""
        ...

    @property
    def prepared(self) -> "Prepared | None":
        """For `execute`: what `prepare` gave for this attempt, whose hash was approved; None where nobody was asked.

        An executor that computes its effect again raises StaleApproval where it would be another.
        """
        ...

    @property
    def ready(self) -> "asyncio.Future[None] | None":
        """For `execute` of an executor that `readies`: has a result once the start of the attempt is recorded."""
        ...

    async def finished(self, keys: Sequence[str] | None) -> Sequence[FinishedStep]:
        """Outputs of the named steps, or of all finished ones, by number."""
        ...

    async def applied(self) -> Sequence[AppliedSet]:
        """The run's change sets, in applied order."""
        ...

    async def sets_of(self, run_id: str) -> Sequence[ChangeSet]:
        """What another run applied to its copy, in applied order."""
        ...

    async def shown(self) -> Mapping[str, Any] | None:
        """For `prepare`: the rendering of the step's latest question, so that a model is not asked to write it twice.

        None where nothing was asked yet.
        """
        ...

    def on_output(self, stream: str, data: bytes) -> None:
        """What a command prints, as it prints it; for people only."""
        ...


def require_sandbox(context: Context) -> Sandbox:
    """No sandbox: no command."""
    if context.sandbox is None:
        raise SandboxUnavailable("no sandbox of the required strength works on this host")
    return context.sandbox


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
    reach: Reach | None = None
    """What policy is asked about, where preparing found out more than `Executor.reach` knows."""
    change: Change | None = None
    """What will change, where that is known already."""
    ahead: bool = True
    """Whether it may run ahead of the question, as far as preparing could find out."""
    outcome: "Outcome | None" = None
    """What came of it, where it was run ahead of the question: an approval is of exactly that."""


@dataclass(frozen=True, slots=True)
class Done:
    """The step's output (JSON) and, for a step that changes its workspace, the change set still to be applied."""

    output: Mapping[str, Any]
    change_set: ChangeSet | None = None
    steps: Sequence[Mapping[str, Any]] = ()
    """Steps to be added to the run, as a plan writes them."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The step did not do what it should; `retryable` where trying again may help."""

    code: str
    message: str
    field: str | None = None
    retryable: bool = False
    retry_after_ms: int | None = None
    output: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    own_end: bool = False
    """Whether it ran to its own end and this is what came of it: a preview of it can be approved like any other."""


Outcome = Done | Failed


class Launched(ABC):
    """An execution that was set up and has not begun. `finish` or `discard` is called once, `discard` also after it."""

    @abstractmethod
    def fits(self, context: Context, prepared: Prepared) -> bool:
        """Whether it may be used for this action: it was set up for exactly this, over what this was found to be."""

    @abstractmethod
    async def finish(self, context: Context) -> Outcome:
        """As `Executor.execute`."""

    @abstractmethod
    async def discard(self) -> None:
        """Takes it down, unless it was finished; returns when nothing of it is left."""


class Executor(ABC, Generic[P]):
    """One step type. Stateless: one instance serves all steps."""

    type: ClassVar[str]
    version: ClassVar[str] = "1"
    effect: ClassVar[Effect] = Effect.NONE
    gate: ClassVar[Gate] = Gate.ALLOW
    lasts: ClassVar[bool] = False
    """Whether a start event is journaled: it can take long, or must not start twice unnoticed."""
    readies: ClassVar[bool] = False
    """Whether it makes ready while its start is being recorded; nothing it is asked to do may happen before that is."""
    max_attempts: ClassVar[int] = 1
    """How often a step is tried where its plan does not say."""
    step_keys: ClassVar[tuple[str, ...]] = ()
    """Input fields that list keys of earlier steps; a plan is refused unless the step waits for all of them."""
    reads_workspace: ClassVar[bool] = True
    varies: ClassVar[frozenset[str]] = frozenset()
    """Fields of its output that are different each time: no part of what a replay compares."""
    sandboxed: ClassVar[bool] = False
    """Whether it runs at the sandbox's level."""
    summary: ClassVar[str]
    """One sentence for people who choose a step type."""
    internal: ClassVar[bool] = False
    """Whether only the engine may add such a step (undo)."""
    params: builtins.type[P]

    def prepares_long(self, params: P) -> bool:
        """Whether `prepare` can last, so that its beginning is journaled and people see what is going on."""
        return False

    def always_asks(self, params: P) -> bool:
        """Whether a person is asked whatever gate the step has."""
        return False

    def reach(self, params: P) -> Reach:
        """What the input names, for policy; cheap, and without a look at the workspace."""
        return Reach()

    def previews(self, params: P) -> bool:
        """Whether `execute` may run ahead of the question, its outcome kept until somebody approves it.

        Only where it has no effect but the change set it returns.
        """
        return False

    def show_outcome(self, outcome: "Outcome") -> Mapping[str, Any]:
        """What the approver sees of an outcome beside its change: JSON, bounded, everything in it made visible."""
        return {}

    async def prepare(self, context: Context, params: P) -> Prepared:
        """Effect-free: what the step would do, for the approver and for the action's hash."""
        given = params.model_dump(mode="json", by_alias=True)
        cut = is_cut(given)
        rendering = {"title": f"{self.type} {context.step_key}", "input": visible_json(given), "truncated": cut}
        return Prepared(action={"input": given}, rendering=rendering, risk="high" if cut else "low")

    async def launch(self, context: Context, params: P) -> Launched | None:
        """For one that `readies`: sets up what `execute` needs while it is found out whether the approval stands.

        Nothing of what is asked for may happen before `Launched.finish`. Called before `prepare` is asked what would be
        done; a fault is not told here, where nobody knows yet whether it matters. None where nothing is to be set up.
        """
        return None

    @abstractmethod
    async def execute(self, context: Context, params: P) -> Outcome:
        """One attempt. Expected failures are values; a StepgateError means the input or environment is at fault."""
