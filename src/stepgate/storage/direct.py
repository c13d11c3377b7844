"""Commits without a lease: one run per statement, decided on the newest state, which a cache keeps at hand."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from stepgate.domain.commands import Command, Create
from stepgate.domain.errors import Conflict, NotFound
from stepgate.domain.events import Event
from stepgate.domain.ids import RunId
from stepgate.domain.journal import Head
from stepgate.domain.state import RunState
from stepgate.storage import chains
from stepgate.storage.attachments import Attachments
from stepgate.storage.database import Database
from stepgate.storage.entry import Entry, Submission
from stepgate.storage.errors import is_lost, is_transient, translated
from stepgate.storage.writing import write

MAX_ATTEMPTS = 20
MAX_LOST = 3
PAUSE_S = 0.05
CACHED_RUNS = 256
CACHED_STEPS = 100_000
STATEMENT_TIMEOUT_S = 30.0

_INSERT_KEY = """
INSERT INTO stepgate.idempotency_keys (run_id, scope, key, request_sha256, status, response, tenant_id, created_at)
VALUES ($1::uuid, $2, $3, $4, $5, $6, $7, clock_timestamp())
"""


START = Head()


@dataclass(slots=True)
class _Cached:
    state: RunState | None = None
    head: Head = START
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Direct:
    """The API's way to write; safe beside any worker, because the head guards every write."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cache: OrderedDict[RunId, _Cached] = OrderedDict()

    async def load(self, run_id: RunId) -> tuple[RunState, Head]:
        cached = self._cached(run_id)
        with translated(self._database.place):
            async with cached.lock, self._database.raw() as connection:
                await self._catch_up(connection, run_id, cached)
        if cached.state is None:
            raise NotFound(f"no run {run_id}", field="run_id")
        return cached.state, cached.head

    async def submit(
        self, run_id: RunId, commands: Sequence[Command], attachments: Attachments
    ) -> tuple[RunState, tuple[Event, ...]]:
        """The state after the commands and their events; see `Committer.submit_once`."""
        request = _Request(run_id, commands, attachments)
        cached = self._cached(run_id)
        lost = 0
        with translated(self._database.place):
            async with cached.lock:
                for _ in range(MAX_ATTEMPTS):
                    try:
                        outcome = await self._attempt(request, cached)
                    except Exception as error:
                        lost += is_lost(error)
                        if lost > MAX_LOST or not (is_lost(error) or is_transient(error)):
                            raise _explained(error) from error
                        await asyncio.sleep(PAUSE_S * lost)
                        continue
                    if outcome is not None:
                        return outcome
        raise Conflict("the run keeps changing", code="try_again", fix="send the request again")

    async def _attempt(self, request: "_Request", cached: _Cached) -> tuple[RunState, tuple[Event, ...]] | None:
        """None where somebody else moved the head meanwhile."""
        async with self._database.raw() as connection:
            if request.sent or not request.creates:
                links = await self._catch_up(connection, request.run_id, cached)
                for earlier in request.sent:  # its answer was lost, but it was committed
                    if cached.state is not None and chains.contains(links, earlier.head):
                        return cached.state, tuple(earlier.events)
            entry = Entry(request.run_id, cached.state, cached.head, None)
            entry.decide(Submission(request.commands, request.attachments, None), self._database.clock.now())
            if not entry.events:
                await self._remember(connection, request)
                return entry.after, ()
            request.sent.append(entry)
            if not (await write(connection, self._database.clock, [entry], STATEMENT_TIMEOUT_S))[0]:
                return None
            cached.state, cached.head = entry.after, entry.head
            return entry.after, tuple(entry.events)

    async def _catch_up(self, connection: Any, run_id: RunId, cached: _Cached) -> Sequence[chains.Link]:
        links = (await chains.after(connection, {run_id: cached.head.seq})).get(run_id, [])
        cached.state, cached.head = chains.caught_up(cached.state, cached.head, links)
        return links

    async def _remember(self, connection: Any, request: "_Request") -> None:
        """A request that changed nothing still has an answer to be given again."""
        record = request.attachments.idempotency
        if record is not None:
            await connection.execute(_INSERT_KEY, request.run_id, *record)

    def _cached(self, run_id: RunId) -> _Cached:
        cached = self._cache.pop(run_id, None) or _Cached()
        self._cache[run_id] = cached
        steps = sum(len(one.state.steps) for one in self._cache.values() if one.state is not None)
        for key, one in list(self._cache.items()):
            if len(self._cache) <= CACHED_RUNS and steps <= CACHED_STEPS:
                break
            if key != run_id and not one.lock.locked():
                steps -= 0 if one.state is None else len(one.state.steps)
                del self._cache[key]
        return cached


@dataclass(slots=True)
class _Request:
    run_id: RunId
    commands: Sequence[Command]
    attachments: Attachments
    sent: list[Entry] = field(default_factory=list)

    @property
    def creates(self) -> bool:
        return bool(self.commands) and isinstance(self.commands[0], Create)


def _explained(error: Exception) -> Exception:
    if isinstance(error, asyncpg.UniqueViolationError):
        if error.constraint_name == "pk_idempotency_keys":
            return Conflict(
                "a request with this idempotency key is being carried out",
                code="idempotency_in_use",
                field="Idempotency-Key",
                fix="send it again to get its answer",
            )
        if error.constraint_name == "pk_runs":
            return Conflict("the run exists already")
    return error
