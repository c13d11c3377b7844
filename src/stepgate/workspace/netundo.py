"""Several change sets as one: what they did together, and the one set that takes it all back."""

from collections.abc import Container, Sequence

from stepgate.domain.errors import IntegrityError, PathRefused, WorkspaceConflict
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Kind, Node
from stepgate.workspace.paths import ancestors
from stepgate.workspace.preflight import is_folder_after, strangers
from stepgate.workspace.states import node_at, stat_beneath

NAMED = 3


def combine(sets: Sequence[ChangeSet]) -> ChangeSet:
    """The net effect of sets in applied order: each path before the first and after the last, where the two differ."""
    net = {path: (before, after) for path, before, after in _ends(sets) if not _equal(before, after)}
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
    its `after` state, and strangers in folders that would go. Raises IntegrityError when a pre-image is lost.
    """
    undone, conflicts = list[Change](), set[str]()
    ends = _ends(applied)
    touched = frozenset(path for path, _, _ in ends)
    for path, before, after in ends:
        now = _now(root, path, touched)
        if isinstance(now, PathRefused | WorkspaceConflict) or not _equal(now, after):
            conflicts.add(path)
        elif not _equal(now, before):
            undone.append(Change(path, now, before))
    if not conflicts:
        found = ChangeSet.of(undone, set_id)
        for change in found.changes:
            if change.before is not None and change.before.kind is Kind.FOLDER and not is_folder_after(change):
                conflicts.update(strangers(root, found, change.path))
        if not conflicts:
            _need_blobs(found, blobs)
            return found
    raise WorkspaceConflict(
        f"changed after the steps to undo: {_named(sorted(conflicts))}",
        field="path",
        fix="save your changes elsewhere and restore these paths",
        details={"paths": sorted(conflicts)},
    )


def _named(paths: Sequence[str]) -> str:
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


def _now(root: Root, path: str, touched: Container[str]) -> Node | PathRefused | WorkspaceConflict | None:
    try:
        return node_at(root, path) if stat_beneath(root, path, touched) is not None else None
    except (PathRefused, WorkspaceConflict) as error:
        return error


def _equal(one: Node | None, other: Node | None) -> bool:
    return other is None if one is None else one.same(other)


def _need_blobs(change_set: ChangeSet, blobs: BlobStore) -> None:
    needed = {change.after.sha256 for change in change_set.changes if change.after is not None} - {None}
    lost = sorted(name for name in needed if name is not None and not blobs.has(name))
    if lost:
        raise IntegrityError(f"{len(lost)} of the files to restore are no longer stored", details={"sha256": lost})
