"""Several change sets as one: what they did together, and the one set that takes it all back."""

from collections.abc import Container, Sequence
from dataclasses import replace

from stepgate.domain.errors import Conflict, IntegrityError, PathRefused, WorkspaceConflict
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Kind, Node
from stepgate.workspace.paths import ancestors
from stepgate.workspace.preflight import is_folder_after, strangers
from stepgate.workspace.states import node_at, stat_beneath

NAMED = 3
CANNOT_UNDO = "cannot_undo"


def combine(sets: Sequence[ChangeSet]) -> ChangeSet:
    """The net effect of sets in applied order: each path before the first and after the last, where the two differ."""
    net = {path: (before, after) for path, before, after in _ends(sets) if not equal(before, after)}
    # Where a person made a folder anew between two sets, the later set's files in it outlive its recorded end.
    alive = {folder for path, (_, after) in net.items() if after is not None for folder in ancestors(path)}
    return ChangeSet.of(
        Change(path, before, after)
        for path, (before, after) in net.items()
        if path not in alive or (after is not None and after.kind is Kind.FOLDER)
    )


def net_undo(root: Root, applied: Sequence[ChangeSet], blobs: BlobStore, set_id: str) -> ChangeSet:
    """The one set that takes back the sets (in applied order): before is what is there now, after what was there first.

    Raises WorkspaceConflict with `details["paths"]` where somebody wrote after the last set: paths that are not in
    its `after` state, and strangers in folders that would go. Raises Conflict `cannot_undo`, with the paths, where the
    former content was too large to be kept, IntegrityError where it is lost.
    """
    undone, conflicts = list[Change](), set[str]()
    ends = _ends(applied)
    touched = frozenset(path for path, _, _ in ends)
    for path, before, after in ends:
        now = now_at(root, path, touched)
        if isinstance(now, PathRefused | WorkspaceConflict) or not equal(now, after):
            conflicts.add(path)
        elif not equal(now, before):
            undone.append(Change(path, now, before))
    if not conflicts:
        found = ChangeSet.of(undone, set_id)
        for change in found.changes:
            if change.before is not None and change.before.kind is Kind.FOLDER and not is_folder_after(change):
                conflicts.update(strangers(root, found, change.path))
        if not conflicts:
            return _restorable(found, blobs)
    raise WorkspaceConflict(
        f"changed after the steps to undo: {summed_up(sorted(conflicts))}",
        field="path",
        fix="save your changes elsewhere and restore these paths",
        details={"paths": sorted(conflicts)},
    )


def summed_up(paths: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(map(repr, paths[:NAMED])) + more


def _ends(sets: Sequence[ChangeSet]) -> list[tuple[str, Node | None, Node | None]]:
    first, last = dict[str, Node | None](), dict[str, Node | None]()
    for one in sets:
        for change in one.changes:
            first.setdefault(change.path, change.before)
            last[change.path] = change.after
    return [(path, first[path], last[path]) for path in sorted(first)]


def now_at(root: Root, path: str, touched: Container[str]) -> Node | PathRefused | WorkspaceConflict | None:
    """What is at a path, or why that cannot be told; `touched` as in `stat_beneath`."""
    try:
        return node_at(root, path) if stat_beneath(root, path, touched) is not None else None
    except (PathRefused, WorkspaceConflict) as error:
        return error


def equal(one: Node | None, other: Node | None) -> bool:
    """Whether both are the same state, or absent."""
    return other is None if one is None else one.same(other)


def _restorable(change_set: ChangeSet, blobs: BlobStore) -> ChangeSet:
    """The set, once everything that it would bring back is known to be stored."""
    missing = [
        (change.path, change.after)
        for change in change_set.changes
        if change.after is not None and change.after.sha256 is not None and not blobs.has(change.after.sha256)
    ]
    never_kept = [path for path, node in missing if not node.kept]
    if never_kept:
        raise Conflict(
            f"too large to be kept, so what was there cannot be brought back: {summed_up(never_kept)}",
            code=CANNOT_UNDO,
            field="path",
            fix="undo to a later step, one after these paths were changed",
            details={"paths": never_kept},
        )
    if missing:
        lost = sorted({node.sha256 for _, node in missing if node.sha256 is not None})
        raise IntegrityError(f"{len(lost)} of the files to restore are no longer stored", details={"sha256": lost})
    return ChangeSet.of((_stored(change) for change in change_set.changes), change_set.id)


def _stored(change: Change) -> Change:
    if change.after is None or change.after.kept:
        return change
    return replace(change, after=replace(change.after, kept=True))
