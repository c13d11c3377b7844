"""The JSON shapes people and programs see, declared once for the HTTP API and the command line's `--json`.

Ids are UUIDs, times RFC 3339 in UTC with microseconds, money decimal text in USD; null means unknown or not yet.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from stepgate.domain.errors import Problem
from stepgate.domain.state import ApprovalStatus, Effect, Gate
from stepgate.domain.states import EventType, RunStatus, StepStatus

Id = Annotated[str, Field(json_schema_extra={"format": "uuid"}, examples=["019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b10"])]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-01-31T12:00:00.000000Z"])]
Usd = Annotated[str, Field(pattern=r"^\d+(\.\d{1,12})?$", examples=["0.00125"])]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class View(BaseModel):
    """The base of every shape: immutable, and complete or not at all."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)


class Actor(View):
    """Who caused something."""

    id: str = Field(examples=["local"])
    kind: str = Field(description="person, service, agent or system")
    channel: str = Field(description="api, cli, console or worker")


class Waiting(View):
    """One reason why a run does not move."""

    kind: Literal["approval", "workspace", "execute", "retry", "budget", "review", "executor", "sandbox", "person"] = (
        Field(
            description=(
                "approval: a decision on the step; workspace: another run changes it; execute: the next `execute` (or "
                "`start`); retry: a later attempt; budget: a higher limit; review: a look at the step, then `resume`; "
                "executor, sandbox: a worker that has it, then `resume`; person: somebody must add steps or `resume`"
            )
        )
    )
    step_id: Id | None
    until: Time | None = Field(description="when it ends by itself; null where it does not")


class Tokens(View):
    """Token counts of model calls; null while none is known."""

    input: int | None
    output: int | None
    cached: int | None
    reasoning: int | None


class Progress(View):
    """Planned steps that came to an end, and all of them."""

    done: int
    total: int


class Failure(View):
    """Why a step failed or needs a person."""

    code: str
    message: str
    field: str | None = None
    paths: list[str] | None = Field(default=None, description="the files in question, where there are any")


class Decision(View):
    """The one decision that stands on a question."""

    verdict: Literal["approved", "rejected"]
    actor: Actor
    at: Time
    reason: str | None
    then: Literal["abort", "skip"] | None = Field(description="what a rejection means for the run")
    action_hash: Sha256
    implied: bool = Field(description="whether the hash was implied by an empty body")


class ApprovalRef(View):
    """The latest question of a step."""

    request_id: Id
    revision: int
    status: ApprovalStatus
    action_hash: Sha256
    risk: str
    rendering: dict[str, Any] | None = Field(
        description="what the approver must see: title, and any of diff, command, cwd, env, sandbox, files, notes"
    )
    requested_at: Time
    expires_at: Time | None
    decision: Decision | None


class Approval(ApprovalRef):
    """A question in the inbox, with the step and run it belongs to."""

    run_id: Id
    step_id: Id
    step_key: str
    step_number: int
    step_type: str
    goal: str
    required: int
    on_expiry: str
    policy_version: str
    matched_rules: list[str]


class Step(View):
    """One step of a run."""

    id: Id
    run_id: Id
    key: str
    number: int = Field(description="the order of creation, from 1")
    parent_id: Id | None
    step_type: str
    status: StepStatus
    reason: str | None
    effect: Effect
    gate: Gate
    needs: list[str] = Field(description="keys of the steps it waits for")
    why: str | None = Field(description="what the plan says the step is for; a claim, not the action")
    input: dict[str, Any] | None
    output: Any
    output_sha256: Sha256 | None
    output_size: int | None
    omitted: list[Literal["input", "output", "rendering"]] = Field(
        description="fields left out of a list because they are large; the step by itself has them all"
    )
    error: Failure | None
    attempt: int
    max_attempts: int
    retry_at: Time | None
    cost_usd: Usd | None = Field(description="null while the cost of any of its model calls is unknown")
    cost_source: str | None
    tokens: Tokens
    model: str | None
    latency_ms: int | None
    change_set_id: Id | None
    workspace_before: str | None
    workspace_after: str | None
    approval: ApprovalRef | None
    created_at: Time
    started_at: Time | None
    completed_at: Time | None


class Run(View):
    """One run."""

    id: Id
    name: str | None
    goal: str
    status: RunStatus
    reason: str | None
    waiting_for: list[Waiting]
    workspace_path: str
    workspace_mode: str
    workspace_rev: str | None
    labels: dict[str, str]
    metadata: dict[str, Any]
    requester: Actor
    limits: dict[str, Any]
    progress: Progress
    total_cost_usd: Usd | None = Field(description="null while the cost of any model call is unknown")
    tokens: Tokens
    unknown_cost_calls: int
    head_seq: int = Field(description="the number of its last event")
    created_at: Time
    updated_at: Time
    started_at: Time | None
    completed_at: Time | None
    undone_at: Time | None


