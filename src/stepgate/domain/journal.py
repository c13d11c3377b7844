"""The hash chain: how events become stored text, and how stored text is proved to be what was decided.

`hash = sha256(prev_hash || body)`; `body` is canonical JSON of everything in the event; the first `prev_hash` is
32 zero bytes; `seq` counts from 1.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

import orjson

from stepgate.domain.errors import IntegrityError
from stepgate.domain.events import Event
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.state import Actor
from stepgate.domain.states import EventType

GENESIS = bytes(32)
VERSION = 1


class Head(NamedTuple):
    """Where a run's chain stands."""

    seq: int = 0
    hash: bytes = GENESIS


class Record(NamedTuple):
    """One stored event: the hashed text and the columns copied out of it for reading."""

    run_id: RunId
    seq: int
    type: str
    step_id: str | None
    actor: str
    at: int
    body: bytes
    prev_hash: bytes
    hash: bytes


def seal(run_id: RunId, head: Head, events: Sequence[Event]) -> tuple[list[Record], Head]:
    """Chains the events behind the head."""
    records = []
    seq, prev = head
    for event in events:
        seq += 1
        actor = event.actor
        body = orjson.dumps(
            {
                "actor": {"channel": actor.channel, "id": actor.id, "kind": actor.kind},
                "at": event.at,
                "data": event.data,
                "run_id": run_id,
                "seq": seq,
                "step_id": event.step_id,
                "type": event.type,
                "v": VERSION,
            },
            option=orjson.OPT_SORT_KEYS,
        )
        digest = sha256(prev + body).digest()
        records.append(Record(run_id, seq, event.type, event.step_id, actor.id, event.at, body, prev, digest))
        prev = digest
    return records, Head(seq, prev)


_TYPES = {type_.value: type_ for type_ in EventType}


def parse(body: bytes | str) -> Event:
    """The event in a stored text; raises IntegrityError where it is none, or of a version this code does not know."""
    try:
        value = orjson.loads(body)
        if value["v"] != VERSION:
            raise IntegrityError(f"an event of version {value['v']}: this code knows version {VERSION}")
        step_id = value["step_id"]
        return Event(
            _TYPES[value["type"]],
            None if step_id is None else StepId(step_id),
            Actor(**value["actor"]),
            value["at"],
            value["data"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"the text is no event: {error}") from error


class Verdict(NamedTuple):
    """What checking a chain found; `first_bad_seq` is the first event that does not fit."""

    verified: bool
    events: int
    head_hash: bytes
    first_bad_seq: int | None = None
    reason: str | None = None


def verify(run_id: RunId, records: Iterable[Record], expected: Head | None = None) -> Verdict:
    """Hashes the stored texts again, compares the copies beside them, and compares the head if one is given.

    A text changed, an event inserted, left out, moved or cut off at the end each give a verdict naming its seq.
    """
    head = Head()
    for record in records:
        reason = _fault(run_id, head, record)
        if reason is not None:
            return Verdict(False, head.seq, head.hash, head.seq + 1, reason)
        head = Head(record.seq, record.hash)
    if expected is not None and head != expected:
        if head.seq == expected.seq:
            return Verdict(False, head.seq, head.hash, head.seq, "the last event is not the recorded head")
        short = head.seq < expected.seq
        reason = "the chain ends before its recorded head" if short else "the chain goes on behind its recorded head"
        return Verdict(False, head.seq, head.hash, min(head.seq, expected.seq) + 1, reason)
    return Verdict(True, head.seq, head.hash)


def _fault(run_id: RunId, head: Head, record: Record) -> str | None:
    if record.seq != head.seq + 1:
        return f"event {head.seq + 1} is missing"
    if record.prev_hash != head.hash:
        return "prev_hash is not the hash of the event before"
    if sha256(head.hash + record.body).digest() != record.hash:
        return "the text does not give the recorded hash"
    try:
        value = orjson.loads(record.body)
        told = (*tuple(value[name] for name in ("run_id", "seq", "type", "step_id", "at")), value["actor"]["id"])
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return "the text is no event"
    copies = (record.run_id, record.seq, record.type, record.step_id, record.at, record.actor)
    if told != copies:
        return "a copied column differs from the text"
    return None if record.run_id == run_id else "the event belongs to another run"


def require(verdict: Verdict) -> None:
    """Raises IntegrityError where the chain does not hold."""
    if not verdict.verified:
        raise IntegrityError(f"event {verdict.first_bad_seq}: {verdict.reason}")
