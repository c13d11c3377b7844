"""What clients may send: the declared shapes of request bodies and the parameters that several endpoints share."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, SkipValidation

from stepgate.api.services import Services, services_of
from stepgate.domain import canonical
from stepgate.domain.errors import InvalidValue, NotFound
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.limits import MAX_GOAL_CHARS, RunLimits
from stepgate.domain.plan import Plan, PlanStep
from stepgate.domain.states import RunStatus

ServicesDep = Annotated[Services, Depends(services_of)]

UUID_CHARS = 36
EXAMPLE_ID = "019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b10"
HASH = "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"
STEPS_EXAMPLE: list[JsonValue] = [
    {"key": "read", "type": "read_file", "input": {"path": "calc.py"}},
    {"key": "test", "type": "run_command", "input": {"argv": ["python3", "-m", "unittest"]}},
]


def _text(value: str) -> str:
    try:
        canonical.check_text(value, "value")
    except InvalidValue as error:
        raise ValueError(error.message) from error
    return value


Text = Annotated[str, AfterValidator(_text)]
"""Text of a path or a query, which PostgreSQL must be able to hold."""


class Body(BaseModel):
    """The base of every body: a field that is not declared is refused, nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CreateRun(Body):
    """A goal and, at most one of them, a plan or a list of steps. Their content is checked as plans are."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"goal": "Make the tests of calc.py pass", "steps": STEPS_EXAMPLE}]}
    )

    goal: str | None = Field(
        None,
        description=f"what the run is for, 1 to {MAX_GOAL_CHARS} characters; may stand in the plan instead",
        json_schema_extra={"maxLength": MAX_GOAL_CHARS},
    )
    workspace_path: str | None = Field(
        None, description="an existing folder below the workspace root; not given: the root itself"
    )
    steps: SkipValidation[list[PlanStep]] | None = None
    plan: SkipValidation[Plan] | None = None
    params: dict[str, Any] | None = Field(None, description="values for the plan's params")
    limits: SkipValidation[RunLimits] | None = None
    labels: dict[str, str] | None = Field(None, description="at most 64, to find the run by")
    metadata: dict[str, Any] | None = Field(None, description="anything, at most 64 KiB; kept and given back")
    start: bool = Field(False, description="whether its steps run as they become ready")


class AddSteps(Body):
    """Steps to add; each waits for the step before it unless it names its `needs`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"steps": STEPS_EXAMPLE}]})

    steps: SkipValidation[list[PlanStep]]


class Approve(Body):
    """`action_hash` is the one shown with the question."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"action_hash": HASH, "reason": "reads well"}]})

    action_hash: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="left out only with local trust")
    reason: str | None = Field(None, description="at most 2,000 characters")


class Reject(Body):
    """Saying no needs no hash; one that is sent must be the present one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the wrong file", "then": "abort"}]})

    action_hash: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    reason: str | None = Field(None, description="at most 2,000 characters")
    then: str = Field(
        "abort",
        description="abort: the run ends cancelled; skip: it goes on without the step",
        json_schema_extra={"enum": ["abort", "skip"]},
    )


class Skip(Body):
    """Leaves a step out; its dependents go on."""

    reason: str | None = Field(None, description="at most 2,000 characters")


class UndoRun(Body):
    """How far back: everything, unless `to` names the last step whose changes stay."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"to": "read"}]})

    to: str | None = Field(None, min_length=1, max_length=64, description="the key or number of a step of the run")


def lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _moment(value: Any) -> Any:
    """RFC 3339 with an offset, or Z: a time without one would mean something else on another host."""
    if not isinstance(value, str):
        return value
    try:
        # A plus sign that was not escaped arrives as a blank.
        moment = datetime.fromisoformat(value.strip().replace(" ", "+") if value.count(" ") == 1 else value)
    except ValueError as error:
        raise ValueError("is not a time such as 2026-01-31T12:00:00Z") from error
    if moment.tzinfo is None:
        raise ValueError("has no offset; write 2026-01-31T12:00:00Z")
    return moment.astimezone(UTC)


Moment = Annotated[datetime, BeforeValidator(_moment)]


def _label(value: str) -> str:
    name, equals, _ = value.partition("=")
    if not equals or not name:
        raise ValueError("is not of the form name=value")
    return value


class RunQuery(BaseModel):
    """Which runs to list: those that fit every filter given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: list[Annotated[RunStatus, BeforeValidator(lower)]] = Field(
        default_factory=list, description="one of these, in any case"
    )
    label: list[Annotated[Text, AfterValidator(_label)]] = Field(
        default_factory=list, description="`name=value`; all of them"
    )
    q: Text | None = Field(None, min_length=1, max_length=200, description="text in the goal or name, in any case")
    created_after: Moment | None = Field(None, description="RFC 3339; created at or after it")
    created_before: Moment | None = Field(None, description="RFC 3339; created before it")
    cursor: Text | None = Field(None, max_length=100, description="`next_cursor` of the page before")
    limit: int = Field(50, ge=1, le=200)

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for label in self.label:
            name, _, value = label.partition("=")
            if found.setdefault(name, value) != value:
                raise InvalidValue(f"{name} cannot have two values", field="label", fix="name each label once")
        return found


class PageQuery(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cursor: Text | None = Field(None, max_length=100, description="`next_cursor` of the page before")
    limit: int = Field(50, ge=1, le=200)


def _canonical(value: str, what: str) -> str:
    """The id as it is stored; what is no id names nothing."""
    try:
        found = UUID(value) if len(value) == UUID_CHARS else None
    except ValueError:
        found = None
    if found is None:
        raise NotFound(f"there is no {what} of this id", field=f"{what}_id", fix="send an id as the API shows it")
    return str(found)


def _run_id(run_id: Annotated[str, Path(description="the run's id", examples=[EXAMPLE_ID])]) -> RunId:
    return RunId(_canonical(run_id, "run"))


def _step_id(step_id: Annotated[str, Path(description="the step's id", examples=[EXAMPLE_ID])]) -> StepId:
    return StepId(_canonical(step_id, "step"))


async def _run_name(
    services: ServicesDep,
    run_id: Annotated[str, Path(description="the run's id, or a beginning that only it has", examples=[EXAMPLE_ID])],
) -> RunId:
    return await services.queries.resolve(run_id)


async def _step_name(
    services: ServicesDep,
    run_id: Annotated[RunId, Depends(_run_id)],
    step_id: Annotated[str, Path(description="the step's id, key or number", examples=[EXAMPLE_ID])],
) -> StepId:
    return await services.queries.step_id(run_id, step_id)


RunPath = Annotated[RunId, Depends(_run_id)]
StepPath = Annotated[StepId, Depends(_step_id)]
RunName = Annotated[RunId, Depends(_run_name)]
StepName = Annotated[StepId, Depends(_step_name)]
RunFilters = Annotated[RunQuery, Query()]
Paging = Annotated[PageQuery, Query()]
