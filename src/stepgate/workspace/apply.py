"""Applying a change set so that after any crash doing it again gives the same, unless others wrote there."""

import os
from dataclasses import dataclass

from stepgate.domain.errors import NotFound, PathRefused
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Kind
from stepgate.workspace.opening import refused
from stepgate.workspace.paths import parent_of
from stepgate.workspace.placing import OnPoint, Placing
from stepgate.workspace.preflight import DONE, applied_state, is_folder_after, refuse_conflicts
from stepgate.workspace.states import OWNER_ACCESS, Seen, State, see_all
from stepgate.workspace.syscalls import fsync, sync_filesystem

# syncfs also waits for what every other program wrote to the disk, so it only pays for many files. Folders are cheap to
# sync one by one: the first takes the journal of the file system with it.
_FEW_FILES = 32
_FEW_FOLDERS = 256

__all__ = ["Applied", "OnPoint", "applied_state", "apply"]


@dataclass(frozen=True, slots=True)
class Applied:
    """`changed`: paths written now, `already`: paths that were in place, `owner_changed`: replaced files whose owner
    could not be kept."""

    change_set_id: str
    changed: tuple[str, ...]
    already: tuple[str, ...]
    owner_changed: tuple[str, ...]


def _no_point(_name: str) -> None:
    return


def apply(root: Root, change_set: ChangeSet, blobs: BlobStore, *, on_point: OnPoint = _no_point) -> Applied:
    """Brings every path to its `after` state and returns when that is durable; the caller holds the exclusive lock.

    `on_point` is called with a name at every place where a crash leaves another state. Raises WorkspaceConflict with
    `details["paths"]` when a path is neither in its `before` nor its `after` state: found before the first write,
    nothing is written; found later (another program ignoring the lock), nothing more is. Raises PathRefused for
    folders that may not be written, NotFound or IntegrityError for missing or damaged blobs: nothing is written then.
    """
    placing = Placing(root, change_set, on_point)
    try:
        on_point("start")
        placing.sweep()
        on_point("swept")
        seen = see_all(root, change_set)
        refuse_conflicts(root, change_set, seen)
        on_point("checked")
        try:
            _write(root, change_set, seen, blobs, placing, on_point)
        finally:
            placing.sweep()
        on_point("cleaned")
        _make_names_durable(root, change_set)
        on_point("durable")
    except OSError as error:
        raise refused(error, str(error.filename or root.path)) from error
    pairs = tuple(zip(change_set.paths, seen, strict=True))
    return Applied(
        change_set.id,
        tuple(path for path, one in pairs if one.state not in DONE),
        tuple(path for path, one in pairs if one.state in DONE),
        tuple(placing.owner_changed),
    )


def _write(
    root: Root, change_set: ChangeSet, seen: tuple[Seen, ...], blobs: BlobStore, placing: Placing, on_point: OnPoint
) -> None:
    todo = [pair for pair in zip(change_set.changes, seen, strict=True) if pair[1].state not in DONE]
    _widen(change_set, seen, {parent_of(change.path) for change, _ in todo}, placing, on_point)
    _prepare(root, todo, blobs, placing, on_point)
    for change, one in todo:
        if is_folder_after(change):
            placing.make_folder(change, one.stat)
            on_point(f"folder:{change.path}")
    for change, one in todo:
        if change.after is not None and not is_folder_after(change) and not _was_folder(one):
            placing.place(change, one.stat)
            on_point(f"placed:{change.path}")
    for change, one in reversed(todo):
        if one.stat is not None and (change.after is None or (_was_folder(one) and not is_folder_after(change))):
            placing.remove(change, one.stat)
            on_point(f"removed:{change.path}")
            if change.after is not None:
                placing.place(change, None)
                on_point(f"placed:{change.path}")
    _finish(root, change_set, seen, placing, on_point)


def _was_folder(one: Seen) -> bool:
    return one.stat is not None and one.stat.kind is Kind.FOLDER


def _widen(
    change_set: ChangeSet, seen: tuple[Seen, ...], needed: set[str], placing: Placing, on_point: OnPoint
) -> None:
    """Lets the owner write into folders of the set that forbid it; `_finish` or their removal ends that."""
    for change, one in zip(change_set.changes, seen, strict=True):
        before = change.before
        if change.path not in needed or before is None or one.state not in (State.BEFORE, State.BOTH):
            continue
        if before.kind is Kind.FOLDER and before.mode & OWNER_ACCESS != OWNER_ACCESS:
            placing.set_mode(change.path, before.mode | OWNER_ACCESS)
            on_point(f"widened:{change.path}")


def _prepare(
    root: Root, todo: list[tuple[Change, Seen]], blobs: BlobStore, placing: Placing, on_point: OnPoint
) -> None:
    files = [(change, one) for change, one in todo if change.after is not None and not is_folder_after(change)]
    few = len(files) <= _FEW_FILES
    for change, one in files:
        if change.after is not None:
            replaced = one.stat if not _was_folder(one) else None
            placing.prepare(change, change.after, replaced, blobs, durable=few)
            on_point(f"prepared:{change.path}")
    if files and not few:
        _sync(root)
    on_point("prepared")


def _finish(root: Root, change_set: ChangeSet, seen: tuple[Seen, ...], placing: Placing, on_point: OnPoint) -> None:
    """Folder modes and all times, deepest first, since work inside a folder changes its time and needs its mode.

    Files got theirs before they were placed; one that was in place already gets it unless somebody wrote it since.
    """
    for change, one in reversed(tuple(zip(change_set.changes, seen, strict=True))):
        if change.after is None:
            continue
        now = root.stat(change.path)
        if now is None or not (is_folder_after(change) or (one.state in DONE and now == one.stat)):
            continue
        if is_folder_after(change) and now.mode & 0o777 != change.after.mode:
            placing.set_mode(change.path, change.after.mode)
            on_point(f"mode:{change.path}")
        if now.mtime_ns != change.after.mtime_ns:
            placing.set_time(change.path, change.after.mtime_ns)
            on_point(f"time:{change.path}")


def _make_names_durable(root: Root, change_set: ChangeSet) -> None:
    folders = {parent_of(change.path) for change in change_set.changes}
    folders |= {change.path for change in change_set.changes if is_folder_after(change)}
    if len(folders) > _FEW_FOLDERS:
        _sync(root)
        return
    for folder in sorted(folders):
        try:
            descriptor = root.open_folder(folder)
        except NotFound:
            continue
        except PathRefused:
            # A folder whose owner may not read it can only be made durable with everything else.
            _sync(root)
            return
        try:
            fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync(root: Root) -> None:
    descriptor = root.open_folder()
    try:
        if not sync_filesystem(descriptor):
            os.sync()
    finally:
        os.close(descriptor)
