"""The change set of one edited file, computed without writing to the workspace."""

import hashlib
import time
from dataclasses import replace

from stepgate.domain.errors import EditConflict, NotFound, PathRefused
from stepgate.workspace.access import FileContent, Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import PERMISSIONS, Change, ChangeSet, Kind, Node
from stepgate.workspace.paths import ancestors, check_relative, is_protected
from stepgate.workspace.repositories import refuse_repositories

MAX_EDIT_BYTES = 64 * 1024 * 1024
_NEW_FILE_MODE = 0o644
_NEW_FOLDER_MODE = 0o755


def build_edit(
    root: Root,
    path: str,
    new_bytes: bytes | None,
    mode: int | None = None,
    base_sha256: str | None = None,
    *,
    blobs: BlobStore,
    max_bytes: int = MAX_EDIT_BYTES,
    mtime_ns: int | None = None,
) -> ChangeSet:
    """The set that gives `path` these bytes (None deletes it), making the folders above it; empty if nothing changes.

    `mode` is permission bits (default: what the file has, 0o644 for a new one); `mtime_ns`, which is in the digest, the
    new file's time (default: now). Content after, and before up to the size that `blobs` keep, is put there, not yet
    synced. Raises EditConflict when the file's sha256 is not `base_sha256`, PathRefused for protected paths, links and
    whatever else is no regular file of at most `max_bytes`, NotFound when there is nothing to delete,
    ChangeRefused for files of a git repository.
    """
    path = check_relative(path)
    if is_protected(path):
        raise PathRefused(f"{path!r} is protected", field="path", fix="leave .git to git")
    if mode is not None and mode & ~PERMISSIONS:
        raise PathRefused(f"the mode {mode:o} has more than permission bits", field="mode", fix="use 0644 or 0755")
    present = _present(root, path, max_bytes)
    _check_base(path, present, base_sha256)
    if present is None and new_bytes is None:
        raise NotFound(f"there is no file {path!r} in the workspace", field="path")
    before = None
    if present is not None:
        before = Node.file(present.sha256, present.stat.size, present.stat.mode, present.stat.mtime_ns)
        if blobs.keep(present.sha256, before.size):
            blobs.put(present.data)
        elif new_bytes is None or hashlib.sha256(new_bytes).hexdigest() != present.sha256:
            before = replace(before, kept=False)
    if new_bytes is None:
        return _checked(root, [Change(path, before, None)])
    now = time.time_ns() if mtime_ns is None else mtime_ns
    wanted = mode if mode is not None else before.mode if before is not None else _NEW_FILE_MODE
    after = Node.file(blobs.put(new_bytes), len(new_bytes), wanted, now)
    if after.same(before):
        return ChangeSet.of([])
    return _checked(root, [*_new_folders(root, path, now), Change(path, before, after)])


def _checked(root: Root, changes: list[Change]) -> ChangeSet:
    change_set = ChangeSet.of(changes)
    refuse_repositories(root, change_set)
    return change_set


def _present(root: Root, path: str, max_bytes: int) -> FileContent | None:
    try:
        return root.read(path, max_bytes)
    except NotFound:
        return None


def _check_base(path: str, present: FileContent | None, base_sha256: str | None) -> None:
    found = present.sha256 if present is not None else None
    if base_sha256 is not None and found != base_sha256:
        raise EditConflict(
            f"{path!r} is not what the edit was made for" if present else f"{path!r} does not exist",
            field="base_sha256",
            fix="read the file again and renew the edit",
            details={"base_sha256": base_sha256, "sha256": found},
        )


def _new_folders(root: Root, path: str, mtime_ns: int) -> list[Change]:
    missing = list[Change]()
    for folder in ancestors(path):
        found = root.stat(folder)
        if found is None:
            missing.append(Change(folder, None, Node.folder(_NEW_FOLDER_MODE, mtime_ns)))
        elif found.kind is not Kind.FOLDER:
            raise PathRefused(f"{folder!r} is a {found.kind}, no folder", field="path", fix="choose another path")
    return missing
