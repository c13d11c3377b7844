"""The shape of a plan: what people write, and the planned steps it becomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepgate.domain import limits
from stepgate.domain.errors import Problem
from stepgate.domain.limits import Duration, RunLimits
from stepgate.domain.params import NAME_PATTERN, ParamSpec

KEY_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
Key = Annotated[str, Field(pattern=KEY_PATTERN)]


class Retry(BaseModel):
    """How often a step is tried, and how long it waits before the second attempt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_attempts: int = Field(strict=True, ge=1, le=limits.MAX_ATTEMPTS)
    backoff: Annotated[Duration, Field(ge=0, le=limits.MAX_BACKOFF_MS)] = limits.DEFAULT_BACKOFF_MS


class PlanStep(BaseModel):
    """One step as written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Key | None = Field(default=None, description="unique in the run; `step-<number>` if not given")
    type: str = Field(min_length=1, max_length=100, description="`step_type` is accepted as well")
    input: dict[str, Any] = Field(default_factory=dict)
    needs: list[Key] | None = Field(
        default=None,
        description="keys of the steps it waits for; the step before it if not given; [] for none",
    )
    retry: Retry | None = None
    timeout: Annotated[Duration, Field(ge=1, le=limits.MAX_TIMEOUT_MS)] | None = None
    on_error: Literal["fail", "continue"] = "fail"
    gate: Literal["ask"] | None = Field(default=None, description="asks a person first; it can only tighten")
    why: str | None = Field(default=None, max_length=limits.MAX_WHY_CHARS)

    @model_validator(mode="before")
    @classmethod
    def _accept_step_type(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and "step_type" in raw and "type" not in raw:
            return {("type" if name == "step_type" else name): value for name, value in raw.items()}
        return raw


class PlanHead(BaseModel):
    """Everything of a plan but its steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    name: str | None = Field(default=None, min_length=1, max_length=limits.MAX_NAME_CHARS)
    goal: str | None = Field(default=None, min_length=1, max_length=limits.MAX_GOAL_CHARS)
    params: dict[Annotated[str, Field(pattern=NAME_PATTERN)], ParamSpec] = Field(
        default_factory=dict, max_length=limits.MAX_PARAMS
    )
    limits: RunLimits = RunLimits()


class Plan(PlanHead):
    """A whole plan, version 1: the schema people see; `validate_plan` accepts what it describes."""

    steps: list[PlanStep] = Field(min_length=1, max_length=limits.MAX_STEPS)


@dataclass(frozen=True, slots=True)
class StepType:
    """What planning must know of an executor.

    `check_input` gives every fault of an input, fields relative to it (`edits[0].find`); it passes over values
    that hold references, which are checked once resolved. `max_attempts` is for steps without `retry`.
    """

    name: str
    check_input: Callable[[Mapping[str, Any]], Sequence[Problem]]
    max_attempts: int = 1
    step_keys: tuple[str, ...] = ()
    """Fields of the input that list keys of steps whose outputs are used, and which so must be ancestors."""


@dataclass(frozen=True, slots=True)
class KnownStep:
    """A step the run already has, by its key and the keys it needs; `gone`: no step that needs it could ever begin."""

    key: str
    needs: tuple[str, ...]
    gone: bool = False


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A validated step: parameters filled in, step references still as written; times in milliseconds."""

    key: str
    type: str
    input: dict[str, Any]
    needs: tuple[str, ...]
    max_attempts: int
    backoff_ms: int
    timeout_ms: int | None
    on_error: Literal["fail", "continue"]
    gate: Literal["ask"] | None
    why: str | None


@dataclass(frozen=True, slots=True)
class ValidPlan:
    """A plan without fault."""

    name: str | None
    goal: str | None
    params: dict[str, Any]
    limits: RunLimits
    steps: tuple[PlannedStep, ...]
