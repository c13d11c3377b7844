"""Who drives which run: a lease is one row for each worker, a claim takes runs that are due, a release puts one down.

Only these statements touch `runs.worker_id` and `runs.lease_epoch` (and the write that finishes a run).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog

from stepgate.domain.errors import LeaseLost
from stepgate.domain.ids import RunId, StepId, WorkerId
from stepgate.domain.journal import GENESIS, Head
from stepgate.domain.states import CLOSED
from stepgate.storage import chains
from stepgate.storage.database import Database
from stepgate.storage.entry import RunHandle
from stepgate.storage.errors import is_lost, translated
from stepgate.storage.live import FORGET_UNDRIVEN

log = structlog.get_logger(__name__)

BEAT_TIMEOUT_S = 10.0
SET_ASIDE_S = 3600.0

# Each pool is read through the partial index in its order; SKIP LOCKED lets claimants pass each other, and the shared
# lock on the worker's row makes a claim and the end of its lease exclude each other. What is due was written by a
# clock that may run some milliseconds ahead of this one.
CLAIM = """
WITH alive AS (
    SELECT id FROM stepgate.workers WHERE id = $1 AND lease_until > clock_timestamp() FOR SHARE
), due AS MATERIALIZED (
    SELECT run.id
    FROM unnest($2::text[]) AS wanted(pool)
    CROSS JOIN LATERAL (
        SELECT id, wake_at FROM stepgate.runs
        WHERE pool = wanted.pool AND worker_id IS NULL AND wake_at IS NOT NULL
          AND wake_at <= now() + interval '10 milliseconds'
          AND (held_until IS NULL OR held_until <= now())
        ORDER BY wake_at LIMIT $3 FOR UPDATE SKIP LOCKED
    ) AS run
    WHERE EXISTS (SELECT FROM alive)
    ORDER BY run.wake_at LIMIT $3
)
UPDATE stepgate.runs AS run
SET worker_id = $1, lease_epoch = run.lease_epoch + 1, held_until = NULL, held_for = NULL
FROM due WHERE run.id = due.id
RETURNING run.id::text AS id, run.lease_epoch, run.lost_leases
"""
# The same for one run, whatever its pool.
_CLAIM_ONE = """
UPDATE stepgate.runs
SET worker_id = $1, lease_epoch = lease_epoch + 1, held_until = NULL, held_for = NULL
WHERE id = $2::uuid AND worker_id IS NULL AND wake_at IS NOT NULL AND wake_at <= now() + interval '10 milliseconds'
  AND (held_until IS NULL OR held_until <= now())
  AND EXISTS (SELECT FROM stepgate.workers WHERE id = $1 AND lease_until > clock_timestamp() FOR SHARE)
