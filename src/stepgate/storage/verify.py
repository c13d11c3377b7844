"""Proves a run: its chain holds, its tables are what the chain adds up to, and every body is the one it names."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from hashlib import sha256
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import Table, Uuid
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from stepgate.domain import canonical, journal
from stepgate.domain.errors import NotFound, StepgateError
from stepgate.domain.evolve import fold
from stepgate.domain.ids import RunId
from stepgate.domain.journal import Head, Record, Verdict
from stepgate.domain.projection import (
    DecisionRow,
    RequestRow,
    RunFacts,
    RunRow,
    StepFacts,
    StepRow,
    decision_rows,
    request_row,
    run_facts,
    run_row,
    step_facts,
    step_row,
)
from stepgate.domain.state import RunState
from stepgate.domain.states import EventType, StepStatus
from stepgate.storage import tables
from stepgate.storage.columns import names
from stepgate.storage.database import Database

FETCH = 2000
MICROSECONDS = '(extract(epoch FROM "{}") * 1000000)::bigint'

_RUN = (*RunFacts._fields, *RunRow._fields[1:])
_STEP = (*StepFacts._fields, *StepRow._fields[2:])


class _Differs(Exception):
    """A row or a body is not what the journal says."""


async def verify(database: Database, run_id: RunId) -> Verdict:
    """Reads one moment of the database. A fault in the chain names its event, any other only says what differs.

    Raises NotFound.
    """
    async with _moment(database) as connection:
        row = await _one(connection, tables.runs, ("head_seq", "head_hash"), "id", run_id)
        records = [record async for record in _records(connection, run_id)]
        verdict = journal.verify(run_id, records, Head(row["head_seq"], row["head_hash"]))
        if not verdict.verified:
            return verdict
        try:
            state = fold(journal.parse(record.body) for record in records)
            await _compare(connection, state, records)
            await _compare_change_sets(connection, run_id, records)
            await _compare_calls(connection, run_id, records)
        except (_Differs, StepgateError, KeyError, TypeError, ValueError) as fault:
            return verdict._replace(verified=False, reason=str(fault))
        return verdict


@asynccontextmanager
async def _moment(database: Database) -> AsyncIterator[Any]:
    async with database.session() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection


async def _records(connection: Any, run_id: RunId) -> AsyncIterator[Record]:
    query = f"""
        SELECT run_id::text, seq, type, step_id::text, actor, {MICROSECONDS.format("at")}, body, prev_hash, hash
        FROM stepgate.events WHERE run_id = $1::uuid ORDER BY seq
    """
    async for row in connection.cursor(query, run_id, prefetch=FETCH):
        run, seq, type_, step_id, actor, at, body, prev_hash, hash_ = row
        yield Record(RunId(run), seq, type_, step_id, actor, at, body.encode(), prev_hash, hash_)


def _selected(table: Table, columns: Iterable[str]) -> str:
    return ", ".join(f'{_shown(table, column)} AS "{column}"' for column in columns)


def _shown(table: Table, column: str) -> str:
    match table.c[column].type:
        case Uuid() | JSONB():
            return f'"{column}"::text'
        case TIMESTAMP():
            return MICROSECONDS.format(column)
        case _:
            return f'"{column}"'


async def _rows(connection: Any, table: Table, columns: Sequence[str], run_id: RunId) -> list[Mapping[str, Any]]:
    query = f"SELECT {_selected(table, columns)} FROM {table.fullname} WHERE run_id = $1::uuid"
    found: list[Mapping[str, Any]] = await connection.fetch(query, run_id)
    return found


async def _one(connection: Any, table: Table, columns: Sequence[str], key: str, value: str) -> Mapping[str, Any]:
    query = f"SELECT {_selected(table, columns)} FROM {table.fullname} WHERE {names([key])} = $1::uuid"
    row: Mapping[str, Any] | None = await connection.fetchrow(query, value)
    if row is None:
        raise NotFound(f"there is no run {value}", field="run_id")
    return row


async def _compare(connection: Any, state: RunState, records: Iterable[Record]) -> None:
    run_id = state.info.id
    row = await _one(connection, tables.runs, _RUN, "id", run_id)
    _same("runs", run_id, tables.runs, _RUN, row, (*run_facts(state), *run_row(state)[1:]))
    await _compare_steps(connection, state, _kept_outputs(records))
    requests = {
        approval.request_id: (approval, request_row(run_id, step, approval))
        for step in state.steps.values()
        for approval in step.approvals
    }
    columns = (*RequestRow._fields, "rendering", "tenant_id")
    stored = await _rows(connection, tables.approval_requests, columns, run_id)
    _same_set("approval_requests", requests, [row["id"] for row in stored])
    for row in stored:
        _, expected = requests[row["id"]]
        _same("approval_requests", row["id"], tables.approval_requests, RequestRow._fields, row, expected)
        if row["tenant_id"] != state.info.tenant:  # the inbox goes by this copy
            raise _Differs(f"approval_requests {row['id']} is not of the run's tenant")
        _body("the rendering of request", row["id"], row["rendering"], row["rendering_sha256"])
    decided = (row for approval, _ in requests.values() for row in decision_rows(run_id, approval))
    decisions = {f"{row.request_id} {row.number}": row for row in decided}
    stored = await _rows(connection, tables.approval_decisions, DecisionRow._fields, run_id)
    answers = {f"{row['request_id']} {row['number']}": row for row in stored}
    _same_set("approval_decisions", decisions, list(answers))
    for key, row in answers.items():
        _same("approval_decisions", key, tables.approval_decisions, DecisionRow._fields, row, decisions[key])


def _kept_outputs(records: Iterable[Record]) -> Mapping[str, Mapping[str, Any]]:
    """What failed steps printed, by step, as far as their events name it: older journals do not."""
    kept = dict[str, Mapping[str, Any]]()
    for record in records:
        if record.type == EventType.STEP_FAILED and record.step_id is not None:
            output = journal.parse(record.body).data.get("output")
            if output is not None:
                kept[record.step_id] = output
    return kept


async def _compare_steps(connection: Any, state: RunState, kept: Mapping[str, Mapping[str, Any]]) -> None:
    run_id = state.info.id
    stored = await _rows(connection, tables.steps, (*_STEP, "input", "output"), run_id)
    _same_set("steps", state.steps, [row["id"] for row in stored])
    for row in stored:
        step = state.steps[row["id"]]
        expected = (*step_facts(run_id, step), *step_row(run_id, step)[2:])
        _same("steps", step.id, tables.steps, _STEP, row, expected)
        _body("the input of step", step.id, row["input"], row["input_sha256"], row["input_size"])
        if row["output_sha256"] is not None:
            _body("the output of step", step.id, row["output"], row["output_sha256"], row["output_size"])
        elif step.id in kept:
            named = kept[step.id]
            _body("the output of failed step", step.id, row["output"], named["sha256"], named["size"])
        elif row["output"] is not None and step.status is not StepStatus.FAILED:
            raise _Differs(f"step {step.id} has an output that no event names")
    needs = await _rows(connection, tables.step_needs, ("step_id", "position", "need_id"), run_id)
    found = {(row["step_id"], row["position"], row["need_id"]) for row in needs}
    expected_needs = {
        (step.id, position, need) for step in state.steps.values() for position, need in enumerate(step.spec.needs)
    }
    if found != expected_needs:
        raise _Differs("step_needs differs from the journal")


async def _compare_change_sets(connection: Any, run_id: RunId, records: Iterable[Record]) -> None:
    """Every set that was computed, file by file: undo and recovery go by these rows."""
    expected: dict[str, tuple[Any, ...]] = {}
    for record in records:
        if record.type not in (EventType.STEP_COMPUTED, EventType.STEP_COMPLETED):
            continue
        data = journal.parse(record.body).data
        if data["change_set_id"] is not None:
            done = record.type == EventType.STEP_COMPLETED
            applied = (record.seq, record.at) if done else (None, None)
            expected[data["change_set_id"]] = (record.step_id, data["change_set_digest"], *applied)
    columns = ("step_id", "digest", "applied_seq", "applied_at")
    stored = await _rows(connection, tables.change_sets, ("id", *columns), run_id)
    _same_set("change_sets", expected, [row["id"] for row in stored])
    for row in stored:
        _same("change_sets", row["id"], tables.change_sets, columns, row, expected[row["id"]])
    of_file = ("change_set_id", "position", "path", "op", "before", "after")
    files = defaultdict[str, list[Mapping[str, Any]]](list)
    for row in await _rows(connection, tables.change_set_files, of_file, run_id):
        files[row["change_set_id"]].append(row)
    _same_set("change_set_files", expected, list(files))
    for key, (_, digest, *_) in expected.items():
        if _digest_of(files[key]) != digest:
            raise _Differs(f"the files of change set {key} are not those whose digest was recorded")


_CALLED = ("step_id", "router", "request_hash", "model_asked", "called_at")
_SETTLED = (
    *("status", "model_used", "cost_usd", "cost_source", "tokens_input", "tokens_output", "tokens_cached"),
    *("tokens_reasoning", "latency_ms", "settled_at", "answer_sha256"),
)
_OPEN = ("called", *[None] * (len(_SETTLED) - 1))


async def _compare_calls(connection: Any, run_id: RunId, records: Iterable[Record]) -> None:
    """Every model call, as it was made and as it was settled: costs are added up from these rows."""
    called, settled = dict[str, tuple[Any, ...]](), dict[str, tuple[Any, ...]]()
    for record in records:
        if record.type == EventType.MODEL_CALLED:
            data = journal.parse(record.body).data
            asked = (record.step_id, data["router"], data["request_hash"], data["model"], record.at)
            called[data["call_id"]] = asked
        elif record.type == EventType.MODEL_SETTLED:
            data = journal.parse(record.body).data
            settled[data["call_id"]] = _settlement(data, record.at)
    columns = (*_CALLED, *_SETTLED)
    stored = await _rows(connection, tables.model_calls, ("id", *columns), run_id)
    _same_set("model_calls", called, [row["id"] for row in stored])
    for row in stored:
        expected = (*called[row["id"]], *settled.get(row["id"], _OPEN))
        _same("model_calls", row["id"], tables.model_calls, columns, row, expected)


def _settlement(data: Mapping[str, Any], at: int) -> tuple[Any, ...]:
    cost, tokens = data["cost_usd"], data["tokens"]
    counts = (tokens["input"], tokens["output"], tokens["cached"], tokens["reasoning"])
    known = None if cost is None else Decimal(cost)
    told = (data["status"], data["model"], known, data["cost_source"], *counts)
    return (*told, data["latency_ms"], at, data.get("answer_sha256"))


def _digest_of(files: Iterable[Mapping[str, Any]]) -> str:
    """As a change set's own digest: a folder's time is not in it, since work inside the folder moves it."""
    changes = []
    for row in sorted(files, key=itemgetter("position")):
        sides = {side: None if row[side] is None else orjson.loads(row[side]) for side in ("before", "after")}
        for node in sides.values():
            if node is not None and node["kind"] == "folder":
                del node["mtime_ns"]
        changes.append({"path": row["path"], "op": row["op"], **sides})
    return canonical.digest(canonical.dumps(changes))


def _same_set(table: str, expected: Iterable[Any], stored: Sequence[str]) -> None:
    missing, extra = set(expected) - set(stored), set(stored) - set(expected)
    if missing or extra:
        raise _Differs(f"{table}: {len(missing)} rows are missing and {len(extra)} are not in the journal")


def _same(
    name: str, key: str, table: Table, columns: Iterable[str], row: Mapping[str, Any], expected: Sequence[Any]
) -> None:
    for column, wanted in zip(columns, expected, strict=True):
        stored = row[column]
        if isinstance(table.c[column].type, JSONB):
            stored, wanted = orjson.loads(stored), orjson.loads(wanted)
        if stored != wanted:
            raise _Differs(f"{name} {key}: {column} is {stored!r}, the journal says {wanted!r}")


def _body(what: str, key: str, text: str | None, digest: str, size: int | None = None) -> None:
    body = None if text is None else text.encode()
    if body is None or sha256(body).hexdigest() != digest or (size is not None and len(body) != size):
        raise _Differs(f"{what} {key} is not the one whose digest was recorded")
