"""Model calls that survive a crash: recorded before they leave, settled when they are back, retried as they say."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from decimal import Decimal

from stepgate.domain import canonical
from stepgate.domain.commands import CallModel, Command, SettleModel
from stepgate.domain.errors import ModelFailure, StepgateError
from stepgate.domain.events import Event
from stepgate.domain.ids import CallId, StepId, new_id
from stepgate.domain.state import Actor
from stepgate.llm.protocol import CostSource, ModelAnswer, ModelRequest, ModelRouter, Usage, request_hash
from stepgate.storage.attachments import Attachments, ModelCallRow, SettledCallRow

MAX_ATTEMPTS = 3
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0
"""A longer hint than this is left to the step's own retry, which holds no worker."""

Submit = Callable[[Sequence[Command], Attachments | None], Awaitable[tuple[Event, ...]]]


class JournaledModels:
    """The router, for one step: each attempt is one row and two facts, `model.called` and `model.settled`."""

    def __init__(self, router: ModelRouter, actor: Actor, step_id: StepId, submit: Submit) -> None:
        self._router = router
        self._actor = actor
        self._step_id = step_id
        self._submit = submit

    async def complete(self, request: ModelRequest) -> ModelAnswer:
        """The first answer; a failure worth retrying is retried here while its wait is short."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return await self._attempt(request)
            except ModelFailure as failure:
                wait_s = failure.retry_after_s or FIRST_WAIT_S * 2 ** (attempt - 1)
                if not failure.retryable or attempt == MAX_ATTEMPTS or wait_s > LONGEST_WAIT_S:
                    raise
                await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    async def _attempt(self, request: ModelRequest) -> ModelAnswer:
        call_id = CallId(new_id())
        hash_ = request_hash(request)
        model = request.model or self._router.default_model
        called = CallModel(self._actor, self._step_id, call_id, hash_, self._router.name, model)
        await self._submit([called], Attachments(calls=[ModelCallRow(call_id)]))
        try:
            answer = await self._router.complete(request)
        except StepgateError as failure:
            await self._settle_failure(call_id, failure)
            raise
        except asyncio.CancelledError:
            lost = ModelFailure("the call was stopped before its answer", code="interrupted")
            await asyncio.shield(self._settle_failure(call_id, lost))
            raise
        except Exception as error:
            fault = ModelFailure(f"{type(error).__name__}: {error}", code="internal")
            await self._settle_failure(call_id, fault)
            raise
        await self._settle(call_id, answer, "ok")
        return answer

    async def _settle(self, call_id: CallId, answer: ModelAnswer, status: str) -> None:
        command = SettleModel(
            self._actor,
            self._step_id,
            call_id,
            status=status,
            model=answer.model,
            cost_usd=answer.cost_usd,
            cost_source=answer.cost_source.value,
            tokens=asdict(answer.usage),
            latency_ms=answer.latency_ms,
        )
        await self._submit([command], Attachments(settled_calls=[_details(call_id, answer)]))

    async def _settle_failure(self, call_id: CallId, failure: StepgateError) -> None:
        """An answer that was no use has its real cost; a call that did no work costs nothing; else it is unknown."""
        if isinstance(failure, ModelFailure) and isinstance(failure.answer, ModelAnswer):
            await self._settle(call_id, failure.answer, failure.reason_code)
            return
        unbilled = not isinstance(failure, ModelFailure) or failure.billed is False
        command = SettleModel(
            self._actor,
            self._step_id,
            call_id,
            status=failure.reason_code,
            model=None,
            cost_usd=Decimal(0) if unbilled else None,
            cost_source="unbilled" if unbilled else CostSource.UNKNOWN.value,
            tokens=asdict(Usage()),
            latency_ms=None,
        )
        row = SettledCallRow(call_id, http_status=getattr(failure, "status", None))
        await self._submit([command], Attachments(settled_calls=[row]))


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
    )
