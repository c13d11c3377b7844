"""Model calls that survive a crash: recorded before they leave, settled when they are back, retried as they say."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from stepgate.domain.commands import CallModel, Command, SettleModel
from stepgate.domain.errors import ModelFailure
from stepgate.domain.events import Event
from stepgate.domain.ids import CallId, StepId, new_id
from stepgate.domain.state import Actor
from stepgate.llm.protocol import ModelAnswer, ModelRequest, ModelRouter, request_hash
from stepgate.storage.committer import Attachments, ModelCallRow, SettledCallRow

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
                return await self._attempt(request, attempt)
            except ModelFailure as failure:
                wait_s = failure.retry_after_s or FIRST_WAIT_S * 2 ** (attempt - 1)
                if not failure.retryable or attempt == MAX_ATTEMPTS or wait_s > LONGEST_WAIT_S:
                    raise
                await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    async def _attempt(self, request: ModelRequest, attempt: int) -> ModelAnswer:
        call_id = CallId(new_id())
        hash_ = request_hash(request)
        model = request.model or self._router.default_model
        row = ModelCallRow(call_id, self._step_id, attempt, self._router.name, hash_, model)
        called = CallModel(self._actor, self._step_id, call_id, hash_, self._router.name, model)
        await self._submit([called], Attachments(calls=[row]))
        try:
            answer = await self._router.complete(request)
        except ModelFailure as failure:
            await self._settle_failure(call_id, failure)
            raise
        except asyncio.CancelledError:
            lost = ModelFailure("the call was stopped before its answer", code="interrupted", retryable=True)
            await asyncio.shield(self._settle_failure(call_id, lost))
            raise
        await self._settle(call_id, answer)
        return answer

    async def _settle(self, call_id: CallId, answer: ModelAnswer) -> None:
        usage = answer.usage
        command = SettleModel(
            self._actor,
            self._step_id,
            call_id,
            status="ok",
            model=answer.model,
            cost_usd=answer.cost_usd,
            cost_source=answer.cost_source,
            tokens={
                "input": usage.input,
                "output": usage.output,
                "cached": usage.cached,
                "reasoning": usage.reasoning,
            },
            latency_ms=answer.latency_ms,
        )
        await self._submit([command], Attachments(settled_calls=[SettledCallRow.of(command, answer)]))

    async def _settle_failure(self, call_id: CallId, failure: ModelFailure) -> None:
        """What a failed call cost is unknown unless it was refused before any work."""
        command = SettleModel(
            self._actor,
            self._step_id,
            call_id,
            status=failure.reason_code,
            model=None,
            cost_usd=None,
            cost_source="unknown",
            tokens={"input": None, "output": None, "cached": None, "reasoning": None},
            latency_ms=None,
        )
        await self._submit([command], Attachments(settled_calls=[SettledCallRow.of(command, None)]))
