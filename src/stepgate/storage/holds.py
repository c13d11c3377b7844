"""What calls hold of the budgets that runs share: in all of them or in none before a call, counted after it.

Whoever changes a budget's counts locks its row first, budgets in the order of their ids, so that no two calls wait for
each other. A day's counts begin anew with the first call of the day, by the database's clock in UTC; what was held on
another day belongs to that day and is not counted again. An alert stays noted with the call until a run's journal has
it, so that none is lost with a worker and none is told twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from stepgate.domain.budget import THRESHOLDS, USED_UP, Alert, Charge, Shortage
from stepgate.domain.errors import LeaseLost
from stepgate.domain.ids import CallId, RunId
from stepgate.storage.database import Database

_TODAY = "(now() AT TIME ZONE 'UTC')::date"
# Of the limit that is nearer to its end.
PERCENT = """floor(greatest(
    coalesce(100 * {spent}.spent_usd / nullif({limit}.cost_usd, 0), 0),
    coalesce(100 * {spent}.spent_tokens::numeric / nullif({limit}.tokens, 0), 0)
))"""
_ALL = f"unnest(ARRAY[{', '.join(map(str, THRESHOLDS))}]) AS one"
THRESHOLD = f"(SELECT coalesce(max(one), 0) FROM {_ALL} WHERE one <= {{percent}})"
_CROSSED = f"ARRAY(SELECT one FROM {_ALL} WHERE one > {{told}} AND one <= {{percent}})"

# The lock on the run's row makes this and a new lease of the run exclude each other: who takes the run over sees every
# hold of the worker before it.
_HOLD = f"""
WITH run AS MATERIALIZED (
    SELECT id, tenant_id, labels FROM stepgate.runs WHERE id = $1::uuid AND lease_epoch = $2 FOR SHARE
), standing AS MATERIALIZED (
    SELECT budget.* FROM stepgate.budgets AS budget, run
    WHERE budget.tenant_id = run.tenant_id
      AND (budget.label_name = '' OR run.labels ->> budget.label_name = budget.label_value)
    ORDER BY budget.id FOR UPDATE OF budget
), dated AS (
    -- Who waited for the lock may have come on the day before.
    SELECT *, CASE WHEN daily THEN greatest(day, {_TODAY}) END AS today FROM standing
), counted AS (
    SELECT id, daily, label_name, label_value, cost_usd, tokens, today,
           CASE WHEN kept THEN spent_usd ELSE 0 END AS spent_usd,
           CASE WHEN kept THEN spent_tokens ELSE 0 END AS spent_tokens,
           CASE WHEN kept THEN held_usd ELSE 0 END AS held_usd,
           CASE WHEN kept THEN held_tokens ELSE 0 END AS held_tokens,
           CASE WHEN kept THEN unknown_calls ELSE 0 END AS unknown_calls,
           CASE WHEN kept THEN told ELSE 0 END AS told
    FROM dated, LATERAL (SELECT day IS NOT DISTINCT FROM today AS kept) AS same
), judged AS MATERIALIZED (
    SELECT *,
           cost_usd IS NULL OR coalesce(spent_usd + held_usd + $4::numeric <= cost_usd, false) AS cost_fits,
           tokens IS NULL OR spent_tokens + held_tokens + $5::bigint <= tokens AS tokens_fit,
           cost_usd IS NULL OR $4::numeric IS NOT NULL AS priced
    FROM counted
), verdict AS MATERIALIZED (
    SELECT bool_and(cost_fits AND tokens_fit) AS held FROM judged
), ended AS MATERIALIZED (
    -- What is held counts here: a call does not fit although nothing may be spent yet.
    SELECT id, {_CROSSED.format(told="told", percent="percent")}
               || CASE WHEN told < {USED_UP} THEN ARRAY[{USED_UP}] ELSE ARRAY[]::int[] END AS alerts
    FROM judged,
         LATERAL (SELECT spent_usd + held_usd AS spent_usd, spent_tokens + held_tokens AS spent_tokens) AS taken,
         LATERAL (SELECT least({PERCENT.format(spent="taken", limit="judged")}, {USED_UP} - 1) AS percent) AS part
    WHERE priced AND NOT (cost_fits AND tokens_fit)
), changed AS (
    UPDATE stepgate.budgets AS budget
    SET day = judged.today, spent_usd = judged.spent_usd, spent_tokens = judged.spent_tokens,
        held_usd = judged.held_usd + CASE WHEN verdict.held THEN coalesce($4::numeric, 0) ELSE 0 END,
        held_tokens = judged.held_tokens + CASE WHEN verdict.held THEN $5::bigint ELSE 0 END,
        unknown_calls = judged.unknown_calls,
        told = CASE WHEN judged.id IN (SELECT id FROM ended) THEN 100 ELSE judged.told END
    FROM judged, verdict WHERE budget.id = judged.id
), noted AS (
    INSERT INTO stepgate.budget_holds (call_id, budget_id, run_id, epoch, day, cost_usd, tokens, alerts)
    SELECT $3::uuid, judged.id, $1::uuid, $2, judged.today, CASE WHEN verdict.held THEN $4::numeric END,
           CASE WHEN verdict.held THEN $5::bigint ELSE 0 END, ended.alerts
    FROM verdict, judged LEFT JOIN ended ON ended.id = judged.id
    WHERE verdict.held OR cardinality(ended.alerts) > 0
)
SELECT judged.id::text AS id, judged.daily, judged.label_name, judged.label_value, judged.cost_usd, judged.tokens,
       judged.today AS day, judged.spent_usd, judged.spent_tokens, judged.held_usd, judged.held_tokens,
       judged.cost_fits, judged.tokens_fit, judged.priced, coalesce(ended.alerts, ARRAY[]::int[]) AS alerts
