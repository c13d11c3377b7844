"""What stands between a step and a model that costs money: a worst case held before a call, the cost counted after."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import structlog

from stepgate.domain import budget
from stepgate.domain.budget import FREE, Alert, Charge
from stepgate.domain.commands import AlertBudget, Command, SettleModel
from stepgate.domain.errors import BudgetExhausted, DatabaseUnavailable
from stepgate.domain.events import Event
from stepgate.domain.ids import CallId
from stepgate.domain.state import Actor, StepState
from stepgate.llm.prices import Prices
from stepgate.llm.protocol import CostSource, ModelAnswer, ModelRequest
from stepgate.storage.attachments import Attachments
from stepgate.storage.entry import RunHandle
from stepgate.storage.holds import Hold, Holds, Left

log = structlog.get_logger(__name__)

Submit = Callable[[Sequence[Command], Attachments | None], Awaitable[tuple[Event, ...]]]
LOST = "lost"
"""The status of a call whose worker was lost with its answer."""
_NO_TOKENS = dict.fromkeys(("input", "output", "cached", "reasoning"))


class Spending:
    """One process's means. `free`: its router costs nothing, so there is nothing to hold.

    `most_output` bounds an answer, in tokens, where a budget is watched and the request has no bound of its own.
    """

    def __init__(self, holds: Holds, prices: Prices, most_output: int, *, free: bool = False) -> None:
        self.holds = holds
        self.prices = prices
        self.most_output = most_output
        self.free = free

    async def settle_left(self, left: Left) -> Sequence[Alert]:
        """Counts a call whose worker is gone: one that was made may have been billed. Alerts are to be journaled."""
        if not left.made:
            return await self.holds.settle(left.call_id, FREE)
        source = left.cost_source or CostSource.UNKNOWN.value
        spent = budget.charged(left.held, left.cost_usd, source, left.tokens)
        return await self.holds.settle(left.call_id, spent, unknown=left.cost_usd is None)

    async def sweep(self) -> None:
        """Counts what is left of runs that have come to rest: the database was away when their worker ended."""
        for left in await self.holds.stranded():
            await self.settle_left(left)

    async def priced(self, answer: ModelAnswer, asked: str | None) -> ModelAnswer:
        """With its cost by a table of prices, where the router says none and the table knows one."""
        if answer.cost_source is not CostSource.UNKNOWN:
            return answer
        cost = await asyncio.to_thread(self.prices.of, answer.model or asked, answer.usage)
        if cost is None and asked != answer.model:
            cost = await asyncio.to_thread(self.prices.of, asked, answer.usage)
        return answer if cost is None else replace(answer, cost_usd=cost, cost_source=CostSource.PRICED)


class RunSpending:
    """Of one claimed run: its own budget stands in its journal, those it shares with others stand beside it."""

    def __init__(self, spending: Spending, handle: RunHandle, actor: Actor, submit: Submit) -> None:
        self._spending = spending
        self._handle = handle
        self._actor = actor
        self._submit = submit

    async def hold(
        self, call_id: CallId, request: ModelRequest, model: str | None
    ) -> tuple[ModelRequest, Charge | None]:
        """The request as it may leave, and what it may cost at most; None where no budget is watched.

        Raises BudgetExhausted where it does not fit into a shared budget; the run's own is the journal's to refuse.
        """
        limited = self._handle.state.budget.limited
        if self._spending.free:
            return request, FREE if limited else None
        if not limited and not await self._spending.holds.any():
            return request, None
        most = request.max_output_tokens or self._spending.most_output
        worst = await asyncio.to_thread(self._spending.prices.worst, model, request, most)
        hold = await self._spending.holds.hold(self._handle.run_id, self._handle.epoch or 0, call_id, worst)
        await self._tell(call_id, hold.alerts)
        if hold.shortage is not None:
            raise _exhausted(hold)
        if not hold.budgets and not limited:
            return request, None
        return replace(request, max_output_tokens=most), worst

    async def priced(self, answer: ModelAnswer, asked: str | None) -> ModelAnswer:
        return await self._spending.priced(answer, asked)

    async def settle(self, call_id: CallId, worst: Charge | None, said: SettleModel) -> None:
        """What the call cost counts from now on in the place of what was held."""
        if worst is None or self._spending.free:
            return
        spent = budget.charged(worst, said.cost_usd, said.cost_source, said.tokens)
        try:
            alerts = await self._spending.holds.settle(call_id, spent, unknown=said.cost_usd is None)
            await self._tell(call_id, alerts)
        except DatabaseUnavailable as error:  # the answer is worth more; whoever drives the run next counts it
            log.warning("a call is not counted yet", run_id=self._handle.run_id, call_id=call_id, error=str(error))

    async def release(self, call_id: CallId) -> None:
        """The call was never made."""
        if not self._spending.free:
            await self._spending.holds.settle(call_id, FREE)

    async def recover(self) -> None:
        """Counts what earlier workers of the run left open: a call that was made may have been billed."""
        for step in [step for _, step in self._handle.state.steps.items() if step.open_calls]:
            await self._submit([self._lost(step, call_id) for call_id in step.open_calls], None)
        run_id, epoch, holds = self._handle.run_id, self._handle.epoch or 0, self._spending.holds
        for left in await holds.left(run_id, epoch):
            await self._tell(left.call_id, await self._spending.settle_left(left))
        for call_id, alert in await holds.untold(run_id, epoch):
            await self._tell(call_id, [alert])

    def _lost(self, step: StepState, call_id: str) -> SettleModel:
        unknown = CostSource.UNKNOWN.value
        return SettleModel(self._actor, step.id, call_id, LOST, None, None, unknown, _NO_TOKENS, None)

    async def _tell(self, call_id: CallId, alerts: Sequence[Alert]) -> None:
        if alerts:
            await self._submit([AlertBudget(self._actor, alert) for alert in alerts], None)
            await self._spending.holds.forget(call_id)


def _exhausted(hold: Hold) -> BudgetExhausted:
    shortage = hold.shortage
    if shortage is None:
        raise RuntimeError("the call fits")
    fix = shortage.fix if shortage.needed is None else "raise it (stepgate budgets set), then resume the run"
    return BudgetExhausted(
        f"{hold.name}: {shortage.message}",
        code=shortage.code,
        field=shortage.limit,
        fix=fix,
        details={"own": False},
    )
