"""Model calls that survive a crash: recorded before they leave, settled when they are back, retried as they say."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from decimal import Decimal

import structlog

from stepgate.domain import canonical
from stepgate.domain.budget import UNBILLED, Charge
from stepgate.domain.commands import CallModel, SettleModel
from stepgate.domain.errors import ModelFailure, StepgateError
from stepgate.domain.ids import CallId, StepId, new_id
from stepgate.domain.state import Actor
from stepgate.engine.spending import RunSpending, Submit
from stepgate.llm.protocol import CostSource, ModelAnswer, ModelRequest, ModelRouter, OnText, Usage, request_hash
from stepgate.llm.recorded import body_of
from stepgate.storage.attachments import Attachments, ModelCallRow, SettledCallRow

OK = "ok"
MAX_ATTEMPTS = 3
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0
"""A longer hint than this is left to the step's own retry, which holds no worker."""

Keep = Callable[[bytes], str]
"""Stores a body durably and gives its sha256; blocks."""

log = structlog.get_logger(__name__)


class JournaledModels:
    """The router, for one step: each attempt is one row and two facts, `model.called` and `model.settled`.

    `on_text` is told what arrives as it comes, for people who watch: only the whole answer is ever recorded.
    """

    def __init__(
        self,
        router: ModelRouter,
        spending: RunSpending,
        actor: Actor,
        step_id: StepId,
        submit: Submit,
        keep: Keep,
        on_text: OnText | None = None,
    ) -> None:
        self._router = router
        self._spending = spending
        self._actor = actor
        self._step_id = step_id
        self._submit = submit
        self._keep = keep
        self._on_text = on_text

    async def complete(self, request: ModelRequest) -> ModelAnswer:
        """The first answer; a failure worth retrying is retried here while its wait is short."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            if (blocked := self._router.blocked()) is not None:
                raise blocked
            try:
                return await self._attempt(request)
            except ModelFailure as failure:
                wait_s = failure.retry_after_s or FIRST_WAIT_S * 2 ** (attempt - 1)
                last = attempt >= min(MAX_ATTEMPTS, failure.most_attempts or MAX_ATTEMPTS)
                if last and failure.most_attempts is not None:
                    failure.retryable = False
                if not failure.retryable or last or wait_s > LONGEST_WAIT_S:
                    raise
                self._tell_again()
                await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    def _tell_again(self) -> None:
        if self._on_text is not None:
            self._on_text("\n[asked again]\n")

    async def _attempt(self, request: ModelRequest) -> ModelAnswer:
        call = _Call(CallId(new_id()), self._router.asks(request), request)
        beginning = asyncio.ensure_future(self._begin(call))
        try:
            await asyncio.shield(beginning)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):  # whatever it was, the step was stopped
                await asyncio.shield(self._take_back(call, beginning))
            raise
        try:
            answer = await self._router.complete(call.request, self._on_text)
        except StepgateError as failure:
            await self._settle_failure(call, failure)
            raise
        except asyncio.CancelledError:
            lost = ModelFailure("the call was stopped before its answer", code="interrupted")
            await asyncio.shield(self._settle_failure(call, lost))
            raise
        except Exception as error:
            fault = ModelFailure(f"{type(error).__name__}: {error}", code="internal")
            await self._settle_failure(call, fault)
            raise
        return await asyncio.shield(self._finish(call, answer))

    async def _finish(self, call: "_Call", answer: ModelAnswer) -> ModelAnswer:
        """What came back is recorded, also where the step is stopped at this very moment."""
        priced = await self._spending.priced(answer, call.model)
        await self._settle(call, priced, OK)
        return priced

    async def _begin(self, call: "_Call") -> None:
        """The call is paid for and recorded, or neither; recorded as the question that it is, however it is bounded."""
        hash_ = request_hash(call.request)
        call.request, call.worst = await self._spending.hold(call.id, call.request, call.model)
        called = CallModel(self._actor, self._step_id, call.id, hash_, self._router.name, call.model, call.worst)
        try:
            await self._submit([called], Attachments(calls=[ModelCallRow(call.id)]))
        except Exception:
            await self._spending.release(call.id)
            raise

    async def _take_back(self, call: "_Call", beginning: "asyncio.Future[None]") -> None:
        await beginning
        never = ModelFailure("the call was stopped before it left", code="interrupted", billed=False)
        await self._settle_failure(call, never)

    async def _settle(self, call: "_Call", answer: ModelAnswer, status: str) -> None:
        kept = await self._kept(answer) if status == OK else None
        command = SettleModel(
            self._actor,
            self._step_id,
            call.id,
            status=status,
            model=answer.model,
            cost_usd=answer.cost_usd,
            cost_source=answer.cost_source.value,
            tokens=asdict(answer.usage),
            latency_ms=answer.latency_ms,
            answer_sha256=kept,
        )
        await self._settled(call, command, _details(call.id, answer))

    async def _kept(self, answer: ModelAnswer) -> str | None:
        """None where it cannot be stored: what was paid is recorded all the same, only a replay will miss it."""
        try:
            return await asyncio.to_thread(self._keep, body_of(answer))
        except (OSError, StepgateError) as error:
            log.warning("a model's answer could not be kept", step_id=self._step_id, error=str(error))
            return None

    async def _settle_failure(self, call: "_Call", failure: StepgateError) -> None:
        """An answer that was no use has its real cost; a call that did no work costs nothing; else it is unknown."""
        if isinstance(failure, ModelFailure) and isinstance(failure.answer, ModelAnswer):
            answer = await self._spending.priced(failure.answer, call.model)
            await self._settle(call, answer, failure.reason_code)
            return
        unbilled = not isinstance(failure, ModelFailure) or failure.billed is False
        command = SettleModel(
            self._actor,
            self._step_id,
            call.id,
            status=failure.reason_code,
            model=None,
            cost_usd=Decimal(0) if unbilled else None,
            cost_source=UNBILLED if unbilled else CostSource.UNKNOWN.value,
            tokens=asdict(Usage()),
            latency_ms=None,
        )
        await self._settled(call, command, SettledCallRow(call.id, http_status=getattr(failure, "status", None)))

    async def _settled(self, call: "_Call", command: SettleModel, details: SettledCallRow) -> None:
        await self._submit([command], Attachments(settled_calls=[details]))
        await self._spending.settle(call.id, call.worst, command)


@dataclass(slots=True)
class _Call:
    """One attempt: `request` as it leaves, and what it may cost at most, where a budget is watched."""

    id: CallId
    model: str | None
    request: ModelRequest
    worst: Charge | None = None


def _details(call_id: CallId, answer: ModelAnswer) -> SettledCallRow:
    ids = {
        "request": answer.request_id,
        "upstream": answer.upstream_id,
        "response": answer.response_id,
        "fingerprint": answer.fingerprint,
    }
    return SettledCallRow(
        call_id,
        provider=answer.provider,
        first_token_ms=answer.ttft_ms,
        finish_reason=answer.finish_reason,
        http_status=answer.status,
        request_ids=canonical.dumps({name: value for name, value in ids.items() if value is not None}).decode(),
        cache_hit=answer.cache_hit,
        retries=answer.router_retries,
        avoided_cost_usd=answer.avoided_cost_usd,
        estimated_savings_usd=answer.estimated_savings_usd,
        difficulty_tag=answer.difficulty_tag,
    )
