"""The statements for everything rarer than a plain step: they write every table a decision can touch, at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from stepgate.domain.projection import (
    DecisionRow,
    RequestRow,
    RunFacts,
    RunRow,
    StepFacts,
    StepRow,
)
from stepgate.storage import tables
from stepgate.storage.attachments import SettledCallRow
from stepgate.storage.columns import Source, names

_RUN = RunRow._fields[1:]
_STEP = StepRow._fields[2:]

RUNS = Source(
    tables.runs,
    "given",
    ("id", *_RUN, "head_seq", "head_hash", "plan", "lease_epoch"),
    {"base": "int[]", "not_after": "bigint[]", "over": "bool[]", "advanced": "bool[]"},
)
NEW_RUNS = Source(tables.runs, "given", (*RunFacts._fields, *_RUN, "head_seq", "head_hash", "plan"))
EVENTS = Source(
    tables.events, "event", ("run_id", "seq", "type", "step_id", "actor", "at", "body", "prev_hash", "hash")
)
NEW_STEPS = Source(tables.steps, "fresh", (*StepFacts._fields, *_STEP, "input", "output", "tenant_id"))
NEEDS = Source(tables.step_needs, "need", ("run_id", "step_id", "position", "need_id"))
STEPS = Source(tables.steps, "given", (*StepRow._fields, "input", "output"))
NEW_REQUESTS = Source(tables.approval_requests, "fresh", (*RequestRow._fields, "rendering", "tenant_id"))
REQUESTS = Source(tables.approval_requests, "given", ("run_id", "id", "status", "reminded"))
DECISIONS = Source(tables.approval_decisions, "fresh", (*DecisionRow._fields, "tenant_id"))
CHANGE_SETS = Source(
    tables.change_sets,
    "fresh",
    ("run_id", "id", "step_id", "workspace_id", "digest", "created_at", "applied_seq", "applied_at", "tenant_id"),
)
FILES = Source(
    tables.change_set_files, "fresh", ("run_id", "change_set_id", "position", "path", "op", "before", "after")
)
APPLIED = Source(tables.change_sets, "given", ("run_id", "id", "applied_seq", "applied_at"))
_SAID = (
    "status",
    "model_used",
    "cost_usd",
    "cost_source",
    "tokens_input",
    "tokens_output",
    "tokens_cached",
    "tokens_reasoning",
    "latency_ms",
    "settled_at",
    "answer_sha256",
)
_DETAILS = SettledCallRow._fields[1:]
SETTLED = Source(tables.model_calls, "given", ("run_id", "id", *_SAID, *_DETAILS))
NEW_CALLS = Source(
    tables.model_calls,
    "fresh",
    (*SETTLED.columns, "step_id", "attempt", "router", "request_hash", "model_asked", "called_at", "tenant_id"),
)
WORKSPACES = Source(tables.workspaces, "given", ("id", "rev"), {"run_id": "uuid[]"})
IDEMPOTENCY = Source(
    tables.idempotency_keys,
    "fresh",
    ("run_id", "scope", "key", "request_sha256", "status", "response", "tenant_id", "created_at"),
)

NOTICES = Source(
    tables.webhook_deliveries, "notice", ("run_id", "id", "tenant_id", "seq", "type", "happened_at", "next_at")
)


@dataclass(slots=True)
class Rows:
    """What one batch writes, a list of rows for each source."""

    runs: list[Sequence[Any]] = field(default_factory=list)
    events: list[Sequence[Any]] = field(default_factory=list)
    new_steps: list[Sequence[Any]] = field(default_factory=list)
    needs: list[Sequence[Any]] = field(default_factory=list)
    steps: list[Sequence[Any]] = field(default_factory=list)
    new_requests: list[Sequence[Any]] = field(default_factory=list)
    requests: list[Sequence[Any]] = field(default_factory=list)
    decisions: list[Sequence[Any]] = field(default_factory=list)
    change_sets: list[Sequence[Any]] = field(default_factory=list)
    files: list[Sequence[Any]] = field(default_factory=list)
    applied: list[Sequence[Any]] = field(default_factory=list)
    new_calls: list[Sequence[Any]] = field(default_factory=list)
    settled: list[Sequence[Any]] = field(default_factory=list)
    workspaces: list[Sequence[Any]] = field(default_factory=list)
    idempotency: list[Sequence[Any]] = field(default_factory=list)
    notices: list[Sequence[Any]] = field(default_factory=list)


# The guard comes first and everything else follows it: a row is written only if its run was accepted.
_GUARD = """
accepted AS (
    UPDATE stepgate.runs AS run
    SET {assignments},
        plan = coalesce(given.plan, run.plan),
        lost_leases = CASE WHEN given.advanced THEN 0 ELSE run.lost_leases END,
        worker_id = CASE WHEN given.over THEN NULL ELSE run.worker_id END
    FROM {source}
    WHERE run.id = given.id AND run.head_seq = given.base
      AND run.lease_epoch = coalesce(given.lease_epoch, run.lease_epoch)
      AND (given.not_after IS NULL OR clock_timestamp() < to_timestamp(given.not_after::float8 / 1000000))
    RETURNING run.id
)"""
_CREATE = """
accepted AS (
    INSERT INTO stepgate.runs ({columns}) SELECT {values} FROM {source} RETURNING id
)"""
_ANSWER = """
SELECT coalesce(array_agg(id::text), '{}') AS ids, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
FROM accepted
"""


def _insert(source: Source, first: int) -> str:
    target = source.table.fullname
    return (
        f"INSERT INTO {target} ({names(source.columns)}) SELECT {source.values(source.columns)} "
        f"FROM {source.unnested(first)} WHERE ({source.alias}.run_id IN (SELECT id FROM accepted)) IS TRUE"
    )


def _notify(source: Source, first: int) -> str:
    """A row of the outbox for each webhook that wants the event: none where there is no webhook."""
    return (
        f"INSERT INTO {source.table.fullname} (webhook_id, {names(source.columns)}) "
        f"SELECT hook.id, {source.values(source.columns)} FROM {source.unnested(first)} JOIN stepgate.webhooks AS hook "
        "ON hook.tenant_id = notice.tenant_id AND notice.type = ANY(hook.events) AND hook.disabled_at IS NULL "
        "WHERE (notice.run_id IN (SELECT id FROM accepted)) IS TRUE"
    )


def _update(source: Source, first: int, keys: Iterable[str], changes: Mapping[str, str]) -> str:
    assignments = ", ".join(f'"{column}" = {value}' for column, value in changes.items())
    same = " AND ".join(f'stored."{key}" = {source.alias}."{key}"' for key in keys)
    return (
        f"UPDATE {source.table.fullname} AS stored SET {assignments} FROM {source.unnested(first)} "
        f"WHERE ({source.alias}.run_id IN (SELECT id FROM accepted)) IS TRUE AND {same}"
    )


def _changes(source: Source, columns: Iterable[str]) -> dict[str, str]:
    return {column: source.value(column) for column in columns}


def _kept(source: Source, columns: Iterable[str]) -> dict[str, str]:
    """What is not said leaves what is there."""
    return {column: f'coalesce({source.value(column)}, stored."{column}")' for column in columns}


def _part(name: str, source: Source, first: int) -> str:
    match name:
        case "runs":
            assignments = source.assignments((*_RUN, "head_seq", "head_hash"))
            return _GUARD.format(assignments=assignments, source=source.unnested(first))
        case "new_runs":
            columns = names(source.columns)
            return _CREATE.format(columns=columns, values=source.values(source.columns), source=source.unnested(first))
        case "steps":
            changes = _changes(source, _STEP) | _kept(source, ("input", "output"))
            statement = _update(source, first, ("run_id", "id"), changes)
        case "requests":
            statement = _update(source, first, ("run_id", "id"), _changes(source, ("status", "reminded")))
        case "applied":
            statement = _update(source, first, ("run_id", "id"), _changes(source, ("applied_seq", "applied_at")))
        case "settled":
            changes = _changes(source, _SAID) | _kept(source, _DETAILS)
            statement = _update(source, first, ("run_id", "id"), changes)
        case "workspaces":
            statement = _update(source, first, ("id",), _changes(source, ("rev",)))
        case "notices":
            statement = _notify(source, first)
        case _:
            statement = _insert(source, first)
    return f"\n{name}_written AS (\n{statement}\n)"


class Statement:
    """One statement over several sources; `parameters` lays their rows out in its order."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources
        parts, first = [], 1
        for name, source in sources.items():
            parts.append(_part(name, source, first))
            first += source.width
        self.text = "WITH" + ",".join(parts) + _ANSWER

    def parameters(self, rows: Rows) -> list[Any]:
        found: list[Any] = []
        for name, source in self._sources.items():
            found += source.arrays(_rows(rows, name))
        return found


