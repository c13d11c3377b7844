"""Costs as people may look at them: of a run, and over runs."""

from typing import Any

from stepgate.domain import canonical, forking, money
from stepgate.domain.errors import InvalidValue, NotFound
from stepgate.domain.ids import RunId
from stepgate.engine.cost_views import Cost, Costs, GroupCost, ModelCost, SourceCost, StepCost, UnknownCall, Usage
from stepgate.engine.shapes import moment, tokens, total
from stepgate.engine.views import Tokens
from stepgate.storage.database import Database
from stepgate.storage.reads import costs as rows
from stepgate.storage.reads import runs as run_rows
from stepgate.storage.reads.costs import CostFilter, Group
from stepgate.storage.reads.snapshot import Row, snapshot

__all__ = ["CostFilter", "CostQueries", "Group"]

MOST_GROUPS = 1000
MOST_NAMED = 100


class CostQueries:
    """Reads of one database; nothing here changes anything."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_run(self, run_id: RunId) -> Cost:
        """By step, model and source; raises NotFound."""
        async with snapshot(self._database) as connection:
            run = await run_rows.get(connection, run_id)
            if run is None:
                raise NotFound("there is no run of this id", field="run_id")
            by_step = await rows.by_step(connection, run_id)
            by_model = await rows.by_model(connection, run_id)
            by_source = await rows.by_source(connection, run_id)
            unknown = await rows.unknown(connection, run_id, MOST_NAMED)
        return Cost(
            run_id=run["id"],
            **_usage(run),
            **_added_up(by_source),
            inherited=_inherited(run["origin"]),
            by_step=[_step(row) for row in by_step],
            by_model=[ModelCost(**_usage(row), **_savings(row), model=row["name"]) for row in by_model],
            by_source=[SourceCost(**_usage(row), **_savings(row), source=row["name"]) for row in by_source],
            unknown=[_unknown(row) for row in unknown],
        )

    async def over_runs(self, group: Group, label: str | None, wanted: CostFilter) -> Costs:
        """The dearest 1,000 groups, days by date; raises InvalidValue by field for a label that is missing or extra."""
        if (group is Group.LABEL) != (label is not None):
            what = "no label is named" if label is None else "a label is only for group_by=label"
            raise InvalidValue(what, field="label", fix="give group_by=label and label=<name> together")
        if label is not None:
            canonical.check_text(label, "label")
        async with snapshot(self._database) as connection:
            found = await rows.over_runs(connection, group, label, wanted, MOST_GROUPS)
        items = [GroupCost(**_usage(row), **_savings(row), name=row["name"], runs=row["runs"]) for row in found]
        return Costs(group_by=group.value, items=items)


def _inherited(origin: str | None) -> Usage | None:
    if origin is None:
        return None
    usage = forking.usage_from(canonical.loads(origin)["inherited"])
    return Usage(
        calls=usage.calls,
        unknown_calls=usage.unknown,
        known_cost_usd=money.text(usage.cost_usd),
        total_cost_usd=money.text(usage.total_usd),
        tokens=Tokens(input=usage.input, output=usage.output, cached=usage.cached, reasoning=usage.reasoning),
    )


def _unknown(row: Row) -> UnknownCall:
    return UnknownCall(
        call_id=row["id"],
        step_id=row["step_id"],
        key=row["key"],
        number=row["number"],
        model=row["model"],
        status=row["status"],
        called_at=moment(row["called_at"]) or "",
    )


def _step(row: Row) -> StepCost:
    return StepCost(
        **_usage(row),
        step_id=row["id"],
        key=row["key"],
        number=row["number"],
        cost_source=row["cost_source"],
        model=row["model"],
    )


def _usage(row: Row) -> dict[str, Any]:
    known, unknown = row["known_cost_usd"], row["unknown_cost_calls"]
    return {
        "calls": row["model_calls"],
        "unknown_calls": unknown,
        "known_cost_usd": money.text(known),
        "total_cost_usd": total(known, unknown),
        "tokens": tokens(row),
    }


def _savings(row: Row) -> dict[str, Any]:
    return {name: money.text(row[name]) for name in ("avoided_cost_usd", "estimated_savings_usd")}


def _added_up(found: list[Row]) -> dict[str, Any]:
    known = {
        name: [row[name] for row in found if row[name] is not None]
        for name in ("avoided_cost_usd", "estimated_savings_usd")
    }
    return {name: money.text(sum(amounts)) if amounts else None for name, amounts in known.items()}
