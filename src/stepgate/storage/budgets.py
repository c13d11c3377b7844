"""Budgets that runs share, as people set and see them; what calls do to them is in `holds`."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from stepgate.domain.ids import new_id
from stepgate.storage.database import Database
from stepgate.storage.holds import PERCENT, THRESHOLD

_COLUMNS = """id::text AS id, label_name, label_value, daily, cost_usd, tokens, day, spent_usd, spent_tokens, held_usd,
       held_tokens, unknown_calls, created_at, created_by"""
# A larger limit puts thresholds out of reach again, and people are told anew when they are reached.
_SET = f"""
INSERT INTO stepgate.budgets AS budget
    (id, tenant_id, label_name, label_value, daily, cost_usd, tokens, created_at, created_by)
VALUES ($1::uuid, $2, $3, $4, $5, $6, $7, clock_timestamp(), $8)
ON CONFLICT ON CONSTRAINT uq_budgets_scope DO UPDATE
SET cost_usd = excluded.cost_usd, tokens = excluded.tokens,
    told = least(budget.told, {THRESHOLD.format(percent=PERCENT.format(spent="budget", limit="excluded"))})
RETURNING {_COLUMNS}, (now() AT TIME ZONE 'UTC')::date AS today
"""
_PAGE = f"""
SELECT {_COLUMNS}, (now() AT TIME ZONE 'UTC')::date AS today FROM stepgate.budgets
WHERE tenant_id = $1 AND id > $2::uuid ORDER BY id LIMIT $3
"""
_REMOVE = f"""
DELETE FROM stepgate.budgets WHERE tenant_id = $1 AND id = $2::uuid
RETURNING {_COLUMNS}, (now() AT TIME ZONE 'UTC')::date AS today
"""
FIRST = "00000000-0000-0000-0000-000000000000"


class BudgetRow(NamedTuple):
    """One budget; the counts are of `day` where it is daily, which may be over: `today` is the database's."""

    id: str
    label_name: str
    label_value: str
    daily: bool
    cost_usd: Decimal | None
    tokens: int | None
    day: date | None
    spent_usd: Decimal
    spent_tokens: int
    held_usd: Decimal
    held_tokens: int
    unknown_calls: int
    created_at: datetime
    created_by: str
    today: date


class SharedBudgets:
    """The budgets of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(
        self, tenant: str, label: tuple[str, str], cost_usd: Decimal | None, tokens: int | None, by: str, *, daily: bool
    ) -> BudgetRow:
        """Makes the budget, or gives the one of this label and kind other limits; what is spent of it stays."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_SET, new_id(), tenant, *label, daily, cost_usd, tokens, by)
        return _row(row)

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[BudgetRow]:
        """The oldest first."""
        async with self._database.session() as connection:
            return [_row(row) for row in await connection.fetch(_PAGE, tenant, after, limit)]

    async def remove(self, tenant: str, budget_id: str) -> BudgetRow | None:
        """None where there is no such budget."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_REMOVE, tenant, budget_id)
        return None if row is None else _row(row)


def _row(row: Any) -> BudgetRow:
    return BudgetRow(**dict(row))
