"""A workspace as it was at an earlier step of a run, as one change set for a copy of the folder as it is today."""

from collections.abc import Container, Iterable, Sequence

from stepgate.domain.errors import Conflict, PathRefused, WorkspaceConflict
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Kind, Node
from stepgate.workspace.netundo import equal, now_at, summed_up
from stepgate.workspace.preflight import is_folder_after, strangers

CANNOT_FORK = "cannot_fork"


def rewind(
    root: Root, applied: Sequence[ChangeSet], kept: Container[str], blobs: BlobStore, set_id: str | None = None
) -> ChangeSet:
    """The one set that brings every path the sets touched to its state after the `kept` ones (by id) alone.

    A path may stand now in any state that a set recorded: the run worked in the folder or in a copy of it, its result
    may have been undone or delivered. Raises WorkspaceConflict, with the paths, where somebody else wrote them;
    Conflict `cannot_fork`, with the paths, where a kept set changed a path after one that is taken back, and where the
    former content is not stored.
    """
    known, target = _states(applied, kept)
    touched, drifted, changes = frozenset(known), set[str](), list[Change]()
    for path in sorted(known):
        now = now_at(root, path, touched)
        if isinstance(now, PathRefused | WorkspaceConflict) or not any(equal(now, one) for one in known[path]):
            drifted.add(path)
        elif not equal(now, target[path]):
            changes.append(Change(path, now, target[path]))
    if drifted:
        raise _drifted(drifted)
    found = ChangeSet.of(changes, set_id)
    for change in found.changes:
        if change.before is not None and change.before.kind is Kind.FOLDER and not is_folder_after(change):
            drifted.update(strangers(root, found, change.path))
    if drifted:
        raise _drifted(drifted)
    _check_stored(found, blobs)
    return found


def _states(
    applied: Iterable[ChangeSet], kept: Container[str]
) -> tuple[dict[str, list[Node | None]], dict[str, Node | None]]:
    """Every recorded state of each path, and the one it shall have."""
    known, target = dict[str, list[Node | None]](), dict[str, Node | None]()
    taken_back, tangled = set[str](), set[str]()
    for one in applied:
        for change in one.changes:
            known.setdefault(change.path, []).extend((change.before, change.after))
            if one.id in kept:
                if change.path in taken_back:
                    tangled.add(change.path)
                target[change.path] = change.after
            elif change.path not in taken_back:
                taken_back.add(change.path)
                target[change.path] = change.before
    if tangled:
        raise _cannot("steps that are kept changed these after steps that begin anew", sorted(tangled))
    return known, target


def _check_stored(change_set: ChangeSet, blobs: BlobStore) -> None:
    missing = [
        change.path
        for change in change_set.changes
        if change.after is not None and change.after.sha256 is not None and not blobs.has(change.after.sha256)
    ]
    if missing:
        raise _cannot("their content at that step is not stored", missing)


def _cannot(why: str, paths: Sequence[str]) -> Conflict:
    return Conflict(
        f"the workspace cannot be brought back, {why}: {summed_up(paths)}",
        code=CANNOT_FORK,
        field="from_step",
        fix="fork from another step",
        details={"paths": list(paths)},
    )


def _drifted(paths: Iterable[str]) -> WorkspaceConflict:
    found = sorted(paths)
    return WorkspaceConflict(
        f"changed since by somebody else: {summed_up(found)}",
        field="path",
        fix="save your changes elsewhere and restore these paths",
        details={"paths": found},
    )