_COMMON: Mapping[str, Source] = {
    "events": EVENTS,
    "new_steps": NEW_STEPS,
    "needs": NEEDS,
    "idempotency": IDEMPOTENCY,
}
_CHANGE: Mapping[str, Source] = {
    "runs": RUNS,
    **_COMMON,
    "steps": STEPS,
    "new_requests": NEW_REQUESTS,
    "requests": REQUESTS,
    "decisions": DECISIONS,
    "change_sets": CHANGE_SETS,
    "files": FILES,
    "applied": APPLIED,
    "new_calls": NEW_CALLS,
    "settled": SETTLED,
    "workspaces": WORKSPACES,
    "notices": NOTICES,
}
_CREATE_RUNS: Mapping[str, Source] = {"new_runs": NEW_RUNS, **_COMMON}


def change(rows: Rows) -> Statement:
    """Changes runs that exist."""
    return _fitting("runs", tuple(name for name in _CHANGE if _rows(rows, name)))


def create(rows: Rows) -> Statement:
    """Creates runs, with their first steps."""
    return _fitting("new_runs", tuple(name for name in _CREATE_RUNS if _rows(rows, name)))


@cache
def _fitting(first: str, present: tuple[str, ...]) -> Statement:
    """Only with the parts that have rows: each costs PostgreSQL as much with none, and decisions touch few tables."""
    sources = _CHANGE if first == "runs" else _CREATE_RUNS
    return Statement({name: sources[name] for name in present})


def _rows(rows: Rows, name: str) -> list[Sequence[Any]]:
    found: list[Sequence[Any]] = getattr(rows, "runs" if name == "new_runs" else name)
    return found
