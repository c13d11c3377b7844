"""What happened in a run as one signed file, which anybody can check without a database."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stepgate.domain import canonical, journal
from stepgate.domain.errors import IntegrityError, InvalidValue, StepgateError
from stepgate.domain.events import Event
from stepgate.domain.evolve import fold
from stepgate.domain.ids import RunId
from stepgate.domain.journal import GENESIS, Head
from stepgate.domain.policy.decide import BUILTIN_VERSION
from stepgate.domain.projection import decision_rows, request_row
from stepgate.domain.state import Approval, RunState, StepState
from stepgate.workspace.changes import ChangeSet

FORMAT: Final = "stepgate-audit"
VERSION: Final = 2
_CONTEXT: Final = b"stepgate-audit-v1\n"
"""Put before what is signed, so that no signature of something else can be taken for one of a bundle."""
_LOOK: Final = "stepgate verify names what differs"
_SIGNED: Final = ("format", "version", "run", "events", "steps", "approvals", "change_sets", "policies", "key")


@dataclass(frozen=True, slots=True)
class Audited:
    """What checking a bundle showed. `first_bad_seq` is the first event that does not fit, where it is an event.

    `key` is the fingerprint of the key that signed; `trusted` says whether it was compared with one given by the user.
    """

    verified: bool
    run_id: str | None
    events: int
    key: str | None
    trusted: bool
    first_bad_seq: int | None = None
    reason: str | None = None


class _Unfit(Exception):
    def __init__(self, reason: str, seq: int | None = None) -> None:
        super().__init__(reason)
        self.seq = seq


def fingerprint(key: Ed25519PublicKey) -> str:
    """`sha256:` and the hexadecimal digest of the 32 bytes of the key."""
    return f"sha256:{sha256(_raw(key)).hexdigest()}"


def export(
    run_id: RunId,
    bodies: Sequence[str],
    recorded: Head,
    renderings: Mapping[str, str],
    change_sets: Mapping[str, Mapping[str, Any]],
    policies: Mapping[str, str],
    key: Ed25519PrivateKey,
) -> bytes:
    """The bundle as canonical JSON: `bodies` are the events' stored texts, `recorded` the
    head that they must lead to, `renderings` and `change_sets` go by id, `policies` by version.

    Raises IntegrityError rather than sign what does not fit together.
    """
    events, head = [], GENESIS
    for body in bodies:
        head = sha256(head + body.encode()).digest()
        events.append({"body": body, "hash": head.hex()})
    if Head(len(bodies), head) != recorded:
        raise IntegrityError("the journal does not lead to its recorded head", fix=_LOOK)
    try:
        state = fold(journal.parse(body) for body in bodies)
    except StepgateError as error:
        raise IntegrityError(f"the journal does not add up: {error}", fix=_LOOK) from error
    bundle = {
        "format": FORMAT,
        "version": VERSION,
        "run": {**_run(state), "head_seq": len(bodies), "head_hash": head.hex()},
        "events": events,
        "steps": [_step(step) for step in _ordered(state)],
        "approvals": [
            {**_approval(state, step, approval), "rendering": renderings.get(approval.request_id)}
            for step in _ordered(state)
            for approval in step.approvals
        ],
        "change_sets": [{"id": id_, "body": body} for id_, body in sorted(change_sets.items())],
        "policies": [{"version": version, "content": content} for version, content in sorted(policies.items())],
        "key": {"algorithm": "ed25519", "public": base64.b64encode(_raw(key.public_key())).decode()},
    }
    bundle["signature"] = base64.b64encode(key.sign(_CONTEXT + canonical.dumps(bundle))).decode()
    verdict = verify(canonical.dumps(bundle))
    if not verdict.verified or verdict.run_id != run_id:
        raise IntegrityError(f"the run does not fit together: {verdict.reason}", fix=_LOOK)
    return canonical.dumps(bundle)


def verify(data: bytes, trusted: str | None = None) -> Audited:
    """Checks a bundle alone: the chain, what it adds up to, every body, and the signature.

    `trusted` is the fingerprint of the only key that may have signed. Raises InvalidValue for what is no bundle.
    """
    bundle = _bundle(data)
    events = bundle["events"]
    signer, signer_reason = _signer(bundle)
    name = None if signer is None else fingerprint(signer)
    run_id = bundle["run"].get("id")
    try:
        state = _chain(bundle["run"], events)
        _contents(bundle, state)
        if signer_reason is not None:
            raise _Unfit(signer_reason)
        if trusted is not None and name != trusted:
            raise _Unfit(f"it was signed by the key {name}, not by {trusted}")
    except _Unfit as unfit:
        return Audited(False, run_id, len(events), name, False, unfit.seq, str(unfit))
    return Audited(True, run_id, len(events), name, trusted is not None)


def _bundle(data: bytes) -> dict[str, Any]:
    fault = InvalidValue("this file is no audit bundle", field="FILE", fix="give a file that `audit export` wrote")
    try:
        value = canonical.loads(data)
    except InvalidValue as error:
        raise fault from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise fault
    if value.get("version") != VERSION:
        raise InvalidValue(
            f"a bundle of version {value.get('version')!r}: this code knows version {VERSION}",
            field="FILE",
            fix="check it with the Stepgate that knows it",
        )
    lists = ("events", "steps", "approvals", "change_sets", "policies")
    shapes = {"run": dict, **dict.fromkeys(lists, list), "key": dict}
    for name, shape in shapes.items():
        if not isinstance(value.get(name), shape):
            raise fault
        if shape is list and not all(isinstance(one, dict) for one in value[name]):
            raise fault
    return value


def _signer(bundle: Mapping[str, Any]) -> tuple[Ed25519PublicKey | None, str | None]:
    """The key that the bundle names, and why its signature does not count, if it does not."""
    try:
        key = Ed25519PublicKey.from_public_bytes(_decoded(bundle["key"].get("public")))
    except ValueError:
        return None, "it names no key that could have signed it"
    try:
        signed = {name: value for name, value in bundle.items() if name != "signature"}
        if set(signed) != set(_SIGNED):
            return key, "it holds more or less than a bundle does"
        key.verify(_decoded(bundle.get("signature")), _CONTEXT + canonical.dumps(signed))
    except (InvalidSignature, ValueError, StepgateError):
        return key, "the signature does not fit what it signs"
    return key, None


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("no text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error


def _chain(run: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> RunState:
    """The state the events add up to; raises _Unfit with the first that does not follow from those before."""
    head = GENESIS
    parsed = []
    for seq, event in enumerate(events, 1):
        body = event.get("body")
        if not isinstance(body, str):
            raise _Unfit("the event has no text", seq)
        head = sha256(head + body.encode("utf-8", "replace")).digest()
        if event.get("hash") != head.hex():
            raise _Unfit("the text does not give the recorded hash", seq)
        try:
            said = canonical.loads(body)
            if (said.get("seq"), said.get("run_id")) != (seq, run.get("id")):
                raise _Unfit("the event belongs to another place or run", seq)
            parsed.append(journal.parse(body))
        except (StepgateError, AttributeError) as error:
            raise _Unfit(f"the text is no event: {error}", seq) from error
    if (run.get("head_seq"), run.get("head_hash")) != (len(events), head.hex()):
        raise _Unfit("the last event is not the recorded head", len(events))
    return _folded(parsed)


def _folded(parsed: Sequence[Event]) -> RunState:
    state: RunState | None = None
    for seq, event in enumerate(parsed, 1):
        try:
            state = fold((event,), state)
        except (StepgateError, LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise _Unfit(f"the event cannot follow those before it: {error}", seq) from error
    if state is None:
        raise _Unfit("there are no events")
    return state


def _contents(bundle: Mapping[str, Any], state: RunState) -> None:
    """Everything beside the events must be what they add up to, or have the digest that they name."""
    told = {name: value for name, value in bundle["run"].items() if name not in ("head_seq", "head_hash")}
    if told != canonical.loads(canonical.dumps(_run(state))):
        raise _Unfit("the run is not what its events add up to")
    if bundle["steps"] != [canonical.loads(canonical.dumps(_step(step))) for step in _ordered(state)]:
        raise _Unfit("the steps are not what the events add up to")
    approvals = [(step, approval) for step in _ordered(state) for approval in step.approvals]
    if len(approvals) != len(bundle["approvals"]):
        raise _Unfit("there are more or fewer approvals than the events tell of")
    for told, (step, approval) in zip(bundle["approvals"], approvals, strict=True):
        expected = canonical.loads(canonical.dumps(_approval(state, step, approval)))
        if {name: value for name, value in told.items() if name != "rendering"} != expected:
            raise _Unfit(f"approval {approval.request_id} is not what the events tell")
        shown = told.get("rendering")
        if not isinstance(shown, str) or _digest(shown) != expected["rendering_sha256"]:
            raise _Unfit(f"what was shown for approval {approval.request_id} is not what its event names")
    _change_sets(bundle["change_sets"], state)
    _policies(bundle["policies"], [approval for _, approval in approvals])


def _change_sets(given: Sequence[Mapping[str, Any]], state: RunState) -> None:
    expected = {
        step.result.change_set_id: step.result.change_set_digest
        for step in state.steps.values()
        if step.result is not None and step.result.change_set_id is not None
    }
    found: dict[str, str] = {}
    for one in given:
        try:
            body = ChangeSet.from_json(one["body"])
            found[str(one["id"])] = body.digest if body.id == one["id"] else ""
        except (StepgateError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise _Unfit(f"change set {one.get('id')} cannot be read: {error}") from error
    if len(given) != len(found):
        raise _Unfit("a change set stands there twice")
    if found != expected:
        odd = sorted(key for key in {*found, *expected} if key and found.get(key) != expected.get(key))
        raise _Unfit(f"change set {odd[0] if odd else ''} is not the one whose digest was recorded")


def _policies(given: Sequence[Mapping[str, Any]], approvals: Sequence[Approval]) -> None:
    """The text of every policy that a question names, and in it every rule that is said to have asked it."""
    names: dict[str, frozenset[str]] = {}
    for one in given:
        version, content = one.get("version"), one.get("content")
        if not isinstance(version, str) or not isinstance(content, str) or _digest(content) != version:
            raise _Unfit(f"the text of policy {version} is not the one that it is named by")
        try:
            names[version] = frozenset(rule["name"] for rule in canonical.loads(content)["rules"])
        except (StepgateError, LookupError, TypeError) as error:
            raise _Unfit(f"the text of policy {version} is no policy") from error
    if len(names) != len(given) or set(names) != {one.policy_version for one in approvals} - {BUILTIN_VERSION}:
        raise _Unfit("the policies are not those that the approvals name")
    for approval in approvals:
        said = {rule for rule in approval.matched_rules if ":" not in rule}
        if odd := sorted(said - names.get(approval.policy_version, frozenset())):
            raise _Unfit(f"approval {approval.request_id} names the rule {odd[0]}, which its policy does not have")


def _ordered(state: RunState) -> list[StepState]:
    return sorted(state.steps.values(), key=lambda step: step.spec.number)


def _run(state: RunState) -> dict[str, Any]:
    info = state.info
    return {
        "id": info.id,
        "goal": info.goal,
        "status": state.status,
        "reason": state.reason,
        "workspace_path": info.workspace_path,
        "workspace_rev": state.workspace_rev,
        "requester": info.requester._asdict(),
        "created_at": info.created_at,
        "completed_at": state.completed_at,
    }


def _step(step: StepState) -> dict[str, Any]:
    result = step.result
    return {
        "id": step.id,
        "key": step.spec.key,
        "number": step.spec.number,
        "type": step.spec.type,
        "status": step.status,
        "input_sha256": step.spec.input_sha256,
        "output_sha256": result.output_sha256 if result else None,
        "change_set_id": result.change_set_id if result else None,
        "change_set_digest": result.change_set_digest if result else None,
    }


def _approval(state: RunState, step: StepState, approval: Approval) -> dict[str, Any]:
    request = request_row(state.info.id, step, approval)._asdict()
    answers = [row._asdict() for row in decision_rows(state.info.id, approval)]
    for holder, name in ((request, "matched_rules"), (request, "roles"), *((answer, "roles") for answer in answers)):
        holder[name] = canonical.loads(holder[name])
    return {**request, "decisions": answers}


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
