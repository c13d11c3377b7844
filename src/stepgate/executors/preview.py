"""How a coming change is shown to people, counted in an action's hash and listed in an output."""

import re
from collections.abc import Mapping
from typing import Any, Final

from stepgate.domain import canonical
from stepgate.domain.errors import (
    BudgetExhausted,
    Conflict,
    InvalidValue,
    ModelFailure,
    NotFound,
    StaleApproval,
    StepgateError,
    WorkspaceConflict,
)
from stepgate.domain.policy.action import Change as PolicyChange
from stepgate.executors.base import Context, Params, Prepared
from stepgate.executors.readings import disguised, exact_line, plain
from stepgate.executors.screen import visible
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Node, Op
from stepgate.workspace.diff import unified

SHOWN_DIFF_BYTES: Final = 64 * 1024
SHOWN_FILES: Final = 200
SHOWN_PATH: Final = 200
LISTED_FILES: Final = 1000
# The lines of a diff that stand for content it leaves out.
_UNSHOWN: Final = re.compile(
    r"^(?:# (?:too large to show|not text|cannot be undone)|# \d+ more of \d+ changes)", re.MULTILINE
)


def files(change_set: ChangeSet) -> list[dict[str, Any]]:
    """`[{path, op, before, after}]`: sha256 of the content before and after, None where there is none."""
    return [
        {
            "path": change.path,
            "op": change.op.value,
            "before": change.before.sha256 if change.before else None,
            "after": change.after.sha256 if change.after else None,
        }
        for change in change_set.changes
    ]


def listed(change_set: ChangeSet) -> dict[str, Any]:
    """An output's `files`, the first 1000; then `files_total` says how many there are in the change set.

    `cannot_undo` names, where there are such, the paths whose former content is too large to be kept.
    """
    total = len(change_set.changes)
    lost = change_set.cannot_undo
    more: dict[str, Any] = {"files_total": total} if total > LISTED_FILES else {}
    more |= {"cannot_undo": list(lost[:LISTED_FILES])} if lost else {}
    return {"files": files(change_set)[:LISTED_FILES]} | more


def change_digest(change_set: ChangeSet) -> str:
    """sha256 over all that is changed but times, which are not known before the change is made."""
    return canonical.digest(canonical.dumps([_hashed(change) for change in change_set.changes]))


def _hashed(change: Change) -> dict[str, Any]:
    return {"path": change.path, "before": _timeless(change.before), "after": _timeless(change.after)}


def _timeless(node: Node | None) -> dict[str, Any] | None:
    if node is None:
        return None
    body = node.to_json()
    del body["mtime_ns"]
    return body


def touched(change_set: ChangeSet | None) -> PolicyChange:
    """What policy is asked about a change set; none changes nothing."""
    changes = () if change_set is None else change_set.changes
    return PolicyChange(tuple(change.path for change in changes), sum(change.op is Op.DELETE for change in changes))


def shown(change_set: ChangeSet, blobs: BlobStore) -> dict[str, Any]:
    """A rendering's `diff`, `files`, `truncated` and, where it is so, `cannot_undo` and `disguised` (it has characters
    that act on a screen or pass for others, which are written out), all bounded; it reads blobs.
    """
    diff = unified(change_set, blobs, max_bytes=SHOWN_DIFF_BYTES)
    entries = files(change_set)[:SHOWN_FILES]
    for entry in entries:
        entry["path"] = exact_line(entry["path"], SHOWN_PATH)
    # Written out, hostile text grows sixfold.
    text = visible(plain(diff, 2 * SHOWN_DIFF_BYTES), 2 * SHOWN_DIFF_BYTES)
    hidden = len(text) > 2 * SHOWN_DIFF_BYTES or _UNSHOWN.search(diff) is not None
    lost = [exact_line(path, SHOWN_PATH) for path in change_set.cannot_undo[:SHOWN_FILES]]
    return {
        "diff": text,
        "files": entries,
        "truncated": hidden or len(entries) < len(change_set.changes),
        **({"cannot_undo": lost} if lost else {}),
        **({"disguised": True} if _is_disguised(change_set, diff) else {}),
    }


def _is_disguised(change_set: ChangeSet, diff: str) -> bool:
    """Whether something in it acts on a screen, hides or passes for something else; ends of lines do not count."""
    lines = diff.replace("\r\n", "\n")
    return plain(lines, len(lines)) != lines or any(disguised(change.path) for change in change_set.changes)


def risk_of(seen: Mapping[str, Any]) -> str:
    """Of a change that is shown like this: high where a person cannot see all of it, or not as it is."""
    return "high" if seen["truncated"] or seen.get("disguised") else "medium"


def without_preview(title: str, params: Params, error: StepgateError) -> Prepared:
    """What an approver is asked where the effect cannot be computed now; another try at start makes a new question.

    Raises the error again where it is no fault of the input or of the files: then nobody is to be asked.
    """
    elsewhere = isinstance(error, WorkspaceConflict) and error.reason_code == "drifted"
    if (
        elsewhere
        or isinstance(error, BudgetExhausted)
        or not isinstance(error, InvalidValue | NotFound | Conflict | ModelFailure)
    ):
        raise error
    given = params.model_dump(mode="json", exclude_unset=True)
    paths = [exact_line(str(path), SHOWN_PATH) for path in error.details.get("paths") or ()][:SHOWN_FILES]
    return Prepared(
        action={"input": given, "preview": None},
        rendering={"title": title, "notes": [visible(f"no preview: {error}")], **({"paths": paths} if paths else {})},
        risk="high",
        failure=visible(str(error)),
    )


def hold_to(context: Context, action: Mapping[str, Any], path: str | None = None) -> None:
    """Raises StaleApproval unless the action is the one that was prepared and approved, where one was."""
    approved = context.prepared
    if approved is not None and canonical.dumps(approved.action) != canonical.dumps(action):
        raise stale(path)


def stale(path: str | None = None) -> StaleApproval:
    """The error that says the step must be prepared and, if the action is another, asked about again."""
    return StaleApproval(
        "the files are not what they were when this was approved",
        field="path" if path else None,
        fix="look at the change as it would be now",
        details={"paths": [path]} if path else None,
    )