RETURNING id::text AS id, lease_epoch, lost_leases
"""
# One row for each run: a row costs the driver more than what is in it.
_INPUTS = """
SELECT run_id::text AS run_id, array_agg(id::text) AS ids, array_agg(input) AS inputs FROM stepgate.steps
WHERE run_id = ANY($1::uuid[]) AND status <> ALL($2::text[]) GROUP BY run_id
"""
_RELEASE = """
UPDATE stepgate.runs
SET worker_id = NULL, held_until = to_timestamp($4::float8 / 1000000), held_for = $5
WHERE id = $1::uuid AND head_seq = $2 AND lease_epoch = $3
RETURNING id
"""
_RELEASE_FAILED = """
UPDATE stepgate.runs
SET worker_id = NULL, lease_epoch = lease_epoch + 1, lost_leases = lost_leases + 1
WHERE id = $1::uuid AND lease_epoch = $2
"""
_SET_ASIDE = """
UPDATE stepgate.runs
SET worker_id = NULL, lease_epoch = lease_epoch + 1, held_until = now() + make_interval(secs => $2)
WHERE id = $1::uuid
"""
_PUT_DOWN = """
UPDATE stepgate.runs SET worker_id = NULL, lease_epoch = lease_epoch + 1
WHERE worker_id = $1::uuid AND id <> ALL($2::uuid[])
RETURNING id::text AS id
"""
_STANDS = """
SELECT EXISTS (
    SELECT FROM stepgate.runs JOIN stepgate.workers ON workers.id = runs.worker_id
    WHERE runs.id = $1::uuid AND runs.lease_epoch = $2 AND workers.lease_until > clock_timestamp()
)
"""
# A claim that was under way when the lease ended is not seen by this statement; the next one finds it.
_FREE_DEAD = """
WITH freed AS (
    UPDATE stepgate.runs AS run
    SET worker_id = NULL, lease_epoch = run.lease_epoch + 1, lost_leases = run.lost_leases + 1
    WHERE run.id IN (
        SELECT id FROM stepgate.runs AS driven
        WHERE worker_id IS NOT NULL AND NOT EXISTS (
            SELECT FROM stepgate.workers WHERE workers.id = driven.worker_id AND lease_until > clock_timestamp()
        )
        FOR UPDATE SKIP LOCKED
    )
    RETURNING run.id
), forgotten AS (
    DELETE FROM stepgate.output_chunks WHERE run_id IN (SELECT id FROM freed)
)
SELECT id::text AS id FROM freed
"""
_REGISTER = """
INSERT INTO stepgate.workers (id, host, pid, pools, started_at, lease_until)
VALUES ($1::uuid, $2, $3, $4, clock_timestamp(), clock_timestamp() + make_interval(secs => $5))
"""
_BEAT = """
WITH beat AS (
    UPDATE stepgate.workers SET lease_until = clock_timestamp() + make_interval(secs => $2)
    WHERE id = $1::uuid AND lease_until > clock_timestamp()
    RETURNING id
)
SELECT run.id::text AS id, run.head_seq FROM beat LEFT JOIN stepgate.runs AS run ON run.worker_id = beat.id
"""
_DEREGISTER = """
WITH gone AS (DELETE FROM stepgate.workers WHERE id = $1::uuid)
UPDATE stepgate.runs SET worker_id = NULL, lease_epoch = lease_epoch + 1 WHERE worker_id = $1::uuid
"""
_FORGET_WORKERS = "DELETE FROM stepgate.workers WHERE lease_until < clock_timestamp() - make_interval(secs => $1)"
_FORGET_KEYS = """
DELETE FROM stepgate.idempotency_keys WHERE created_at < clock_timestamp() - make_interval(secs => $1)
"""
_STATUS = """
SELECT (SELECT count(*) FROM stepgate.workers WHERE lease_until > clock_timestamp()) AS workers,
       count(*) AS due, extract(epoch FROM clock_timestamp() - min(wake_at))::float8 AS oldest_due_s
FROM stepgate.runs
WHERE worker_id IS NULL AND wake_at IS NOT NULL AND wake_at <= clock_timestamp()
"""
KEEP_WORKERS_S = 3600.0
KEEP_KEYS_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A run now in this worker's hands: its state and the input texts of its steps that are not closed.

    `lost_leases` counts the workers lost on it since its last event.
    """

    handle: RunHandle
    inputs: Mapping[StepId, str]
    lost_leases: int


class WorkerRow(NamedTuple):
    """Who a worker is, for people who look."""

    id: WorkerId
    host: str
    pid: int
    pools: Sequence[str]


class QueueStatus(NamedTuple):
    """`oldest_due_s` is None while nothing is due."""

    workers: int
    due: int
    oldest_due_s: float | None


