"""What came of an action that was run ahead of its question: kept whole, and shown, until somebody decides on it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple, assert_never

from stepgate.domain import canonical
from stepgate.domain.errors import IntegrityError
from stepgate.executors.base import Done, Failed, Outcome, Prepared
from stepgate.executors.preview import risk_of, shown, touched
from stepgate.executors.screen import visible
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet

FORMAT: Final = 1


class Origin(NamedTuple):
    """What an outcome holds for: the action's digest, and the revision of the workspace it was computed over."""

    action: str
    rev: str

    @classmethod
    def of(cls, prepared: Prepared, rev: str) -> "Origin":
        return cls(canonical.digest(canonical.dumps(prepared.action)), rev)


def change_set_of(outcome: Outcome) -> ChangeSet | None:
    """What is still to be applied, None where nothing changes."""
    change_set = outcome.change_set if isinstance(outcome, Done) else None
    return change_set if change_set is not None and change_set.changes else None


def dump(outcome: Outcome) -> bytes:
    """The outcome as canonical JSON; the contents of its change set are blobs of their own."""
    change_set = change_set_of(outcome)
    failed = None
    if isinstance(outcome, Failed):
        failed = {"code": outcome.code, "message": outcome.message, "field": outcome.field}
    return canonical.dumps(
        {
            "v": FORMAT,
            "output": outcome.output,
            "change_set": None if change_set is None else change_set.to_json(),
            "failed": failed,
        }
    )


def load(data: bytes) -> Outcome:
    """The inverse of `dump`; raises IntegrityError for anything else."""
    value = canonical.loads(data)
    if not isinstance(value, Mapping) or value.get("v") != FORMAT:
        raise IntegrityError("not a recorded outcome")
    if value["failed"] is not None:
        return Failed(**value["failed"], output=value["output"], own_end=True)
    body = value["change_set"]
    return Done(value["output"], None if body is None else ChangeSet.from_json(body))


def with_outcome(
    prepared: Prepared, outcome: Outcome, origin: Origin, name: str, seen: Mapping[str, Any], blobs: BlobStore
) -> Prepared:
    """The action together with what came of it, so that an approval covers both; blocks while it reads blobs.

    `name` is the sha256 of the kept outcome, `seen` what the executor shows of it.
    """
    change_set = change_set_of(outcome)
    failed = outcome.code if isinstance(outcome, Failed) else None
    covered = {
        "outcome": name,
        "exit_code": outcome.output.get("exit_code"),
        "output": canonical.digest(canonical.dumps(outcome.output)),
        "change_set": None if change_set is None else change_set.digest,
        "failed": failed,
    }
    diff = shown(change_set, blobs) if change_set is not None else {"diff": "", "files": [], "truncated": False}
    preview = {**origin._asdict(), "outcome": name, "failed": _failure(outcome), **seen}
    return replace(
        prepared,
        action={**prepared.action, "preview": covered},
        rendering={**prepared.rendering, **diff, "preview": preview},
        risk="high" if risk_of(diff) == "high" or seen.get("cut") else prepared.risk,
        change=touched(change_set),
        outcome=outcome,
    )


def without_outcome(prepared: Prepared, origin: Origin, why: str) -> Prepared:
    """The action alone, with the reason; once it is approved it is run, and not tried ahead of its question again."""
    why = visible(why)
    notes = [*prepared.rendering.get("notes", ()), f"no preview: {why}"]
    preview = {**origin._asdict(), "outcome": None, "why": why}
    return replace(prepared, rendering={**prepared.rendering, "notes": notes, "preview": preview}, failure=why)


def _failure(outcome: Outcome) -> str | None:
    match outcome:
        case Done():
            return None
        case Failed():
            return visible(outcome.message)
        case _:
            assert_never(outcome)
