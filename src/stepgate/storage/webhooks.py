"""Webhooks, the outbox of what they are to be told, and the log of every attempt.

The outbox is filled by the statements of `full`, in the transaction of the events. A row is due by `next_at`; whoever
takes it moves that on, so that a sender that dies is followed by another: a message arrives at least once.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from stepgate.domain.errors import Conflict
from stepgate.domain.ids import new_id
from stepgate.storage.database import Database

MOST = 20
"""Of one tenant: each costs the commit of every event that it wants a row."""
KEEP_S = 30 * 24 * 3600.0

_COLUMNS = "id::text AS id, url, events, format, created_at, created_by, disabled_at, disabled_reason"
_ADD = f"""
INSERT INTO stepgate.webhooks (id, tenant_id, url, events, format, secret, created_at, created_by)
SELECT $1::uuid, $2, $3, $4, $5, $6, clock_timestamp(), $7
WHERE (SELECT count(*) FROM stepgate.webhooks WHERE tenant_id = $2) < {MOST} RETURNING {_COLUMNS}
"""
_PAGE = f"""
SELECT {_COLUMNS} FROM stepgate.webhooks WHERE tenant_id = $1 AND id > $2::uuid ORDER BY id LIMIT $3
"""
_GET = f"SELECT {_COLUMNS} FROM stepgate.webhooks WHERE tenant_id = $1 AND id = $2::uuid"
_REMOVE = f"""
WITH gone AS (
    DELETE FROM stepgate.webhooks WHERE tenant_id = $1 AND id = $2::uuid RETURNING *
), deliveries AS (
    DELETE FROM stepgate.webhook_deliveries WHERE webhook_id IN (SELECT id FROM gone)
), attempts AS (
    DELETE FROM stepgate.webhook_attempts WHERE webhook_id IN (SELECT id FROM gone)
)
SELECT {_COLUMNS} FROM gone
"""
_DISABLE = """
UPDATE stepgate.webhooks SET disabled_at = clock_timestamp(), disabled_reason = $2
WHERE id = $1::uuid AND disabled_at IS NULL
"""
_ANY = "SELECT EXISTS (SELECT FROM stepgate.webhooks WHERE disabled_at IS NULL)"

_DELIVERY = """d.id::text AS id, d.run_id::text AS run_id, d.seq, d.type, d.happened_at, d.status, d.attempts,
       d.next_at"""
_DELIVERIES = f"""
SELECT {_DELIVERY} FROM stepgate.webhook_deliveries AS d
WHERE d.webhook_id = $1::uuid AND ($2::uuid IS NULL OR d.id < $2::uuid) ORDER BY d.id DESC LIMIT $3
"""
_ATTEMPTS = """
SELECT delivery_id::text AS delivery_id, number, at, http_status, error, duration_ms, next_at
FROM stepgate.webhook_attempts WHERE webhook_id = $1::uuid AND delivery_id = ANY($2::uuid[])
ORDER BY delivery_id, number
"""
_REDELIVER = f"""
UPDATE stepgate.webhook_deliveries AS d SET status = 'pending', next_at = clock_timestamp()
WHERE d.webhook_id = $1::uuid AND d.id = $2::uuid RETURNING {_DELIVERY}
"""
# Some of each webhook's, so that one that is slow keeps no other waiting; SKIP LOCKED lets senders pass each other.
_TAKE = """
WITH due AS (
    SELECT hook.id AS webhook_id, picked.id
    FROM stepgate.webhooks AS hook
    CROSS JOIN LATERAL (
        SELECT id FROM stepgate.webhook_deliveries
        WHERE webhook_id = hook.id AND next_at <= clock_timestamp()
        ORDER BY next_at LIMIT $1 FOR UPDATE SKIP LOCKED
    ) AS picked
    WHERE hook.disabled_at IS NULL AND hook.id <> ALL($3::uuid[])
)
UPDATE stepgate.webhook_deliveries AS d
SET attempts = d.attempts + 1, next_at = clock_timestamp() + make_interval(secs => $2)
FROM due JOIN stepgate.webhooks AS hook ON hook.id = due.webhook_id
WHERE d.webhook_id = due.webhook_id AND d.id = due.id
RETURNING d.webhook_id::text AS webhook_id, d.id::text AS id, d.run_id::text AS run_id, d.seq, d.attempts,
          hook.url, hook.secret, hook.format
"""
# A sender that was thought dead and comes back late finds another number, and its word no longer moves the row.
_SAID = """
WITH said AS (
    UPDATE stepgate.webhook_deliveries
    SET status = $4, next_at = clock_timestamp() + make_interval(secs => $5::float8)
    WHERE webhook_id = $1::uuid AND id = $2::uuid AND attempts = $3
    RETURNING next_at
)
INSERT INTO stepgate.webhook_attempts (webhook_id, delivery_id, number, at, http_status, error, duration_ms, next_at)
SELECT $1::uuid, $2::uuid, $3, clock_timestamp() - make_interval(secs => $8::int / 1000.0), $6, $7, $8::int,
       (SELECT next_at FROM said)
WHERE EXISTS (SELECT FROM stepgate.webhooks WHERE id = $1::uuid)
ON CONFLICT DO NOTHING
"""
_FORGET = """
WITH old AS (
    DELETE FROM stepgate.webhook_deliveries AS d
    WHERE d.happened_at < clock_timestamp() - make_interval(secs => $1)
       OR NOT EXISTS (SELECT FROM stepgate.webhooks AS hook WHERE hook.id = d.webhook_id)
    RETURNING d.webhook_id, d.id
)
DELETE FROM stepgate.webhook_attempts AS a USING old WHERE a.webhook_id = old.webhook_id AND a.delivery_id = old.id
"""
_TOLD = """
SELECT e.body, r.goal, r.name, s.id::text AS step_id, s.key, s.type, q.revision, q.risk, q.action_hash, q.expires_at,
       q.required, q.rendering
