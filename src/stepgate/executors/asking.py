"""What analyze and summarize share: a question to a model about what the run's earlier steps produced."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field, field_validator

from stepgate.domain.errors import InvalidValue, ModelFailure, StaleApproval
from stepgate.executors.base import Context, Done, Executor, Failed, Outcome, Params, Prepared
from stepgate.executors.fields import StepKey, Text, refusal
from stepgate.executors.screen import is_cut, one_line, visible, visible_json
from stepgate.llm.prompts import Material, material_of
from stepgate.llm.protocol import Message, ModelAnswer, ModelRequest, Purpose, request_hash
from stepgate.llm.structured import check_schema

MAX_INSTRUCTION_CHARS = 20_000

Instruction = Annotated[Text, Field(min_length=1, max_length=MAX_INSTRUCTION_CHARS)]
Name = Annotated[Text, Field(min_length=1, max_length=200)]


class AskingParams(Params):
    """Whom to ask about what."""

    model_config = ConfigDict(serialize_by_alias=True)

    context: Annotated[list[StepKey], Field(max_length=1000)] | None = Field(
        default=None, description="keys of the steps whose outputs are the material; all finished ones if not given"
    )
    model: Name | None = Field(default=None, description="the model, as the router names it")
    tier: Name | None = Field(default=None, description="how able a model is needed, where the router has tiers")
    # `schema` itself is a name of pydantic's.
    answer_schema: dict[str, Any] | None = Field(
        default=None, alias="schema", description="a JSON Schema; then the answer is JSON that fits it, in `data`"
    )

    @field_validator("answer_schema")
    @classmethod
    def _is_a_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            try:
                check_schema(schema)
            except InvalidValue as error:
                raise refusal(error) from error
        return schema


Q = TypeVar("Q", bound=AskingParams)


class Asking(Executor[Q]):
    """A step that asks a model; each subclass says with which words and for what purpose."""

    lasts = True
    reads_workspace = False
    max_attempts = 3
    step_keys = ("context",)
    purpose: ClassVar[Purpose]

    @abstractmethod
    def messages(self, goal: str, params: Q, materials: Sequence[Material]) -> tuple[Message, ...]:
        """The prompt."""

    async def prepare(self, context: Context, params: Q) -> Prepared:
        """Every word that would be sent, where a plan wants a person to see that first."""
        request = await self._request(context, params)
        sent = [{"role": one.role.value, "content": visible(one.content)} for one in request.messages]
        title = one_line(f"Ask {params.model or 'a model'} ({self.type})")
        size = sum(len(one.content) for one in request.messages)
        model, tier = visible_json([params.model, params.tier])
        notes = [f"{size} characters leave for the model router"]
        cut = any(is_cut(one.content) for one in request.messages)
        rendering = {"title": title, "messages": sent, "model": model, "tier": tier, "notes": notes, "truncated": cut}
        return Prepared(_action(request), rendering, "high" if cut else "low")

    async def execute(self, context: Context, params: Q) -> Outcome:
        """The answer; a router's failure is an outcome, retryable where it says so.

        Raises InvalidReference for context keys that the run has not, ModelUnavailable where the router cannot answer
        such a question at all, StaleApproval where other words would leave than those that were approved.
        """
        request = await self._request(context, params)
        if context.prepared is not None and context.prepared.action != _action(request):
            raise StaleApproval(
                "another step has ended since this was approved, and its output would be sent too",
                field="context",
                fix="look at what would be sent now, or name the steps in context",
            )
        try:
            answer = await context.models.complete(request)
        except ModelFailure as failure:
            return failed(failure)
        return Done(_output(answer, with_data=request.schema is not None))

    async def _request(self, context: Context, params: Q) -> ModelRequest:
        materials = await _materials(context, params.context)
        return ModelRequest(
            messages=self.messages(context.goal, params, materials),
            purpose=self.purpose,
            model=params.model,
            tier=params.tier,
            schema=params.answer_schema,
        )


def _action(request: ModelRequest) -> dict[str, str]:
    return {"request": request_hash(request)}


async def _materials(context: Context, keys: Sequence[str] | None) -> list[Material]:
    if keys is not None and not keys:
        return []
    steps = await context.finished(keys)
    found = [material_of(step.number, step.key, step.type, step.output) for step in steps]
    missing = sorted(set(keys or ()) - {step.key for step in steps})
    # A step that was skipped, or failed where the plan goes on: the model must not take its silence for success.
    return [*(Material(0, key, "This step has no output: it was not completed.") for key in missing), *found]


def failed(failure: ModelFailure) -> Failed:
    """A router's failure as a step's."""
    wait_s = failure.retry_after_s
    wait_ms = None if wait_s is None else round(wait_s * 1000)
    message = f"{failure.message} ({failure.fix})" if failure.fix else failure.message
    return Failed(failure.reason_code, message, retryable=failure.retryable, retry_after_ms=wait_ms)


def _output(answer: ModelAnswer, *, with_data: bool) -> dict[str, Any]:
    data = {"data": answer.data} if with_data else {}
    # What PostgreSQL's JSON cannot hold, no router promises to leave out.
    text = answer.text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    return {"text": text, **data, "model": answer.model, "finish_reason": answer.finish_reason}
