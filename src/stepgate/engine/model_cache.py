"""Answers of earlier runs to the very same question, where settings ask for that; a hit costs nothing and says so."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from decimal import Decimal

from stepgate.domain.budget import FREE
from stepgate.domain.commands import CallModel, SettleModel
from stepgate.domain.errors import StepgateError
from stepgate.domain.ids import CallId, StepId, new_id
from stepgate.domain.state import Actor, RunInfo
from stepgate.engine.model_calls import OK, JournaledModels, log
from stepgate.engine.spending import Submit
from stepgate.llm.protocol import CostSource, ModelAnswer, ModelRequest, ModelRouter, Usage, request_hash
from stepgate.llm.recorded import answer_from
from stepgate.storage.answers import Answers, Earlier, Shared
from stepgate.storage.attachments import Attachments, ModelCallRow, SettledCallRow

OFF, REQUESTER, LABEL = "off", "requester", "label:"


def shared(setting: str, info: RunInfo) -> Shared | None:
    """Whose answers a run may use, as `STEPGATE_MODEL_CACHE` says it; None: nobody's.

    A run without the label that is named shares nothing.
    """
    if setting == REQUESTER:
        return Shared(info.tenant, requester=info.requester)
    name = setting.removeprefix(LABEL)
    if name == setting or name not in info.labels:
        return None
    return Shared(info.tenant, label=(name, info.labels[name]))


class CachedModels:
    """The models of one step, behind the answers that were kept."""

    def __init__(
        self,
        models: JournaledModels,
        answers: Answers,
        wanted: Shared,
        load: Callable[[str], bytes],
        router: ModelRouter,
        actor: Actor,
        step_id: StepId,
        submit: Submit,
    ) -> None:
        self._models = models
        self._answers = answers
        self._wanted = wanted
        self._load = load
        self._router = router
        self._actor = actor
        self._step_id = step_id
        self._submit = submit

    async def complete(self, request: ModelRequest) -> ModelAnswer:
        """As `JournaledModels.complete`; a hit is journaled like a call, under the name of the router it came from."""
        asked, model = request_hash(request), self._router.asks(request)
        earlier = await self._answers.earlier(asked, self._router.name, model, self._wanted)
        if earlier is None:
            return await self._models.complete(request)
        try:
            body = await asyncio.to_thread(self._load, earlier.sha256)
        except StepgateError as error:
            log.warning("a cached answer cannot be read", step_id=self._step_id, error=str(error))
            return await self._models.complete(request)
        answer = answer_from(body, cost_usd=Decimal(0), cost_source=CostSource.CACHE, cache_hit=True)
        await self._record(asked, model, answer, earlier)
        return answer

    async def _record(self, asked: str, model: str | None, answer: ModelAnswer, earlier: Earlier) -> None:
        call_id = CallId(new_id())
        called = CallModel(self._actor, self._step_id, call_id, asked, self._router.name, model, FREE)
        settled = SettleModel(
            self._actor,
            self._step_id,
            call_id,
            status=OK,
            model=answer.model,
            cost_usd=Decimal(0),
            cost_source=CostSource.CACHE.value,
            tokens=asdict(Usage(0, 0, 0, 0)),
            latency_ms=0,
            answer_sha256=earlier.sha256,
        )
        row = SettledCallRow(
            call_id, finish_reason=answer.finish_reason, cache_hit=True, avoided_cost_usd=earlier.cost_usd
        )
        attachments = Attachments(calls=[ModelCallRow(call_id)], settled_calls=[row])
        await self._submit([called, settled], attachments)
