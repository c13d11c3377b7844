"""A bundle is checked alone; every change to it is found, by the first event that does not fit where there is one."""

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain import canonical
from stepgate.domain.errors import IntegrityError, InvalidValue
from stepgate.engine import audit
from stepgate.engine.audit import export, fingerprint, verify
from stepgate.state_files import AUDIT_KEY, audit_key
from stepgate.storage.reads.audit import Evidence, evidence
from tests.worker.lab import Lab, opened

Change = Callable[[dict[str, Any]], None]
KEY = Ed25519PrivateKey.generate()
STEPS = [
    {"key": "look", "type": "read_file", "input": {"path": "a.txt"}},
    {"key": "write", "type": "edit_file", "input": {"path": "b.txt", "content": "new\n"}},
]


@pytest.fixture
async def found(database_url: str, tmp_path: Path) -> Evidence:
    """What one approved and completed run left."""
    async with opened(database_url, tmp_path) as lab:
        return await _evidence(lab)


async def _evidence(lab: Lab) -> Evidence:
    (lab.workspace / "a.txt").write_text("text\n")
    run_id = await lab.create(STEPS)
    await lab.approve(run_id, "write")
    await lab.until_status(run_id, "completed")
    return await evidence(lab.stack.database, run_id)


def run_of(found: Evidence) -> Any:
    return json.loads(found.events[0])["run_id"]


def bundle(found: Evidence, key: Ed25519PrivateKey = KEY) -> bytes:
    return export(run_of(found), *found, key)


def resigned(data: dict[str, Any]) -> bytes:
    """As whoever holds the key could have made it."""
    data.pop("signature", None)
    encoded = canonical.dumps(data)
    data["signature"] = base64.b64encode(KEY.sign(b"stepgate-audit-v1\n" + encoded)).decode()
    return canonical.dumps(data)


async def test_a_bundle_is_verified_without_anything_else(found: Evidence) -> None:
    data = bundle(found)
    name = fingerprint(KEY.public_key())
    verdict = verify(data)
    assert (verdict.verified, verdict.events, verdict.key, verdict.trusted) == (True, len(found.events), name, False)
    assert verify(data, name).trusted
    written = json.loads(data)
    assert [(step["key"], step["status"]) for step in written["steps"]] == [
        ("look", "completed"),
        ("write", "completed"),
    ]
    (approval,) = written["approvals"]
    assert (approval["status"], approval["decisions"][0]["verdict"]) == ("approved", "approved")
    assert json.loads(approval["rendering"])["title"]
    assert [change["path"] for change in written["change_sets"][0]["body"]["changes"]] == ["b.txt"]


async def test_another_key_than_the_trusted_one_is_told(found: Evidence) -> None:
    mine = fingerprint(KEY.public_key())
    verdict = verify(bundle(found, Ed25519PrivateKey.generate()), mine)
    assert not verdict.verified
    assert mine in (verdict.reason or "")


async def test_the_first_event_that_does_not_fit_is_named(found: Evidence) -> None:
    data = json.loads(bundle(found))
    for index in range(len(data["events"])):
        forged = json.loads(canonical.dumps(data))
        forged["events"][index]["body"] = forged["events"][index]["body"].replace('"v":1', '"v": 1')
        verdict = verify(resigned(forged))
        assert (verdict.verified, verdict.first_bad_seq) == (False, index + 1)
        cut = json.loads(canonical.dumps(data))
        del cut["events"][index]
        assert not verify(resigned(cut)).verified


def _status(data: dict[str, Any]) -> None:
    data["steps"][0]["status"] = "skipped"


def _goal(data: dict[str, Any]) -> None:
    data["run"]["goal"] = "another"


def _approver(data: dict[str, Any]) -> None:
    data["approvals"][0]["decisions"][0]["actor"] = "somebody"


def _rendering(data: dict[str, Any]) -> None:
    data["approvals"][0]["rendering"] = "{}"


def _no_approval(data: dict[str, Any]) -> None:
    data["approvals"] = []


def _change(data: dict[str, Any]) -> None:
    data["change_sets"][0]["body"]["changes"][0]["path"] = "c.txt"


def _change_twice(data: dict[str, Any]) -> None:
    other = json.loads(canonical.dumps(data["change_sets"][0]))
    other["body"]["changes"][0]["path"] = "c.txt"
    data["change_sets"].insert(0, other)


def _no_change(data: dict[str, Any]) -> None:
    data["change_sets"] = []


def _head(data: dict[str, Any]) -> None:
    data["run"]["head_hash"] = "0" * 64


def _extra(data: dict[str, Any]) -> None:
    data["more"] = 1


@pytest.mark.parametrize(
    "change", [_status, _goal, _approver, _rendering, _no_approval, _change, _change_twice, _no_change, _head, _extra]
)
async def test_whatever_is_changed_is_found_even_under_a_fresh_signature(found: Evidence, change: Change) -> None:
    data = json.loads(bundle(found))
    change(data)
    assert not verify(resigned(data)).verified


async def test_a_signature_of_something_else_does_not_count(found: Evidence) -> None:
    data = json.loads(bundle(found))
    for signature in ("", "AAAA", None, data["key"]["public"]):
        verdict = verify(canonical.dumps({**data, "signature": signature}))
        assert (verdict.verified, verdict.reason) == (False, "the signature does not fit what it signs")
    nobody = {**data, "key": {"algorithm": "ed25519", "public": "AAAA"}}
    assert verify(canonical.dumps(nobody)).reason == "it names no key that could have signed it"


async def test_what_does_not_fit_together_is_not_signed(found: Evidence) -> None:
    run_id = run_of(found)
    with pytest.raises(IntegrityError):
        export(run_id, *found._replace(events=found.events[:-2]), KEY)
    with pytest.raises(IntegrityError):
        export(run_id, *found._replace(renderings={}), KEY)
    with pytest.raises(IntegrityError):
        export(run_id, *found._replace(change_sets={}), KEY)
    with pytest.raises(IntegrityError):
        export(run_id, *found._replace(events=[found.events[0], *found.events[2:]]), KEY)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
parts = st.sampled_from(["run", "events", "steps", "approvals", "change_sets", "key", "signature", "version"])


@given(st.dictionaries(parts, json_values), st.lists(st.dictionaries(st.sampled_from(["body", "hash"]), st.text())))
def test_no_file_makes_the_check_fall_over(more: dict[str, Any], events: list[Any]) -> None:
    shape = {"format": audit.FORMAT, "version": 1, "run": {}, "events": events, "steps": [], "approvals": []}
    data = canonical.dumps({**shape, "change_sets": [], "key": {}, **more})
    with suppress(InvalidValue):
        assert not verify(data).verified


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"format": "other"}', b'{"format": "stepgate-audit"}'])
def test_another_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidValue):
        verify(data)


def test_the_key_is_made_once_and_only_for_its_user(tmp_path: Path) -> None:
    first = audit_key(tmp_path / "state")
    assert fingerprint(audit_key(tmp_path / "state").public_key()) == fingerprint(first.public_key())
    assert (tmp_path / "state" / AUDIT_KEY).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "state").iterdir()] == [AUDIT_KEY]


@pytest.mark.parametrize("text", [None, "", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_configured_key_that_is_none_is_refused_by_name(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "key.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidValue) as caught:
        audit_key(tmp_path, path)
    assert caught.value.field == "STEPGATE_AUDIT_KEY"