class Claims:
    """The lease statements over the pool."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, worker: WorkerRow, lease_s: float) -> None:
        """Makes the worker's row; its lease begins now.

        Workers gone for an hour, idempotency keys older than a week and what lost commands printed are forgotten.
        """
        async with self._connection() as connection:
            await connection.execute(_FORGET_WORKERS, KEEP_WORKERS_S)
            await connection.execute(_FORGET_KEYS, KEEP_KEYS_S)
            await connection.execute(FORGET_UNDRIVEN)
            await connection.execute(_REGISTER, worker.id, worker.host, worker.pid, list(worker.pools), float(lease_s))

    async def deregister(self, worker_id: WorkerId) -> None:
        """Removes the row; runs still in the worker's hands are free at once, and not counted as lost."""
        async with self._connection() as connection:
            await connection.execute(_DEREGISTER, worker_id)

    async def claim(
        self, worker_id: WorkerId, pools: Sequence[str], limit: int, only: RunId | None = None
    ) -> list[Claim]:
        """Takes at most `limit` due runs of the pools, oldest first; none when the worker's lease has ended.

        With `only` it takes that run, if it is due, and no other.
        """
        async with self._connection() as connection:
            if only is None:
                rows = await connection.fetch(CLAIM, worker_id, list(pools), limit)
            else:
                rows = await connection.fetch(_CLAIM_ONE, worker_id, only)
            if not rows:
                return []
            ids = [RunId(row["id"]) for row in rows]
            journals = await chains.after(connection, dict.fromkeys(ids, 0))
            inputs = {
                row["run_id"]: dict(zip(row["ids"], row["inputs"], strict=True))
                for row in await connection.fetch(_INPUTS, ids, list(CLOSED))
            }
        claims = []
        for row in rows:
            run_id = RunId(row["id"])
            try:
                state, head = chains.caught_up(None, Head(0, GENESIS), journals.get(run_id, []))
            except Exception:
                log.exception("a journal cannot be folded; the run is set aside", run_id=run_id)
                await self._set_aside(run_id)
                continue
            if state is not None:
                handle = RunHandle(run_id, state, head, row["lease_epoch"])
                claims.append(Claim(handle, inputs.get(run_id, {}), row["lost_leases"]))
        return claims

    async def _set_aside(self, run_id: RunId) -> None:
        """One damaged journal must not keep the other runs of a batch from being driven."""
        async with self._connection() as connection:
            await connection.execute(_SET_ASIDE, run_id, SET_ASIDE_S)

    async def release(self, handle: RunHandle, *, held_until: int | None = None, held_for: str | None = None) -> bool:
        """Puts the run down unless it moved: False means that an event arrived and the driver goes on.

        `held_until` (microseconds) keeps it from being claimed before; `held_for` says why (`workspace`).
        Raises LeaseLost when the run is another's.
        """
        if handle.released:
            return True
        async with self._connection() as connection:
            seq, epoch = handle.head.seq, handle.epoch
            if await connection.fetchval(_RELEASE, handle.run_id, seq, epoch, held_until, held_for) is not None:
                handle.released = True
                return True
            found = await connection.fetchval("SELECT lease_epoch FROM stepgate.runs WHERE id = $1", handle.run_id)
        if found != epoch:
            raise LeaseLost("another worker drives the run now")
        return False

    async def release_failed(self, handle: RunHandle) -> None:
        """Puts down a run whose driver failed, whatever its head; counted like a lost lease."""
        async with self._connection() as connection:
            await connection.execute(_RELEASE_FAILED, handle.run_id, handle.epoch)
        handle.released = True

    async def put_down(self, worker_id: WorkerId, in_hand: Collection[RunId]) -> list[RunId]:
        """Frees the worker's runs except those in its hands; returns them. Not while it claims."""
        async with self._connection() as connection:
            return [RunId(row["id"]) for row in await connection.fetch(_PUT_DOWN, worker_id, list(in_hand))]

    async def stands(self, handle: RunHandle) -> bool:
        """Whether the run is still this handle's, asked of the database at this moment."""
        async with self._connection() as connection:
            return bool(await connection.fetchval(_STANDS, handle.run_id, handle.epoch))

    async def free_dead(self) -> list[RunId]:
        """Frees the runs of every worker whose lease has ended; their epoch and count of lost leases go up."""
        async with self._connection() as connection:
            return [RunId(row["id"]) for row in await connection.fetch(_FREE_DEAD)]

    async def status(self) -> QueueStatus:
        async with self._connection() as connection:
            return QueueStatus(*await connection.fetchrow(_STATUS))

    def _connection(self) -> Any:
        return self._database.session()


class Heartbeats:
    """Beats over a connection of its own, made in the event loop of the thread that beats."""

    def __init__(self, database: Database, worker_id: WorkerId, lease_s: float) -> None:
        self._database = database
        self._worker_id = worker_id
        self._lease_s = float(lease_s)
        self._connection: Any = None

    async def beat(self) -> Mapping[RunId, int] | None:
        """Renews the lease and returns the heads of the worker's runs; None when the lease had ended already.

        Raises DatabaseUnavailable; the next call connects anew.
        """
        with translated(self._database.place):
            try:
                if self._connection is None:
                    self._connection = await self._database.connect("heartbeat")
                rows = await self._connection.fetch(_BEAT, self._worker_id, self._lease_s, timeout=BEAT_TIMEOUT_S)
            except BaseException as error:
                if is_lost(error) or not isinstance(error, Exception):
                    await self.close()
                raise
        if not rows:
            return None
        return {RunId(row["id"]): row["head_seq"] for row in rows if row["id"] is not None}

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
