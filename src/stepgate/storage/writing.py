"""Sends a batch of entries as one statement and says which of them were accepted."""

import time
from collections.abc import Sequence
from typing import Any

from stepgate.storage import full, hot
from stepgate.storage.clock import DatabaseClock
from stepgate.storage.entry import Entry
from stepgate.storage.rows import collect


async def write(connection: Any, clock: DatabaseClock, entries: Sequence[Entry], timeout_s: float) -> list[bool]:
    """For each entry whether it is committed; the entries are all hot, all changes, or all new runs.

    The driver's errors pass through; after one nothing of the batch is committed, unless the connection was lost.
    """
    first = entries[0]
    if first.hot:
        places = set(await _send(connection, clock, hot.STATEMENT, hot.parameters(entries), timeout_s))
        return [place in places for place in range(1, len(entries) + 1)]
    rows = collect(entries)
    statement = full.create(rows) if first.before is None else full.change(rows)
    ids = set(await _send(connection, clock, statement.text, statement.parameters(rows), timeout_s))
    return [entry.run_id in ids for entry in entries]


async def _send(
    connection: Any, clock: DatabaseClock, statement: str, parameters: Sequence[Any], timeout_s: float
) -> Sequence[Any]:
    sent = time.monotonic_ns()
    accepted, now = await connection.fetchrow(statement, *parameters, timeout=timeout_s)
    clock.learn(now, sent, time.monotonic_ns())
    return accepted or ()
