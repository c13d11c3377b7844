"""The hash chain: its bytes are pinned, and nothing in it can be changed unseen."""

import json
from collections.abc import Callable
from hashlib import sha256

import orjson
import pytest

from stepgate.domain.errors import IntegrityError
from stepgate.domain.evolve import fold
from stepgate.domain.ids import RunId
from stepgate.domain.journal import GENESIS, Head, Record, Verdict, parse, require, seal, verify
from tests.domain.golden_run import FILE, golden_run, golden_text
from tests.domain.invariants import check_history, check_state
from tests.domain.runs import OUTPUT, spec, started, uuid

RUN = RunId(uuid(0, 1))
Tamper = Callable[[list[Record]], list[Record]]


@pytest.fixture(scope="module")
def chain() -> tuple[list[Record], Head]:
    return golden_run().records()


# The bytes


def test_the_bytes_of_the_chain_are_the_golden_ones() -> None:
    assert golden_text() == FILE.read_text(encoding="utf-8")


def test_the_golden_file_holds_by_hashing_alone() -> None:
    previous = bytes(32)
    for line in FILE.read_text(encoding="utf-8").splitlines():
        told, body = line.split(" ", 1)
        previous = sha256(previous + body.encode()).digest()
        assert previous.hex() == told


def test_the_hashed_text_is_canonical_json() -> None:
    for line in FILE.read_text(encoding="utf-8").splitlines():
        body = line.split(" ", 1)[1]
        assert body == json.dumps(json.loads(body), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def test_the_golden_run_has_enough_kinds_of_events_to_pin_the_form() -> None:
    run = golden_run()
    assert len({event.type for event in run.events}) >= 20
    check_state(run.state)
    check_history(run.state, run.events)


def test_money_stands_in_the_text_as_a_plain_decimal_and_unknown_as_null() -> None:
    settled = [json.loads(line.split(" ", 1)[1]) for line in golden_text().splitlines() if "model.settled" in line]
    assert settled[0]["data"]["cost_usd"] == "0.000125"
    assert settled[0]["data"]["tokens"]["cached"] is None


def test_inputs_and_outputs_stand_in_the_journal_by_digest_and_size_only() -> None:
    planned = json.loads(golden_text().splitlines()[1].split(" ", 1)[1])
    step = planned["data"]["steps"][0]
    assert (step["input_sha256"], step["input_size"]) == ("0" * 64, 2)
    assert "input" not in step


def test_a_journal_sealed_in_parts_is_the_one_sealed_at_once() -> None:
    run = golden_run()
    whole, head = run.records()
    parts: list[Record] = []
    at = Head()
    for event in run.events:
        records, at = seal(RUN, at, [event])
        parts += records
    assert (parts, at) == (whole, head)


def test_sealing_nothing_moves_nothing() -> None:
    assert seal(RUN, Head(3, b"x" * 32), []) == ([], Head(3, b"x" * 32))


def test_the_first_event_hangs_on_32_zero_bytes(chain: tuple[list[Record], Head]) -> None:
    assert chain[0][0].prev_hash == GENESIS == bytes(32)
    assert chain[0][0].seq == 1


# Verifying


def test_an_untouched_chain_is_verified(chain: tuple[list[Record], Head]) -> None:
    records, head = chain
    assert verify(RUN, records, head) == Verdict(True, len(records), head.hash)
    require(verify(RUN, records, head))
    assert verify(RUN, []) == Verdict(True, 0, GENESIS)


def rehashed(record: Record, body: bytes) -> Record:
    """What somebody writes who knows how the chain is made."""
    return record._replace(body=body, hash=sha256(record.prev_hash + body).digest())


def edited(record: Record, **changes: object) -> bytes:
    return orjson.dumps({**orjson.loads(record.body), **changes}, option=orjson.OPT_SORT_KEYS)


def rechained(records: list[Record], start: int) -> list[Record]:
    """Every later hash made anew, as an owner of the database could."""
    fixed = records[:start]
    previous = fixed[-1].hash if fixed else GENESIS
    for record in records[start:]:
        again = record._replace(prev_hash=previous, hash=sha256(previous + record.body).digest())
        fixed.append(again)
        previous = again.hash
    return fixed


def at(index: int, change: Callable[[Record], Record]) -> Tamper:
    return lambda records: [*records[:index], change(records[index]), *records[index + 1 :]]


FAULTS: dict[str, tuple[Tamper, int, str]] = {
    "a byte of a text changed": (at(4, lambda r: r._replace(body=r.body.replace(b"worker", b"wOrker"))), 5, "hash"),
    "a blank added to a text": (at(4, lambda r: r._replace(body=r.body + b" ")), 5, "hash"),
    "a text changed and hashed anew": (at(4, lambda r: rehashed(r, edited(r, at=7))), 5, "copied"),
    "a text and its copy changed and hashed anew": (
        at(4, lambda r: rehashed(r, edited(r, at=7))._replace(at=7)),
        6,
        "prev_hash",
    ),
    "a hash changed": (at(4, lambda r: r._replace(hash=bytes(32))), 5, "hash"),
    "a prev_hash changed": (at(4, lambda r: r._replace(prev_hash=bytes(32))), 5, "prev_hash"),
    "the first prev_hash changed": (at(0, lambda r: r._replace(prev_hash=b"x" * 32)), 1, "prev_hash"),
    "an event left out": (lambda records: [*records[:4], *records[5:]], 5, "missing"),
    "the first event left out": (lambda records: records[1:], 1, "missing"),
    "an event left out and the others renumbered": (
        lambda records: [*records[:4], *(r._replace(seq=r.seq - 1) for r in records[5:])],
        5,
        "prev_hash",
    ),
    "an event twice": (lambda records: [*records[:5], *records[4:]], 6, "missing"),
    "two events swapped": (lambda records: [*records[:4], records[5], records[4], *records[6:]], 5, "missing"),
    "two events swapped and renumbered": (
        lambda records: [
            *records[:4],
            records[5]._replace(seq=5),
            records[4]._replace(seq=6),
            *records[6:],
        ],
        5,
        "prev_hash",
    ),
    "an event inserted": (
        lambda records: [*records[:4], records[4], *(r._replace(seq=r.seq + 1) for r in records[4:])],
        6,
        "prev_hash",
    ),
    "the copied seq changed": (at(4, lambda r: r._replace(seq=9)), 5, "missing"),
    "the copied type changed": (at(4, lambda r: r._replace(type="run.undone")), 5, "copied"),
    "the copied step changed": (at(4, lambda r: r._replace(step_id=uuid(1, 4))), 5, "copied"),
    "the copied step removed": (at(4, lambda r: r._replace(step_id=None)), 5, "copied"),
    "the copied actor changed": (at(4, lambda r: r._replace(actor="mallory")), 5, "copied"),
    "the copied time changed": (at(4, lambda r: r._replace(at=r.at + 1)), 5, "copied"),
    "the copied run changed": (at(4, lambda r: r._replace(run_id=RunId(uuid(0, 2)))), 5, "copied"),
    "a text that is not JSON": (
        lambda records: rechained(at(4, lambda r: r._replace(body=b"{"))(records), 4),
        5,
        "no event",
    ),
    "a text that is no object": (
        lambda records: rechained(at(4, lambda r: r._replace(body=b"[]"))(records), 4),
        5,
        "no event",
    ),
    "a text without an actor": (
        lambda records: rechained(at(4, lambda r: r._replace(body=edited(r, actor=None)))(records), 4),
        5,
        "no event",
    ),
    "a text whose actor is a name": (
        lambda records: rechained(at(4, lambda r: r._replace(body=edited(r, actor="ada")))(records), 4),
        5,
        "no event",
    ),
    "the tail cut off": (lambda records: records[:-1], -1, "ends before"),
    "everything cut off": (lambda records: [], 1, "ends before"),
    "the last event rewritten": (
        lambda records: [*records[:-1], rehashed(records[-1], edited(records[-1], data={"reason": "expired"}))],
        -1,
        "recorded head",
    ),
    "all of it rewritten": (
        lambda records: rechained(at(0, lambda r: r._replace(body=edited(r, data={})))(records), 0),
        -1,
        "recorded head",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_verify_shows(name: str, chain: tuple[list[Record], Head]) -> None:
    records, head = chain
    tamper, first_bad, reason = FAULTS[name]
    verdict = verify(RUN, tamper(list(records)), head)
    assert not verdict.verified
    assert verdict.first_bad_seq == (first_bad if first_bad > 0 else len(records))
    assert reason in (verdict.reason or "")
    with pytest.raises(IntegrityError):
        require(verdict)


def test_events_behind_the_recorded_head_show(chain: tuple[list[Record], Head]) -> None:
    records, _ = chain
    verdict = verify(RUN, records, Head(len(records) - 2, records[-3].hash))
    assert (verdict.verified, verdict.first_bad_seq) == (False, len(records) - 1)


def test_the_chain_of_another_run_is_not_this_run_s(chain: tuple[list[Record], Head]) -> None:
    records, head = chain
    verdict = verify(RunId(uuid(0, 2)), records, head)
    assert (verdict.verified, verdict.first_bad_seq) == (False, 1)
    assert "another run" in (verdict.reason or "")


def test_a_chain_rewritten_from_its_start_holds_by_itself_and_only_a_head_kept_elsewhere_shows_it(
    chain: tuple[list[Record], Head],
) -> None:
    records, head = chain
    forged = rechained([records[0]._replace(body=edited(records[0], data={})), *records[1:]], 0)
    assert verify(RUN, forged).verified
    assert not verify(RUN, forged, head).verified


# Reading back


def test_the_stored_texts_alone_give_the_state(chain: tuple[list[Record], Head]) -> None:
    records, _ = chain
    assert fold(parse(record.body) for record in records) == golden_run().state


def test_a_text_from_a_driver_that_returns_str_reads_the_same(chain: tuple[list[Record], Head]) -> None:
    for record in chain[0]:
        assert parse(record.body.decode()) == parse(record.body)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"v":1}'])
def test_a_text_that_is_no_event_contradicts_the_journal(body: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse(body)


def test_an_event_of_another_version_is_refused_and_not_guessed(chain: tuple[list[Record], Head]) -> None:
    with pytest.raises(IntegrityError, match="version 2"):
        parse(edited(chain[0][0], v=2))
    with pytest.raises(IntegrityError):
        parse(edited(chain[0][0], type="run.teleported"))


def test_an_outcome_changed_in_storage_changes_the_chain() -> None:
    run = started(spec(1))
    run.complete(1)
    other = started(spec(1))
    other.complete(1, result=OUTPUT._replace(output_sha256="1" * 64))
    assert run.records()[1].hash != other.records()[1].hash
