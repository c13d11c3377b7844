"""Whether a change set may be applied to what is there now, decided before the first write."""

import os
from typing import Literal

from stepgate.domain.errors import PathRefused, WorkspaceConflict
from stepgate.workspace.access import Root
from stepgate.workspace.changes import Change, ChangeSet, Kind
from stepgate.workspace.paths import parent_of
from stepgate.workspace.states import Seen, State, see_all

DONE = (State.AFTER, State.BOTH)


def applied_state(
    root: Root, change_set: ChangeSet
) -> tuple[Literal["before", "after", "mixed", "conflict"], tuple[str, ...]]:
    """How far a set is applied, and the paths that say so: conflicting ones, or for `mixed` those not yet in place."""
    seen = see_all(root, change_set)
    conflicts = _conflicts(root, change_set, seen)
    if conflicts:
        return "conflict", conflicts
    pairs = tuple(zip(change_set.paths, seen, strict=True))
    missing = tuple(path for path, one in pairs if one.state not in DONE)
    if not missing:
        return "after", change_set.paths
    if all(one.state in (State.BEFORE, State.BOTH) for one in seen):
        return "before", change_set.paths
    return "mixed", missing


def refuse_conflicts(root: Root, change_set: ChangeSet, seen: tuple[Seen, ...]) -> None:
    paths = _conflicts(root, change_set, seen)
    if paths:
        named = ", ".join(repr(path) for path in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        raise WorkspaceConflict(
            f"another program changed {named}",
            field="path",
            fix="restore these paths or discard the change",
            details={"paths": list(paths), "change_set_id": change_set.id},
        )
    _refuse_unwritable(root, change_set, seen)


def _conflicts(root: Root, change_set: ChangeSet, seen: tuple[Seen, ...]) -> tuple[str, ...]:
    found = {change.path for change, one in zip(change_set.changes, seen, strict=True) if one.state is State.OTHER}
    todo = [pair for pair in zip(change_set.changes, seen, strict=True) if pair[1].state not in (*DONE, State.OTHER)]
    parents = {parent_of(change.path) for change, _ in todo if change.after is not None} - {""}
    found.update(path for path in parents if change_set.get(path) is None and not _is_folder(root, path))
    for change, one in todo:
        if one.stat is not None and one.stat.kind is Kind.FOLDER and not is_folder_after(change):
            found.update(strangers(root, change_set, change.path))
    return tuple(sorted(found))


def _is_folder(root: Root, path: str) -> bool:
    try:
        found = root.stat(path)
    except PathRefused:
        return False
    return found is not None and found.kind is Kind.FOLDER


def is_folder_after(change: Change) -> bool:
    return change.after is not None and change.after.kind is Kind.FOLDER


def strangers(root: Root, change_set: ChangeSet, folder: str) -> list[str]:
    """What lies in a folder that is to go, and does not go with it; shown with bytes that are not UTF-8 escaped."""
    inside = (f"{folder}/{name}" for name in root.list(folder))
    return [os.fsencode(path).decode("utf-8", "backslashreplace") for path in inside if change_set.get(path) is None]


def _refuse_unwritable(root: Root, change_set: ChangeSet, seen: tuple[Seen, ...]) -> None:
    folders = {
        parent_of(change.path)
        for change, one in zip(change_set.changes, seen, strict=True)
        if one.state not in DONE and not (is_folder_after(change) and one.stat is not None)
    }
    for folder in sorted(folder for folder in folders if change_set.get(folder) is None):
        descriptor = root.open_folder(folder, readable=False)
        try:
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=True):
                raise PathRefused(
                    f"the folder {folder or '.'!r} may not be written by this user",
                    field="path",
                    fix="check its permissions",
                )
        finally:
            os.close(descriptor)