FROM stepgate.events AS e
JOIN stepgate.runs AS r ON r.id = e.run_id
LEFT JOIN stepgate.steps AS s ON s.run_id = e.run_id AND s.id = e.step_id
LEFT JOIN stepgate.approval_requests AS q
       ON q.run_id = e.run_id AND q.id = (e.body::jsonb #>> '{data,request_id}')::uuid
WHERE e.run_id = $1::uuid AND e.seq = $2
"""


class WebhookRow(NamedTuple):
    """One webhook without its secret; `disabled_at` is when its receiver said that it is gone."""

    id: str
    url: str
    events: Collection[str]
    format: str
    created_at: datetime
    created_by: str
    disabled_at: datetime | None
    disabled_reason: str | None


class DeliveryRow(NamedTuple):
    """One event for one webhook; `next_at` None: nothing more is tried by itself."""

    id: str
    run_id: str
    seq: int
    type: str
    happened_at: datetime
    status: str
    attempts: int
    next_at: datetime | None


class AttemptRow(NamedTuple):
    """One request; `http_status` None: there was no answer, and `error` says why."""

    delivery_id: str
    number: int
    at: datetime
    http_status: int | None
    error: str | None
    duration_ms: int
    next_at: datetime | None


class Due(NamedTuple):
    """A delivery in this sender's hands until its time is over; `attempts` counts this one."""

    webhook_id: str
    id: str
    run_id: str
    seq: int
    attempts: int
    url: str
    secret: str
    format: str


class Webhooks:
    """The webhooks of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, tenant: str, *, url: str, events: Sequence[str], format_: str, secret: str, created_by: str
    ) -> WebhookRow:
        """Raises Conflict `too_many_webhooks`."""
        values = (new_id(), tenant, url, list(events), format_, secret, created_by)
        async with self._database.session() as connection:
            row = await connection.fetchrow(_ADD, *values)
        if row is None:
            raise Conflict(
                f"there are {MOST} webhooks already", code="too_many_webhooks", fix="remove one that nobody needs"
            )
        return WebhookRow(**dict(row))

    async def page(self, tenant: str, after: str, limit: int) -> list[WebhookRow]:
        """In the order they were made."""
        async with self._database.session() as connection:
            return [WebhookRow(**dict(row)) for row in await connection.fetch(_PAGE, tenant, after, limit)]

    async def get(self, tenant: str, webhook_id: str) -> WebhookRow | None:
        async with self._database.session() as connection:
            row = await connection.fetchrow(_GET, tenant, webhook_id)
        return None if row is None else WebhookRow(**dict(row))

    async def remove(self, tenant: str, webhook_id: str) -> WebhookRow | None:
        """With its outbox and its log; None where there was none."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_REMOVE, tenant, webhook_id)
        return None if row is None else WebhookRow(**dict(row))

    async def disable(self, webhook_id: str, reason: str) -> None:
        async with self._database.session() as connection:
            await connection.execute(_DISABLE, webhook_id, reason)

    async def any(self) -> bool:
        """Whether anybody wants to be told anything."""
        async with self._database.session() as connection:
            return bool(await connection.fetchval(_ANY))

    async def deliveries(
        self, webhook_id: str, before: str | None, limit: int
    ) -> tuple[list[DeliveryRow], dict[str, list[AttemptRow]]]:
        """The newest first, and the attempts of each, the first one first, all at one moment."""
        async with (
            self._database.session() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            found = [DeliveryRow(**dict(row)) for row in await connection.fetch(_DELIVERIES, webhook_id, before, limit)]
            tried = await connection.fetch(_ATTEMPTS, webhook_id, [row.id for row in found])
        attempts: dict[str, list[AttemptRow]] = {}
        for row in tried:
            attempts.setdefault(row["delivery_id"], []).append(AttemptRow(**dict(row)))
        return found, attempts

    async def redeliver(self, webhook_id: str, delivery_id: str) -> DeliveryRow | None:
        """Due again at once, also where it arrived; None where there is no such delivery."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_REDELIVER, webhook_id, delivery_id)
        return None if row is None else DeliveryRow(**dict(row))

    # For whoever sends

    async def take(self, each: int, for_s: float, busy: Collection[str]) -> list[Due]:
        """Deliveries that are due, at most so many of each webhook that is not busy; nobody else has them `for_s`."""
        async with self._database.session() as connection:
            return [Due(**dict(row)) for row in await connection.fetch(_TAKE, each, for_s, list(busy))]

    async def told(self, run_id: str, seq: int) -> Any:
        """The event, and what is said about its run, step and question; None where retention has taken it."""
        async with self._database.session() as connection:
            return await connection.fetchrow(_TOLD, run_id, seq)

    async def said(
        self,
        due: Due,
        *,
        status: str,
        retry_s: float | None,
        http_status: int | None,
        error: str | None,
        duration_ms: int,
    ) -> None:
        """What came of an attempt; `retry_s` None: no other follows."""
        values = (due.webhook_id, due.id, due.attempts, status, retry_s, http_status, error, duration_ms)
        async with self._database.session() as connection:
            await connection.execute(_SAID, *values)

    async def forget(self) -> None:
        """What is older than 30 days, and what was written beside the end of its webhook."""
        async with self._database.session() as connection:
            await connection.execute(_FORGET, KEEP_S)
