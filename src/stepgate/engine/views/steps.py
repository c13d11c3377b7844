"""Steps, their types and what they gave."""

from typing import Any, Literal

from pydantic import Field

from stepgate.domain.state import Effect, Gate
from stepgate.domain.states import StepStatus
from stepgate.engine.views.approvals import ApprovalRef
from stepgate.engine.views.base import Id, Sha256, Time, Usd, View


class Tokens(View):
    """Token counts of model calls; null while none is known."""

    input: int | None
    output: int | None
    cached: int | None
    reasoning: int | None


class Failure(View):
    """Why a step failed or needs a person."""

    code: str
    message: str
    field: str | None = None
    paths: list[str] | None = Field(default=None, description="the files in question, where there are any")


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


class Output(View):
    """The recorded output of a step, exactly as it was hashed."""

    run_id: Id
    step_id: Id
    output: Any
    output_sha256: Sha256 | None
    output_size: int | None


class LiveChunk(View):
    """A piece of what a running command printed or a model answered; control characters are written out."""

    seq: int = Field(description="grows within the step; `after` takes it")
    attempt: int
    stream: Literal["stdout", "stderr", "model"]
    at: Time
    text: str


class LiveOutput(View):
    """What a step printed or was answered so far, for people who watch; its recorded output is all that stays."""

    items: list[LiveChunk]
    next: int = Field(description="`after` of the next request")
    ended: bool = Field(description="whether nothing more will come: the step is over, and so is its live output")


class StepTypeView(View):
    """A kind of step that plans may use."""

    type: str
    summary: str
    effect: Effect
    gate: Gate
    version: str
    input_schema: dict[str, Any] = Field(description="JSON Schema of the step's input")
