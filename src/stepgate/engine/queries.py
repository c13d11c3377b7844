"""Everything people may look at, for the API and the command line alike; nothing here changes anything."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidValue, NotFound, StepgateError
from stepgate.domain.ids import ChangeSetId, RunId, StepId
from stepgate.domain.state import ApprovalStatus
from stepgate.domain.states import CLOSED, RunStatus, StepStatus
from stepgate.engine import shapes, views
from stepgate.engine.places import ISOLATED
from stepgate.engine.standing import reasons_of
from stepgate.executors.registry import Registry
from stepgate.storage.change_sets import ChangeSets
from stepgate.storage.database import Database
from stepgate.storage.origins import Origins
from stepgate.storage.reads import approvals as approval_rows
from stepgate.storage.reads import journal as journal_rows
from stepgate.storage.reads import keys as key_rows
from stepgate.storage.reads import live as live_rows
from stepgate.storage.reads import queue as queue_rows
from stepgate.storage.reads import runs as run_rows
from stepgate.storage.reads import steps as step_rows
from stepgate.storage.reads.runs import RunFilter
from stepgate.storage.reads.snapshot import Row, Snapshot, snapshot
from stepgate.storage.verify import verify
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.diff import sections_of, unified
from stepgate.workspace.netundo import combine

__all__ = ["Idempotent", "Queries", "Queue", "RunFilter"]

FIRST_STEPS = 200
MOST = 200
INLINE_BYTES = 32 * 1024
"""Larger inputs, outputs and renderings are left out of lists."""
OUTPUT_OVER = CLOSED | {StepStatus.COMPUTED, StepStatus.NEEDS_REVIEW}
"""Step statuses in which no command of the step will print any more."""
ID_CHARS = 36
CANDIDATES = 5


@dataclass(frozen=True, slots=True)
class Queue:
    """What all workers share: those with a lease, runs that are due, and how long the first has waited."""

    workers: int
    due: int
    oldest_due_s: float | None


@dataclass(frozen=True, slots=True)
class Idempotent:
    """What was done under an idempotency key: to a run, or to the workspace `named`."""

    request_sha256: str
    run_id: RunId | None
    step_ids: Sequence[StepId]
    named: str | None


class Queries:
    """Reads of one database and its blobs. Each method raises NotFound for what is not there."""

    def __init__(self, database: Database, blobs: BlobStore, registry: Registry) -> None:
        self._database = database
        self._blobs = blobs
        self._registry = registry
        self._change_sets = ChangeSets(database)
        self._origins = Origins(database)

    # Runs

    async def resolve(self, tenant: str, name: str) -> RunId:
        """The tenant's run of this id or of the only id that begins so; raises InvalidValue where several do."""
        prefix = name.strip().lower()
        hyphens = all((char == "-") == (place in (8, 13, 18, 23)) for place, char in enumerate(prefix))
        if not prefix or len(prefix) > ID_CHARS or not hyphens or set(prefix) - set("0123456789abcdef-"):
            raise NotFound(f"there is no run {name!r}", field="run_id", fix="name it by its id, or its beginning")
        async with snapshot(self._database) as connection:
            found = await run_rows.beginning_with(connection, tenant, prefix, CANDIDATES)
        if not found:
            raise NotFound(f"there is no run {name!r}", field="run_id", fix="list the runs to see their ids")
        if len(found) > 1:
            raise InvalidValue(f"several runs begin with {name!r}", field="run_id", fix=f"one of: {', '.join(found)}")
        return found[0]

    async def runs(self, wanted: RunFilter, *, cursor: str | None = None, limit: int = 50) -> views.Page[views.Run]:
        """The newest first."""
        limit = _checked(limit)
        async with snapshot(self._database) as connection:
            before = None if cursor is None else RunId(_id_cursor(cursor))
            found = await run_rows.page(connection, wanted, before, limit + 1)
            shown = found[:limit]
            reasons = await reasons_of(connection, shown)
        items = [shapes.run(row, reasons[row["id"]]) for row in shown]
        return views.Page[views.Run](items=items, next_cursor=shown[-1]["id"] if len(found) > limit else None)

    async def run(self, run_id: RunId) -> views.RunDetail:
        """With its first 200 steps."""
        async with snapshot(self._database) as connection:
            row = await _run_row(connection, run_id)
            reasons = await reasons_of(connection, [row])
            steps = await _steps(connection, run_id, 0, FIRST_STEPS)
        origin = await self._origins.get(run_id) if row["workspace_mode"] == ISOLATED else None
        return shapes.run_detail(row, reasons[run_id], steps, origin)

    async def statuses(self, run_id: RunId, step_id: StepId) -> tuple[RunStatus, StepStatus]:
        """Of a run and one of its steps, at a moment: cheap enough to be asked often."""
        async with self._database.begin() as connection:
            found = await run_rows.statuses(connection, run_id, step_id)
        if found is None:
            raise _no_step(step_id)
        return RunStatus(found[0]), StepStatus(found[1])

    # Steps

    async def steps(self, run_id: RunId, *, cursor: str | None = None, limit: int = 50) -> views.Page[views.Step]:
        """In order of number."""
        return await self._steps_after(run_id, _number_cursor(cursor), _checked(limit))

    async def steps_from(self, run_id: RunId, first: StepId, *, count: int) -> views.Page[views.Step]:
        """A step and those after it, `count` of them or the most that a page holds."""
        async with snapshot(self._database) as connection:
            number = await step_rows.number(connection, run_id, first)
        if number is None:
            raise _no_step(first)
        return await self._steps_after(run_id, number - 1, min(count, MOST), last=number - 1 + count)

    async def _steps_after(
        self, run_id: RunId, after: int, limit: int, last: int | None = None
    ) -> views.Page[views.Step]:
        async with snapshot(self._database) as connection:
            await _run_row(connection, run_id)
            found = await _steps(connection, run_id, after, limit + 1)
        shown = [step for step in found[:limit] if last is None or step.number <= last]
        more = len(found) > limit and (last is None or shown[-1].number < last)
        return views.Page[views.Step](items=shown, next_cursor=str(shown[-1].number) if more else None)

    async def step_id(self, run_id: RunId, name: str) -> StepId:
        """The step of this key, number or id."""
        canonical.check_text(name, "step")
        async with snapshot(self._database) as connection:
            await _run_row(connection, run_id)
            found = await step_rows.named(connection, run_id, name)
        if found is None:
            raise NotFound(f"the run has no step {name!r}", field="step_id", fix="name it by its key or number")
        return found

    async def step(self, run_id: RunId, step_id: StepId) -> views.Step:
        """One step with everything."""
        async with snapshot(self._database) as connection:
            row = await step_rows.get(connection, run_id, step_id)
            if row is None:
                raise _no_step(step_id)
            needs = await step_rows.needs(connection, run_id, [step_id])
        return shapes.step(row, needs.get(step_id, ()))

    async def output(self, run_id: RunId, step_id: StepId) -> views.Output:
        """The recorded output; of what a failed step printed only its event says the digest."""
        async with snapshot(self._database) as connection:
            row = await step_rows.output(connection, run_id, step_id)
        if row is None:
            raise _no_step(step_id)
        if row["output"] is None:
            raise NotFound(f"the step has no output (it is {row['status']})", code="no_output", field="step_id")
        return views.Output(
            run_id=run_id,
            step_id=step_id,
            output=canonical.loads(row["output"]),
            output_sha256=row["output_sha256"],
            output_size=row["output_size"],
        )

    async def live_output(self, run_id: RunId, step_id: StepId, after: int) -> views.LiveOutput:
        """What its command has printed since `after`, as far as that is still kept; cheap enough to be asked often."""
        async with snapshot(self._database) as connection:
            status = await live_rows.status(connection, run_id, step_id)
            if status is None:
                raise _no_step(step_id)
            found = await live_rows.chunks(connection, run_id, step_id, after, MOST)
        ended = status in OUTPUT_OVER and len(found) < MOST
        items = [shapes.live_chunk(row) for row in found]
        return views.LiveOutput(items=items, next=items[-1].seq if items else after, ended=ended)

    async def diff(self, run_id: RunId, step_id: StepId | None = None) -> views.Diff:
        """What a step changed (also if it is not applied yet), or all that the run applied, as one net change."""
        if step_id is not None:
            step = await self.step(run_id, step_id)
            change_set = None
            if step.change_set_id is not None:
                change_set = ChangeSet.from_json(await self._change_sets.body(ChangeSetId(step.change_set_id)))
            applied = step.status is StepStatus.COMPLETED and change_set is not None
        else:
            async with snapshot(self._database) as connection:
                await _run_row(connection, run_id)
            rows = await self._change_sets.applied(run_id)
            change_set = combine([ChangeSet.from_json(row.body) for row in rows])
            applied = True
        change_set = change_set or ChangeSet.of([])
        moved = [(source.path, change.path) for change, source in sections_of(change_set) if source is not None]
        return views.Diff(
            run_id=run_id,
            step_id=step_id,
            applied=applied,
            files=[change.to_json() for change in change_set.changes],
            renames=[views.Rename(source=source, target=target) for source, target in moved],
            cannot_undo=list(change_set.cannot_undo),
            diff=await asyncio.to_thread(unified, change_set, self._blobs),
        )

    # Approvals, journal

    async def approvals(
        self, tenant: str, status: ApprovalStatus = ApprovalStatus.OPEN, *, cursor: str | None = None, limit: int = 50
    ) -> views.Page[views.Approval]:
        """The oldest first, over all runs of a tenant."""
        limit = _checked(limit)
        after = None if cursor is None else _id_cursor(cursor)
        async with snapshot(self._database) as connection:
            found = await approval_rows.page(connection, tenant, status.value, after, limit + 1)
        items = [shapes.approval(row) for row in found[:limit]]
        return views.Page[views.Approval](items=items, next_cursor=items[-1].request_id if len(found) > limit else None)

    async def approval(self, tenant: str, request_id: str) -> views.Approval:
        """One question of a tenant, with what became of it."""
        async with snapshot(self._database) as connection:
            row = await approval_rows.get(connection, tenant, request_id)
        if row is None:
            raise NotFound(f"there is no approval {request_id}", field="request_id", fix="list the approvals")
        return shapes.approval(row)

    async def events(self, run_id: RunId, *, cursor: str | None = None, limit: int = 50) -> views.Page[views.Event]:
        """From the first one on."""
        limit = _checked(limit)
        async with snapshot(self._database) as connection:
            await _run_row(connection, run_id)
            found = await journal_rows.events(connection, run_id, _number_cursor(cursor), limit + 1)
        items = [shapes.event(row) for row in found[:limit]]
        return views.Page[views.Event](items=items, next_cursor=str(items[-1].seq) if len(found) > limit else None)

    async def verify(self, run_id: RunId) -> views.Verification:
        """Whether the journal holds, and whether the tables are what it adds up to."""
        verdict = await verify(self._database, run_id)
        return views.Verification(
            run_id=run_id,
            verified=verdict.verified,
            events=verdict.events,
            head_hash=verdict.head_hash.hex(),
            first_bad_seq=verdict.first_bad_seq,
            reason=verdict.reason,
        )

    # Everything else

    def step_types(self) -> list[views.StepTypeView]:
        """What plans may use."""
        return [views.StepTypeView(**described) for described in self._registry.describe()]

    async def queue(self) -> Queue:
        """How much work waits."""
        async with snapshot(self._database) as connection:
            row = await queue_rows.queue(connection)
        return Queue(row["workers"], row["due"], row["oldest_due_s"])

    async def database_health(self) -> views.DatabaseHealth:
        """Never raises: a database that does not answer is what it tells."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(5):
                version = await queue_rows.server_version(self._database)
        except TimeoutError:
            return views.DatabaseHealth(ok=False, error="no answer within 5 s")
        except StepgateError as error:
            return views.DatabaseHealth(ok=False, error=str(error))
        return views.DatabaseHealth(ok=True, version=version, latency_ms=round((time.monotonic() - began) * 1000))

    async def idempotent(self, tenant: str, scope: str, key: str) -> Idempotent | None:
        """What was done under a caller's key, None where nothing was."""
        async with snapshot(self._database) as connection:
            row = await key_rows.find(connection, tenant, scope, key)
        if row is None:
            return None
        step_ids = [StepId(step_id) for step_id in row["step_ids"] or ()]
        run_id = None if row["run_id"] is None else RunId(row["run_id"])
        return Idempotent(row["request_sha256"], run_id, step_ids, row["response"])


