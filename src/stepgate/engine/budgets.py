"""Budgets that runs share, as people set, look at and remove them."""

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum

from pydantic import Field

from stepgate.domain import money
from stepgate.domain.budget import percent_of
from stepgate.domain.errors import InvalidValue, NotFound
from stepgate.domain.identity import Principal
from stepgate.engine.planning import check_labels
from stepgate.engine.views import Amount, Id, Time, View
from stepgate.storage.budgets import FIRST, BudgetRow, SharedBudgets
from stepgate.storage.holds import label_of, scope_of


class Scope(StrEnum):
    """Which calls a budget is of."""

    LABEL = "label"
    """Of runs with the label, since the budget was made."""
    DAY = "day"
    """Of all runs, on each day (UTC)."""
    LABEL_DAY = "label+day"
    """Of runs with the label, on each day."""


class Budget(View):
    """What the calls of several runs may cost together, and how far they are."""

    id: Id
    scope: Scope
    label: str | None = Field(description="`name=value`; null: of all runs", examples=["team=blue"])
    limit: Amount
    day: str | None = Field(description="of a daily budget: the day, in UTC, that the counts are of")
    spent: Amount = Field(description="a call of unknown cost counts as its worst case")
    held: Amount = Field(description="what calls under way may take at most")
    unknown_calls: int = Field(description="calls of unknown cost in it")
    percent: int = Field(description="spent, of the limit that is nearer to its end")
    created_at: Time
    created_by: str


class Budgets:
    """The budgets of one installation, each tenant's its own."""

    def __init__(self, rows: SharedBudgets) -> None:
        self._rows = rows

    async def set(
        self, scope: Scope, label: str | None, cost_usd: Decimal | None, tokens: int | None, by: Principal
    ) -> Budget:
        """Makes the budget, or gives the one of this scope other limits; what is spent stays spent.

        Raises InvalidValue by field.
        """
        if cost_usd is None and tokens is None:
            raise InvalidValue("no limit is given", field="cost_usd", fix="give cost_usd, tokens or both")
        daily = scope is not Scope.LABEL
        row = await self._rows.set(by.tenant, _label(scope, label), cost_usd, tokens, by.id, daily=daily)
        return _shape(row)

    async def page(self, tenant: str, after: str | None, limit: int) -> Sequence[Budget]:
        """The oldest first."""
        return [_shape(row) for row in await self._rows.page(tenant, after or FIRST, limit)]

    async def remove(self, tenant: str, budget_id: str) -> Budget:
        """As it was. Raises NotFound."""
        row = await self._rows.remove(tenant, budget_id)
        if row is None:
            raise NotFound("there is no budget of this id", field="budget_id", fix="list the budgets to see their ids")
        return _shape(row)


def _label(scope: Scope, label: str | None) -> tuple[str, str]:
    """Name and value, both empty where the budget is of all runs."""
    if (scope is Scope.DAY) == (label is not None):
        what = "a budget of this scope names a label" if label is None else "a budget of all runs names no label"
        raise InvalidValue(what, field="label", fix="give label=name=value with the scopes label and label+day only")
    if label is None:
        return "", ""
    name, equals, value = label.partition("=")
    if not equals or not name:
        raise InvalidValue("is not of the form name=value", field="label", fix="such as team=blue")
    check_labels({name: value})
    return name, value


def _shape(row: BudgetRow) -> Budget:
    stale = row.daily and row.day != row.today
    spent, tokens = (Decimal(0), 0) if stale else (row.spent_usd, row.spent_tokens)
    held = (Decimal(0), 0) if stale else (row.held_usd, row.held_tokens)
    named = row._asdict()
    return Budget(
        id=row.id,
        scope=Scope(scope_of(named)),
        label=label_of(named),
        limit=Amount(cost_usd=money.text(row.cost_usd), tokens=row.tokens),
        day=row.today.isoformat() if row.daily else None,
        spent=Amount(cost_usd=money.text(spent), tokens=tokens),
        held=Amount(cost_usd=money.text(held[0]), tokens=held[1]),
        unknown_calls=0 if stale else row.unknown_calls,
        percent=max(percent_of(spent, row.cost_usd), percent_of(tokens, row.tokens)),
        created_at=row.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        created_by=row.created_by,
    )