FROM run LEFT JOIN judged ON true LEFT JOIN ended ON ended.id = judged.id ORDER BY judged.id
"""
# A hold is settled once, whoever comes: the worker that made it, or the one after it.
_SETTLE = f"""
WITH standing AS MATERIALIZED (
    SELECT budget.id, budget.daily, budget.label_name, budget.label_value, budget.cost_usd, budget.tokens, budget.day,
           budget.spent_usd, budget.spent_tokens, budget.told,
           hold.cost_usd AS hold_usd, hold.tokens AS hold_tokens,
           budget.day IS NOT DISTINCT FROM hold.day AS counts
    FROM stepgate.budgets AS budget JOIN stepgate.budget_holds AS hold ON hold.budget_id = budget.id
    WHERE hold.call_id = $1::uuid AND hold.alerts IS NULL
    ORDER BY budget.id FOR UPDATE OF budget, hold
), counted AS MATERIALIZED (
    SELECT id, daily, label_name, label_value, cost_usd, tokens, day, told, hold_usd, hold_tokens,
           spent_usd + coalesce($2::numeric, hold_usd, 0) AS spent_usd,
           spent_tokens + coalesce($3::bigint, hold_tokens) AS spent_tokens
    FROM standing WHERE counts
), reached AS MATERIALIZED (
    SELECT counted.*, {_CROSSED.format(told="told", percent="percent")} AS alerts
    FROM counted, LATERAL (SELECT {PERCENT.format(spent="counted", limit="counted")} AS percent) AS spent
), changed AS (
    UPDATE stepgate.budgets AS budget
    SET spent_usd = reached.spent_usd, spent_tokens = reached.spent_tokens,
        held_usd = budget.held_usd - coalesce(reached.hold_usd, 0),
        held_tokens = budget.held_tokens - reached.hold_tokens,
        unknown_calls = budget.unknown_calls + $4::int,
        told = coalesce(reached.alerts[cardinality(reached.alerts)], reached.told)
    FROM reached WHERE budget.id = reached.id
), kept AS (
    UPDATE stepgate.budget_holds AS hold SET cost_usd = NULL, tokens = 0, alerts = reached.alerts
    FROM reached WHERE hold.call_id = $1::uuid AND hold.budget_id = reached.id AND cardinality(reached.alerts) > 0
), gone AS (
    DELETE FROM stepgate.budget_holds AS hold USING standing
    WHERE hold.call_id = $1::uuid AND hold.budget_id = standing.id
      AND standing.id NOT IN (SELECT id FROM reached WHERE cardinality(alerts) > 0)
)
SELECT id::text AS id, daily, label_name, label_value, cost_usd, tokens, day, spent_usd, spent_tokens, alerts
FROM reached WHERE cardinality(alerts) > 0 ORDER BY id
"""
_FORGET = "DELETE FROM stepgate.budget_holds WHERE call_id = $1::uuid AND alerts IS NOT NULL"
# With the call as it was recorded, if it was.
_OPEN = """
SELECT hold.call_id::text AS call_id, call.id IS NOT NULL AS made, call.cost_usd, call.cost_source,
       call.tokens_input, call.tokens_output, max(hold.cost_usd) AS held_usd, max(hold.tokens) AS held_tokens
FROM stepgate.budget_holds AS hold
LEFT JOIN stepgate.model_calls AS call ON call.run_id = hold.run_id AND call.id = hold.call_id
WHERE hold.alerts IS NULL AND {which}
GROUP BY hold.call_id, call.run_id, call.id
"""
_LEFT = _OPEN.format(which="hold.run_id = $1::uuid AND hold.epoch < $2")
_STRANDED = _OPEN.format(
    which="""hold.run_id IN (
    SELECT id FROM stepgate.runs WHERE worker_id IS NULL AND wake_at IS NULL
)"""
)
_UNTOLD = """
SELECT hold.call_id::text AS call_id, hold.alerts, hold.day, budget.id::text AS id, budget.daily, budget.label_name,
       budget.label_value, budget.cost_usd, budget.tokens, budget.spent_usd, budget.spent_tokens
