"""What model calls cost: by step, model and source of one run, and over many runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import cast

from stepgate.domain.ids import RunId
from stepgate.storage.reads.snapshot import Row, rows
from stepgate.storage.tables import model_calls, runs

_BY_STEP = text("""
SELECT id, key, number, model_calls, unknown_cost_calls, known_cost_usd, cost_source, model,
       tokens_input, tokens_output, tokens_cached, tokens_reasoning
FROM stepgate.steps WHERE run_id = :run_id AND model_calls > 0 ORDER BY number
""")
_UNKNOWN = text("""
SELECT call.id::text AS id, call.step_id::text AS step_id, step.key, step.number, call.status, call.called_at,
       coalesce(call.model_used, call.model_asked) AS model
FROM stepgate.model_calls AS call JOIN stepgate.steps AS step ON step.run_id = call.run_id AND step.id = call.step_id
WHERE call.run_id = :run_id AND call.cost_usd IS NULL ORDER BY call.called_at, call.id LIMIT :limit
""")
_MODEL = func.coalesce(model_calls.c.model_used, model_calls.c.model_asked)
_SUMS = (
    func.count().label("model_calls"),
    func.count().filter(model_calls.c.cost_usd.is_(None)).label("unknown_cost_calls"),
    func.coalesce(func.sum(model_calls.c.cost_usd), 0).label("known_cost_usd"),
    *(
        func.sum(model_calls.c[f"tokens_{kind}"]).cast(model_calls.c[f"tokens_{kind}"].type).label(f"tokens_{kind}")
        for kind in ("input", "output", "cached", "reasoning")
    ),
    func.sum(model_calls.c.avoided_cost_usd).label("avoided_cost_usd"),
    func.sum(model_calls.c.estimated_savings_usd).label("estimated_savings_usd"),
)


class Group(StrEnum):
    """What costs over many runs are summed by."""

    DAY = "day"
    MODEL = "model"
    LABEL = "label"
    REQUESTER = "requester"


@dataclass(frozen=True, slots=True)
class CostFilter:
    """Which calls: of a tenant's runs with all these labels, made in this time (`since` included, `until` not)."""

    tenant: str
    since: datetime | None = None
    until: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


async def by_step(connection: AsyncConnection, run_id: RunId) -> list[Row]:
    """Steps that called a model, in order of number."""
    return await rows(connection, _BY_STEP, {"run_id": run_id})


async def unknown(connection: AsyncConnection, run_id: RunId, limit: int) -> list[Row]:
    """The calls whose cost nobody knows, the first ones."""
    return await rows(connection, _UNKNOWN, {"run_id": run_id, "limit": limit})


async def by_model(connection: AsyncConnection, run_id: RunId) -> list[Row]:
    """By the model that answered, else the one asked for; `name` is None where neither is known."""
    return await _of_run(connection, run_id, _MODEL)


async def by_source(connection: AsyncConnection, run_id: RunId) -> list[Row]:
    """By where the cost was learned; `name` is None for calls that are not back."""
    return await _of_run(connection, run_id, model_calls.c.cost_source)


async def _of_run(connection: AsyncConnection, run_id: RunId, key: ColumnElement[Any]) -> list[Row]:
    name = key.label("name")
    query = select(name, *_SUMS).where(model_calls.c.run_id == run_id).group_by(name)
    return await rows(connection, query.order_by(name.asc().nulls_last()))


async def over_runs(
    connection: AsyncConnection, group: Group, label: str | None, wanted: CostFilter, limit: int
) -> Sequence[Row]:
    """A row for each group, the dearest first: `name` and how many `runs`, and the sums of their calls.

    `label` is the label's name where the group is `label`; days are of UTC, `YYYY-MM-DD`.
    """
    name = _key(group, label).label("name")
    query = (
        select(name, func.count(model_calls.c.run_id.distinct()).label("runs"), *_SUMS)
        .join_from(model_calls, runs, runs.c.id == model_calls.c.run_id)
        .where(and_(*_conditions(wanted)))
        .group_by(name)
    )
    order = name.desc().nulls_last() if group is Group.DAY else text("known_cost_usd DESC")
    return await rows(connection, query.order_by(order, name).limit(limit))


def _key(group: Group, label: str | None) -> ColumnElement[Any]:
    match group:
        case Group.DAY:
            return func.to_char(func.timezone("UTC", model_calls.c.called_at), "YYYY-MM-DD")
        case Group.MODEL:
            return _MODEL
        case Group.LABEL:
            return runs.c.labels.op("->>", return_type=Text())(label)
        case Group.REQUESTER:
            return runs.c.requester


def _conditions(wanted: CostFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [runs.c.tenant_id == wanted.tenant]
    if wanted.since is not None:
        found.append(model_calls.c.called_at >= wanted.since)
    if wanted.until is not None:
        found.append(model_calls.c.called_at < wanted.until)
    if wanted.labels:
        found.append(runs.c.labels.contains(cast(dict(wanted.labels), JSONB)))
    return found
