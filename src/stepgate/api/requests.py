"""What clients may send: the declared shapes of request bodies and the parameters that several endpoints share."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Depends, Path, Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SkipValidation,
    model_validator,
)

from stepgate.api.access import PrincipalDep
from stepgate.api.services import Services, services_of
from stepgate.domain import canonical
from stepgate.domain.errors import InvalidValue, NotFound
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.limits import MAX_GOAL_CHARS, RunLimits
from stepgate.domain.plan import Plan, PlanStep
from stepgate.domain.states import RunStatus
from stepgate.engine import views

ServicesDep = Annotated[Services, Depends(services_of)]

UUID_CHARS = 36
EXAMPLE_ID = "019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b10"
WORKSPACE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
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
    workspace: str | None = Field(
        None, max_length=64, description="a named workspace, instead of `workspace_path`", examples=["shop-backend"]
    )
    workspace_mode: Literal["in_place", "isolated"] | None = Field(
        None,
        description=(
            "in_place: steps change the folder itself; isolated: they change a private copy, and the folder only when "
            "the result is delivered; not given: the mode of the workspace, mostly in_place"
        ),
    )
    steps: SkipValidation[list[PlanStep]] | None = None
    plan: SkipValidation[Plan] | None = None
    params: dict[str, Any] | None = Field(None, description="values for the plan's params")
    limits: SkipValidation[RunLimits] | None = None
    labels: dict[str, str] | None = Field(None, description="at most 64, to find the run by")
    metadata: dict[str, Any] | None = Field(None, description="anything, at most 64 KiB; kept and given back")
    start: bool = Field(False, description="whether its steps run as they become ready")


class AddWorkspace(Body):
    """A name for a folder."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "shop-backend", "path": "shop/backend", "mode": "isolated"}]}
    )

    name: str = Field(
        description="1 to 64 letters, digits, `.`, `_` and `-`", json_schema_extra={"pattern": WORKSPACE_NAME}
    )
    path: str = Field(description="an existing folder below the workspace root")
    mode: Literal["in_place", "isolated"] = Field("in_place", description="how runs use it that do not say")


class AddSteps(Body):
    """Steps to add; each waits for the step before it unless it names its `needs`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"steps": STEPS_EXAMPLE}]})

    steps: SkipValidation[list[PlanStep]]


class ExplainPlan(Body):
    """A plan or a list of steps, and of whose run."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"steps": STEPS_EXAMPLE, "labels": {"team": "core"}}]})

    steps: SkipValidation[list[PlanStep]] | None = None
    plan: SkipValidation[Plan] | None = None
    params: dict[str, Any] | None = Field(None, description="values for the plan's params")
    labels: dict[str, str] | None = Field(None, description="the labels that the run would have")


OnBehalfOf = Annotated[
    str | None,
    Field(max_length=205, description="whose approval it is, where they delegated theirs to the caller"),
]


class Approve(Body):
    """`action_hash` is the one shown with the question."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"action_hash": HASH, "reason": "reads well"}]})

    action_hash: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="left out only with local trust")
    reason: str | None = Field(None, description="at most 2,000 characters")
    on_behalf_of: OnBehalfOf = None


class Reject(Body):
    """Saying no needs no hash; one that is sent must be the present one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the wrong file", "then": "abort"}]})

    action_hash: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    reason: str | None = Field(None, description="at most 2,000 characters")
    on_behalf_of: OnBehalfOf = None
    then: str = Field(
        "abort",
        description=(
            "abort: the run ends cancelled; skip: it goes on without the step; replan: a model that is told the reason "
            "plans anew what is left"
        ),
        json_schema_extra={"enum": ["abort", "skip", "replan"]},
    )


class Skip(Body):
    """Leaves a step out; its dependents go on."""

    reason: str | None = Field(None, description="at most 2,000 characters")


class EditStep(Body):
    """The whole new input, in the place of the one that is asked about."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"action_hash": HASH, "input": {"argv": ["git", "status"]}, "reason": "look first"}]
        }
    )

    action_hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the question that was looked at")
    input: dict[str, Any] = Field(description="checked as a plan's; it may refer to the outputs of earlier steps")
    reason: str | None = Field(None, description="at most 2,000 characters")


class DeliverRun(Body):
    """In which form the result is handed over."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"as": "apply"}, {"as": "patch"}, {"as": "branch", "branch": "fix-invoice"}]}
    )

    as_: Literal["apply", "patch", "branch"] = Field(
        alias="as",
        description=(
            "apply: a new run is made whose one step applies the result to the folder, once it is approved; patch: a "
            "text for `git apply`; branch: a branch with a commit for each step that changed files"
        ),
    )
    branch: str | None = Field(None, description="branch: its name", examples=["fix-invoice"])


StepRef = Annotated[str, Field(min_length=1, max_length=64)] | Annotated[int, Field(ge=1)]