FROM stepgate.budget_holds AS hold JOIN stepgate.budgets AS budget ON budget.id = hold.budget_id
WHERE hold.run_id = $1::uuid AND hold.epoch < $2 AND hold.alerts IS NOT NULL ORDER BY hold.call_id, budget.id
"""


class Hold(NamedTuple):
    """What came of asking: how many `budgets` hold the call, or which cannot and why; alerts are to be journaled."""

    budgets: int
    alerts: Sequence[Alert]
    name: str = ""
    shortage: Shortage | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """A hold of a worker that is gone: `made` is whether the call was recorded, the rest is what is known of it."""

    call_id: CallId
    held: Charge
    made: bool
    cost_usd: Decimal | None
    cost_source: str | None
    tokens: Mapping[str, int | None]


class Holds:
    """The holds of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hold(self, run_id: RunId, epoch: int, call_id: CallId, worst: Charge) -> Hold:
        """Raises LeaseLost where the run is another worker's; then nothing is held."""
        async with self._database.session() as connection:
            rows = await connection.fetch(_HOLD, run_id, epoch, call_id, worst.cost_usd, worst.tokens)
        if not rows:
            raise LeaseLost("another worker drives the run now")
        found = [row for row in rows if row["id"] is not None]
        alerts = [alert for row in found for alert in _alerts(row)]
        for row in found:
            if (shortage := _shortage(row, worst)) is not None:
                return Hold(0, alerts, _name(row), shortage)
        return Hold(len(found), alerts)

    async def any(self) -> bool:
        """Whether runs share any budget at all."""
        async with self._database.session() as connection:
            return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM stepgate.budgets)"))

    async def settle(self, call_id: CallId, spent: Charge, *, unknown: bool = False) -> Sequence[Alert]:
        """Counts what the call cost in place of what was held; again: nothing. Alerts are to be journaled."""
        async with self._database.session() as connection:
            rows = await connection.fetch(_SETTLE, call_id, spent.cost_usd, spent.tokens, int(unknown))
        return [alert for row in rows for alert in _alerts(row)]

    async def forget(self, call_id: CallId) -> None:
        """The alerts of the call are journaled."""
        async with self._database.session() as connection:
            await connection.execute(_FORGET, call_id)

    async def left(self, run_id: RunId, epoch: int) -> Sequence[Left]:
        """What workers before this lease of the run left behind."""
        async with self._database.session() as connection:
            rows = await connection.fetch(_LEFT, run_id, epoch)
        return [_left(row) for row in rows]

    async def stranded(self) -> Sequence[Left]:
        """What is left of runs that nobody drives and no worker will look at again by itself."""
        async with self._database.session() as connection:
            return [_left(row) for row in await connection.fetch(_STRANDED)]

    async def untold(self, run_id: RunId, epoch: int) -> Sequence[tuple[CallId, Alert]]:
        """Alerts that workers before this lease of the run may not have journaled."""
        async with self._database.session() as connection:
            rows = await connection.fetch(_UNTOLD, run_id, epoch)
        return [(CallId(row["call_id"]), alert) for row in rows for alert in _alerts(row)]


def scope_of(row: Any) -> str:
    """`label`, `day`, or `label+day`."""
    return "+".join(name for name, there in (("label", row["label_name"]), ("day", row["daily"])) if there)


def label_of(row: Any) -> str | None:
    return f"{row['label_name']}={row['label_value']}" if row["label_name"] else None


def _name(row: Any) -> str:
    daily = "daily budget" if row["daily"] else "budget"
    return f"the {daily} of {label_of(row) or 'all runs'}"


def _alerts(row: Any) -> Sequence[Alert]:
    day = None if row["day"] is None else row["day"].isoformat()
    spent = Charge(row["spent_usd"], row["spent_tokens"])
    about = (row["cost_usd"], row["tokens"], spent, row["id"], scope_of(row), label_of(row), day)
    return [Alert(percent, *about) for percent in row["alerts"] or ()]


def _shortage(row: Any, worst: Charge) -> Shortage | None:
    if not row["cost_fits"]:
        left = row["cost_usd"] - row["spent_usd"] - row["held_usd"]
        return Shortage("cost_usd", worst.cost_usd, max(left, Decimal(0)))
    if not row["tokens_fit"]:
        return Shortage("tokens", worst.tokens, max(row["tokens"] - row["spent_tokens"] - row["held_tokens"], 0))
    return None


def _left(row: Any) -> Left:
    tokens = {"input": row["tokens_input"], "output": row["tokens_output"]}
    held = Charge(row["held_usd"], row["held_tokens"])
    return Left(CallId(row["call_id"]), held, row["made"], row["cost_usd"], row["cost_source"], tokens)
