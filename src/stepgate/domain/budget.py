"""What may still be spent: a call's worst case is set aside before it, and replaced by what it cost after it."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from rpds import HashTrieMap

from stepgate.domain import money

THRESHOLDS = (50, 80, 100)
"""Percent of a budget at which people are told, each once."""
USED_UP = THRESHOLDS[-1]
UNBILLED = "unbilled"
"""The cost source of a call that did no work."""


class Charge(NamedTuple):
    """What one call costs, or may cost at most; `cost_usd` None where no price is known."""

    cost_usd: Decimal | None
    tokens: int

    def data(self) -> dict[str, Any]:
        """As events hold it."""
        return {"cost_usd": money.text(self.cost_usd), "tokens": self.tokens}


FREE = Charge(Decimal(0), 0)


def charge_from(data: Mapping[str, Any]) -> Charge:
    cost = data["cost_usd"]
    return Charge(None if cost is None else Decimal(cost), data["tokens"])


class Shortage(NamedTuple):
    """The limit that a call does not fit into. `needed` None: no price is known, so nobody knows whether it fits."""

    limit: str
    needed: Decimal | int | None
    left: Decimal | int

    @property
    def message(self) -> str:
        if self.needed is None:
            return "no price is known for the model, so its cost cannot be held to a budget"
        return f"the next call may take up to {self._amount(self.needed)}; {self._amount(self.left)} are left"

    @property
    def code(self) -> str:
        return "price_unknown" if self.needed is None else "budget_exhausted"

    @property
    def fix(self) -> str:
        if self.needed is None:
            return "name the model's price in STEPGATE_MODEL_PRICES, then resume the run"
        return "extend the budget, then resume the run"

    def _amount(self, value: Decimal | int) -> str:
        return f"${money.text(value)}" if isinstance(value, Decimal) else f"{value} tokens"


class Alert(NamedTuple):
    """That so much of a budget is spent; of a run's own where `budget_id` is None. `day` is of a daily one, in UTC."""

    percent: int
    cost_usd: Decimal | None
    tokens: int | None
    spent: Charge
    budget_id: str | None = None
    scope: str = "run"
    label: str | None = None
    day: str | None = None

    def data(self) -> dict[str, Any]:
        """As events hold it."""
        return {
            "scope": self.scope,
            "budget_id": self.budget_id,
            "label": self.label,
            "day": self.day,
            "percent": self.percent,
            "limit": {"cost_usd": money.text(self.cost_usd), "tokens": self.tokens},
            "spent": self.spent.data(),
        }


NO_CALLS: "HashTrieMap[str, Charge]" = HashTrieMap()
NO_ALERTS: "HashTrieMap[str, Mapping[str, Any]]" = HashTrieMap()


class Budget(NamedTuple):
    """A run's own: its limits with what was added to them, what is spent, and what open calls may still cost."""

    cost_usd: Decimal | None = None
    tokens: int | None = None
    spent: Charge = FREE
    open: "HashTrieMap[str, Charge]" = NO_CALLS
    told: int = 0
    """The highest threshold that people were told of."""
    shared: "HashTrieMap[str, Mapping[str, Any]]" = NO_ALERTS
    """What this run's journal has told of budgets that it shares with others: the latest of each."""

    @property
    def limited(self) -> bool:
        return self.cost_usd is not None or self.tokens is not None

    @property
    def held(self) -> Charge:
        """What open calls may cost, all together."""
        return total(self.open.values())

    @property
    def percent(self) -> int:
        """How much of the limit that is nearer to its end is spent."""
        return max(percent_of(self.spent.cost_usd, self.cost_usd), percent_of(self.spent.tokens, self.tokens))

    @property
    def taken(self) -> int:
        """How much of that limit is spent or held."""
        both = total((self.spent, self.held))
        return max(percent_of(both.cost_usd, self.cost_usd), percent_of(both.tokens, self.tokens))

    def data(self) -> dict[str, Any] | None:
        """What people see of it; None where the run has no limit."""
        if not self.limited:
            return None
        limit = {"cost_usd": money.text(self.cost_usd), "tokens": self.tokens}
        return {"limit": limit, "spent": self.spent.data(), "held": self.held.data(), "percent": self.percent}

    def alert(self, percent: int) -> Alert:
        return Alert(percent, self.cost_usd, self.tokens, self.spent)

    def shortage(self, worst: Charge | None) -> Shortage | None:
        """Why a call that may cost so much cannot be made; None where it can. `worst` None: nobody has said."""
        if not self.limited:
            return None
        held = self.held
        if self.cost_usd is not None:
            cost, left = worst and worst.cost_usd, self.cost_usd - (self.spent.cost_usd or 0) - (held.cost_usd or 0)
            if cost is None or cost > left:
                return Shortage("cost_usd", cost, max(left, Decimal(0)))
        if self.tokens is not None:
            tokens, room = worst and worst.tokens, self.tokens - self.spent.tokens - held.tokens
            if tokens is None or tokens > room:
                return Shortage("tokens", tokens, max(room, 0))
        return None