class UndoRun(Body):
    """How far back: everything, unless `to_step` names the last step whose changes stay."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"to_step": "read"}, {"to_step": 3}]})

    to_step: StepRef | None = Field(
        None, description="the key or number of a step of the run; null: back to the beginning"
    )
    to: StepRef | None = Field(None, description="the same as `to_step`, which is the name to use")

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if self.to is not None and self.to_step is not None:
            raise ValueError("to and to_step mean the same: send to_step")
        return self

    @property
    def last_kept(self) -> str | None:
        """The key or number as text."""
        step = self.to if self.to_step is None else self.to_step
        return None if step is None else str(step)


class ReplayRun(Body):
    """How closely the replay looks."""

    printed: bool = Field(True, description="false: what commands print is not compared, only how they end and change")


class ForkRun(Body):
    """Where the new run begins anew."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"from_step": "fix"}, {"from_step": 3, "start": True}]})

    from_step: StepRef = Field(description="the key or number of the first step that is not taken over as it ended")
    start: bool = Field(False, description="true: the new run starts at once")


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
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies before the year 1 or after the year 9999 in UTC") from error


Moment = Annotated[datetime, BeforeValidator(_moment)]


def _label(value: str) -> str:
    name, equals, _ = value.partition("=")
    if not equals or not name:
        raise ValueError("is not of the form name=value")
    return value


LabelFilters = list[Annotated[Text, AfterValidator(_label)]]


def labels_of(filters: list[str], field: str) -> dict[str, str]:
    """`name=value` filters as a mapping; raises InvalidValue where a label is given two values."""
    found: dict[str, str] = {}
    for label in filters:
        name, _, value = label.partition("=")
        if found.setdefault(name, value) != value:
            raise InvalidValue(f"{name} cannot have two values", field=field, fix="name each label once")
    return found


class RunQuery(BaseModel):
    """Which runs to list: those that fit every filter given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: list[Annotated[RunStatus, BeforeValidator(lower)]] = Field(
        default_factory=list, description="one of these, in any case"
    )
    label: LabelFilters = Field(default_factory=list, description="`name=value`; all of them")
    q: Text | None = Field(None, min_length=1, max_length=200, description="text in the goal or name, in any case")
    created_after: Moment | None = Field(None, description="RFC 3339; created at or after it")
    created_before: Moment | None = Field(None, description="RFC 3339; created before it")
    cursor: Text | None = Field(None, max_length=100, description="`next_cursor` of the page before")
    limit: int = Field(50, ge=1, le=200)

    @property
    def labels(self) -> dict[str, str]:
        return labels_of(self.label, "label")


class PageQuery(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cursor: Text | None = Field(None, max_length=100, description="`next_cursor` of the page before")
    limit: int = Field(50, ge=1, le=200)


def canonical_id(value: str, what: str) -> str:
    """The id as it is stored; what is no id names nothing."""
    try:
        found = UUID(value) if len(value) == UUID_CHARS else None
    except ValueError:
        found = None
    if found is None:
        raise NotFound(f"there is no {what} of this id", field=f"{what}_id", fix="send an id as the API shows it")
    return str(found)


def cursor_id(cursor: str | None) -> str | None:
    """The id that a cursor is; raises InvalidValue for anything no list has given."""
    try:
        return None if cursor is None else canonical_id(cursor, "cursor")
    except NotFound as error:
        message, fix = "is no cursor of this list", "send next_cursor of the page before"
        raise InvalidValue(message, field="cursor", fix=fix) from error


async def _run_id(
    services: ServicesDep,
    principal: PrincipalDep,
    run_id: Annotated[str, Path(description="the run's id", examples=[EXAMPLE_ID])],
) -> RunId:
    """Every endpoint about one run comes by here: another tenant's run is none."""
    found = RunId(canonical_id(run_id, "run"))
    await services.tenants.check(principal.tenant, found)
    return found


def _step_id(step_id: Annotated[str, Path(description="the step's id", examples=[EXAMPLE_ID])]) -> StepId:
    return StepId(canonical_id(step_id, "step"))


async def _run_name(
    services: ServicesDep,
    principal: PrincipalDep,
    run_id: Annotated[str, Path(description="the run's id, or a beginning that only it has", examples=[EXAMPLE_ID])],
) -> RunId:
    return await services.queries.resolve(principal.tenant, run_id)


async def _step_name(
    services: ServicesDep,
    run_id: Annotated[RunId, Depends(_run_id)],
    step_id: Annotated[str, Path(description="the step's id, key or number", examples=[EXAMPLE_ID])],
) -> StepId:
    return await services.queries.step_id(run_id, step_id)


async def question_of(services: Services, tenant: str, request_id: str) -> views.Approval:
    """The question as it is now. Raises NotFound, also for another tenant's."""
    return await services.queries.approval(tenant, canonical_id(request_id, "request"))


async def _asked(
    services: ServicesDep,
    principal: PrincipalDep,
    request_id: Annotated[str, Path(description="the question's id", examples=[EXAMPLE_ID])],
) -> views.Approval:
    return await question_of(services, principal.tenant, request_id)


AskedDep = Annotated[views.Approval, Depends(_asked)]
"""The question that the address names."""
RunPath = Annotated[RunId, Depends(_run_id)]
StepPath = Annotated[StepId, Depends(_step_id)]
RunName = Annotated[RunId, Depends(_run_name)]
StepName = Annotated[StepId, Depends(_step_name)]
RunFilters = Annotated[RunQuery, Query()]
Paging = Annotated[PageQuery, Query()]
