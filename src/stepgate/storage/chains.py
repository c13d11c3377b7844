"""Reads journals back and folds them: how anyone who holds a run in memory catches up with it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stepgate.domain.evolve import evolve
from stepgate.domain.ids import RunId
from stepgate.domain.journal import Head, parse
from stepgate.domain.state import RunState

# A join from the list, so that each run is looked up in its own partition only.
_AFTER = """
SELECT event.run_id::text AS run_id, event.seq, event.body, event.hash
FROM unnest($1::uuid[], $2::int[]) AS known(run_id, seq)
JOIN stepgate.events AS event ON event.run_id = known.run_id AND event.seq > known.seq
ORDER BY event.run_id, event.seq
"""
# One run's partition is known before the statement begins, so that no other is opened.
_AFTER_ONE = """
SELECT run_id::text AS run_id, seq, body, hash FROM stepgate.events WHERE run_id = $1::uuid AND seq > $2 ORDER BY seq
"""


class Link(NamedTuple):
    """A stored event: its place in the chain and its text."""

    seq: int
    body: str
    hash: bytes


async def after(connection: Any, known: Mapping[RunId, int]) -> dict[RunId, list[Link]]:
    """The events of each run behind a sequence number (0: all of them), in order; runs without any are absent."""
    found: dict[RunId, list[Link]] = {}
    if len(known) == 1:
        rows = await connection.fetch(_AFTER_ONE, *next(iter(known.items())))
    else:
        rows = await connection.fetch(_AFTER, list(known), list(known.values()))
    for row in rows:
        found.setdefault(RunId(row["run_id"]), []).append(Link(row["seq"], row["body"], row["hash"]))
    return found


def caught_up(state: RunState | None, head: Head, links: Sequence[Link]) -> tuple[RunState | None, Head]:
    """State and head after these events."""
    for link in links:
        state = evolve(state, parse(link.body))
        head = Head(link.seq, link.hash)
    return state, head


def contains(links: Sequence[Link], head: Head) -> bool:
    """Whether the chain went through this head: then the write that made it was accepted."""
    first = links[0].seq if links else 0
    place = head.seq - first
    return 0 <= place < len(links) and links[place].hash == head.hash