NO_BUDGET = Budget()


def of_limits(limits: Mapping[str, Any]) -> Budget:
    """The budget that a run begins with."""
    cost, tokens = limits.get("cost_usd"), limits.get("tokens")
    if cost is None and tokens is None:
        return NO_BUDGET
    return Budget(None if cost is None else Decimal(cost), tokens)


def account(budget: Budget, data: Mapping[str, Any]) -> Budget:
    """With a call, as `model.called` or `model.settled` tell of it, on the books."""
    if not budget.limited:
        return budget
    call_id = data["call_id"]
    if "cost_usd" not in data:
        worst = data.get("worst")
        return budget._replace(open=budget.open.insert(call_id, charge_from(worst))) if worst is not None else budget
    held = budget.open.get(call_id)
    if held is None:
        return budget
    cost = None if data["cost_usd"] is None else Decimal(data["cost_usd"])
    spent = total((budget.spent, charged(held, cost, data["cost_source"], data["tokens"])))
    return budget._replace(open=budget.open.remove(call_id), spent=spent)


def charged(held: Charge, cost: Decimal | None, source: str, tokens: Mapping[str, int | None]) -> Charge:
    """What counts for a call that ended: what is known, and where nobody knows, its worst case."""
    if source == UNBILLED:
        return FREE
    read, written = tokens["input"], tokens["output"]
    counted = held.tokens if read is None or written is None else read + written
    return Charge(held.cost_usd if cost is None else cost, counted)


def extended(budget: Budget, limit: Mapping[str, Any]) -> Budget:
    """With these limits: a threshold that they put out of reach is told of again when it is reached again."""
    cost = None if limit["cost_usd"] is None else Decimal(limit["cost_usd"])
    larger = budget._replace(cost_usd=cost, tokens=limit["tokens"])
    return larger._replace(told=max((one for one in THRESHOLDS if one <= larger.percent), default=0))


def tell(budget: Budget, data: Mapping[str, Any]) -> Budget:
    """With an alert, as events hold it, that was given."""
    if data["budget_id"] is None:
        return budget._replace(told=max(budget.told, data["percent"]))
    return budget._replace(shared=budget.shared.insert(data["budget_id"], data))


def was_told(budget: Budget, data: Mapping[str, Any]) -> bool:
    """Whether the run's journal has the alert already: a worker may have been lost after it wrote it."""
    last = budget.shared.get(data["budget_id"])
    same = last is not None and all(last[name] == data[name] for name in ("day", "limit"))
    return same and last is not None and last["percent"] >= data["percent"]


def crossed(told: int, percent: int) -> tuple[int, ...]:
    """The thresholds that were reached since."""
    return tuple(one for one in THRESHOLDS if told < one <= percent)


def total(charges: Iterable[Charge]) -> Charge:
    """Unknown prices count as nothing here: where they matter, no such call is made."""
    cost, tokens = Decimal(0), 0
    for charge in charges:
        cost += charge.cost_usd or 0
        tokens += charge.tokens
    return Charge(cost, tokens)


def percent_of(spent: Decimal | int | None, limit: Decimal | int | None) -> int:
    return int(100 * spent / limit) if spent and limit else 0