async def _run_row(connection: Snapshot, run_id: RunId) -> Row:
    row = await run_rows.get(connection, run_id)
    if row is None:
        raise NotFound(f"there is no run {run_id}", field="run_id", fix="list the runs to see their ids")
    return row


def _no_step(step_id: str) -> NotFound:
    return NotFound(f"the run has no step {step_id}", field="step_id", fix="list the run's steps to see their ids")


async def _steps(connection: Snapshot, run_id: RunId, after: int, limit: int) -> list[views.Step]:
    found = await step_rows.page(connection, run_id, after, limit, INLINE_BYTES)
    needs = await step_rows.needs(connection, run_id, [row["id"] for row in found]) if found else {}
    return [shapes.step(row, needs.get(row["id"], ())) for row in found]


def _checked(limit: int) -> int:
    if not 1 <= limit <= MOST:
        raise InvalidValue(f"must be between 1 and {MOST}", field="limit")
    return limit


def _id_cursor(cursor: str) -> str:
    """The id after which a page begins; raises InvalidValue for anything no list has given."""
    plain = cursor.replace("-", "")
    if len(cursor) != ID_CHARS or len(plain) != 32 or set(plain) - set("0123456789abcdef"):
        raise _bad_cursor()
    return cursor


def _number_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 9:
        raise _bad_cursor()
    return int(cursor)


def _bad_cursor() -> InvalidValue:
    return InvalidValue("is no cursor of this list", field="cursor", fix="send next_cursor of the page before")
