"""Runs as they are now: one, a page of them, or those whose id begins with some text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import cast

from stepgate.domain.ids import RunId
from stepgate.domain.states import RunStatus
from stepgate.storage.reads.snapshot import Row, rows
from stepgate.storage.tables import runs, steps, workspaces

FIRST_ID = "00000000-0000-0000-0000-000000000000"
LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"

_SHOWN = [
    column
    for column in runs.c
    if column.name not in {"tenant_id", "plan", "head_hash", "lease_epoch", "lost_leases", "parent_step_id"}
]
# A run whose time has come moves as soon as a worker is free; one without a time waits for a person.
_MOVING = func.coalesce(runs.c.wake_at <= func.clock_timestamp(), literal_column("false")).label("moving")
# A private copy goes by the name of the workspace it was made of.
_place, _source = workspaces.alias("place"), workspaces.alias("source")
_PLACED = runs.join(_place, _place.c.id == runs.c.workspace_id).outerjoin(_source, _source.c.id == _place.c.source_id)
_SELECT = select(
    *_SHOWN,
    _MOVING,
    func.coalesce(_source.c.name, _place.c.name).label("workspace"),
    _place.c.root.label("place"),
).select_from(_PLACED)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which of a tenant's runs: those that fit everything given. `text` is looked for in goal and name, in any case."""

    tenant: str
    statuses: Sequence[RunStatus] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


async def get(connection: AsyncConnection, run_id: RunId) -> Row | None:
    """One run's row, with `moving`: whether it only waits for a worker; `place`: the folder that its steps work in."""
    found = await rows(connection, _SELECT.where(runs.c.id == run_id))
    return found[0] if found else None


async def page(connection: AsyncConnection, wanted: RunFilter, before: RunId | None, limit: int) -> list[Row]:
    """The newest first, those older than `before`."""
    query = _filtered(_SELECT, wanted)
    if before is not None:
        query = query.where(runs.c.id < before)
    return await rows(connection, query.order_by(runs.c.id.desc()).limit(limit))


def _filtered(query: Select[Any], wanted: RunFilter) -> Select[Any]:
    query = query.where(runs.c.tenant_id == wanted.tenant)
    if wanted.statuses:
        query = query.where(runs.c.status.in_([status.value for status in wanted.statuses]))
    if wanted.labels:
        query = query.where(runs.c.labels.contains(cast(dict(wanted.labels), JSONB)))
    if wanted.text is not None:
        found = or_(
            runs.c.goal.icontains(wanted.text, autoescape=True), runs.c.name.icontains(wanted.text, autoescape=True)
        )
        query = query.where(found)
    if wanted.created_after is not None:
        query = query.where(runs.c.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(runs.c.created_at < wanted.created_before)
    return query


async def beginning_with(connection: AsyncConnection, tenant: str, prefix: str, limit: int) -> list[RunId]:
    """Ids of a tenant's runs that begin with these characters of an id's text, the newest first."""
    low, high = prefix + FIRST_ID[len(prefix) :], prefix + LAST_ID[len(prefix) :]
    query = select(runs.c.id).where(runs.c.id.between(low, high), runs.c.tenant_id == tenant)
    query = query.order_by(runs.c.id.desc()).limit(limit)
    return [RunId(row["id"]) for row in await rows(connection, query)]


async def statuses(connection: AsyncConnection, run_id: RunId, step_id: str) -> tuple[str, str] | None:
    """The run's recorded status and the step's, in one look."""
    query = (
        select(runs.c.status, steps.c.status.label("step"))
        .join(steps, steps.c.run_id == runs.c.id)
        .where(runs.c.id == run_id, steps.c.id == step_id)
    )
    found = await rows(connection, query)
    return (found[0]["status"], found[0]["step"]) if found else None