class RunDetail(Run):
    """A run with its first 200 steps."""

    steps: list[Step]


class Executed(View):
    """What one `execute` did: the run now, and the step it let run."""

    run: RunDetail
    step: Step


class Undone(View):
    """The run now, and the step that will undo its changes once it is approved."""

    run: RunDetail
    step: Step


class Diff(View):
    """What a step or a whole run changed in its workspace."""

    run_id: Id
    step_id: Id | None
    applied: bool = Field(description="false where the change set is recorded and not (yet) applied")
    files: list[dict[str, Any]] = Field(description="path, op (create, modify, delete) and the state before and after")
    diff: str = Field(description="a unified diff as git writes it")


class Output(View):
    """The recorded output of a step, exactly as it was hashed."""

    run_id: Id
    step_id: Id
    output: Any
    output_sha256: Sha256 | None
    output_size: int | None


class UsageView(View):
    """Model calls summed."""

    calls: int
    unknown_calls: int
    known_cost_usd: Usd
    total_cost_usd: Usd | None
    tokens: Tokens


class StepCost(UsageView):
    """What one step's model calls cost."""

    step_id: Id
    key: str
    number: int
    cost_source: str | None
    model: str | None


class ModelCost(UsageView):
    """What one model's calls cost."""

    model: str | None


class Cost(View):
    """What a run's model calls cost; the total is null when any call's cost is unknown."""

    run_id: Id
    total_cost_usd: Usd | None
    known_cost_usd: Usd
    calls: int
    unknown_calls: int
    tokens: Tokens
    by_step: list[StepCost]
    by_model: list[ModelCost]


class Event(View):
    """One fact of the journal. `hash` is sha256(prev_hash || body), where `body` is the recorded text."""

    seq: int
    type: EventType
    step_id: Id | None
    actor: Actor
    at: Time
    data: dict[str, Any]
    body: str = Field(description="the hashed text: canonical JSON of the whole event")
    prev_hash: Sha256
    hash: Sha256


class Verification(View):
    """Whether a run's journal holds: the chain, its head, and the tables it stands for."""

    run_id: Id
    verified: bool
    events: int
    head_hash: Sha256
    first_bad_seq: int | None
    reason: str | None


class StepTypeView(View):
    """A kind of step that plans may use."""

    type: str
    summary: str
    effect: Effect
    gate: Gate
    version: str
    input_schema: dict[str, Any] = Field(description="JSON Schema of the step's input")


class WorkerStatus(View):
    """This process's worker, and the queue of all of them."""

    running: bool = Field(description="whether this process executes steps")
    check_interval: float = Field(description="how often a worker looks for work when nothing wakes it, in seconds")
    workers: int = Field(description="workers with a lease, in all processes")
    due: int = Field(description="runs that a worker could take up now")
    oldest_due_s: float | None = Field(description="how long the first of them has waited")


class Claimed(View):
    """How many runs this process's worker took up."""

    claimed: int


class DatabaseHealth(View):
    """Whether the database answers."""

    ok: bool
    version: str | None = None
    latency_ms: int | None = None
    error: str | None = None


class Canary(View):
    """One attack that was tried from inside the sandbox at start-up."""

    name: str
    passed: bool = Field(description="true: the sandbox held")
    detail: str


class SandboxHealth(View):
    """The sandbox commands run in, as its canaries found it."""

    level: str | None = Field(description="null: no command can run here")
    canaries: list[Canary]
    degraded: bool = Field(description="whether it is missing or weaker than the best level")
    error: str | None = None


class RouterHealth(View):
    """Who answers for models."""

    name: str
    model: str | None
    status: Literal["ok", "offline", "failing"]
    detail: str


class WorkerHealth(View):
    """Whether this process executes steps."""

    running: bool
    driving: int


class Health(View):
    """`ok`: everything works; `degraded`: no sandbox or no worker here; `down`: no database."""

    status: Literal["ok", "degraded", "down"]
    version: str
    database: DatabaseHealth
    sandbox: SandboxHealth
    router: RouterHealth
    worker: WorkerHealth


class Fault(View):
    """One fault in the input."""

    field: str
    message: str
    fix: str | None

    @classmethod
    def of(cls, problem: Problem) -> "Fault":
        return cls(field=problem.field, message=problem.message, fix=problem.fix)


T = TypeVar("T")


class Page(View, Generic[T]):
    """One page of a list; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None
