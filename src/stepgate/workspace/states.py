"""What is at a path now, compared with what a change expects, so that nobody else's work is ever overwritten."""

import hashlib
import os
from collections.abc import Container
from dataclasses import dataclass, replace
from enum import StrEnum

from stepgate.domain.errors import NotFound, PathRefused, WorkspaceConflict
from stepgate.workspace.access import FileStat, Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import PERMISSIONS, Change, ChangeSet, Kind, Node
from stepgate.workspace.paths import ancestors

OWNER_ACCESS = 0o700
_CHUNK = 1 << 20
_TORN_READS = 4


class State(StrEnum):
    """Where a path stands: `both` when only its time changes, `partial` when a crash left it on the way."""

    BEFORE = "before"
    AFTER = "after"
    BOTH = "both"
    PARTIAL = "partial"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Seen:
    """A path's standing, with the stat it was read from."""

    state: State
    stat: FileStat | None


def node_at(root: Root, path: str, blobs: BlobStore | None = None, max_bytes: int | None = None) -> Node | None:
    """The path's state now, None when absent; with `blobs`, a file's bytes are stored too, up to what those keep.

    Raises PathRefused for protected paths and for what cannot be in a change set, ChangeRefused over `max_bytes`,
    WorkspaceConflict for a file that changes faster than it can be read.
    """
    found = root.stat(path)
    if found is None:
        return None
    match found.kind:
        case Kind.FILE:
            return _file_at(root, path, blobs, max_bytes)
        case Kind.FOLDER:
            return Node.folder(found.mode, found.mtime_ns)
        case Kind.SYMLINK:
            return Node.symlink(root.read_link(path), found.mtime_ns)
        case _:
            raise PathRefused(f"{path!r} is a {found.kind}", field="path", fix="name a regular file")


def _file_at(root: Root, path: str, blobs: BlobStore | None, max_bytes: int | None) -> Node | None:
    for _ in range(_TORN_READS):
        try:
            descriptor, before = root.open_file(path, allow_hard_links=True)
        except NotFound:
            return None
        try:
            large = blobs is not None and before.size > blobs.undo_max_bytes
            name, size = _hash(descriptor) if blobs is None or large else blobs.put_stream(descriptor, max_bytes)
            after = FileStat.of(os.fstat(descriptor))
        finally:
            os.close(descriptor)
        if (after.size, after.mtime_ns, after.ctime_ns) == (size, before.mtime_ns, before.ctime_ns):
            found = Node.file(name, size, after.mode, after.mtime_ns)
            return found if blobs is None or blobs.keep(name, size) else replace(found, kept=False)
    raise WorkspaceConflict(f"{path!r} is being written by another program", field="path", details={"paths": [path]})


def _hash(descriptor: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := os.read(descriptor, _CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def stat_beneath(root: Root, path: str, touched: Container[str]) -> FileStat | None:
    """As `Root.stat`, but None beneath a link that is itself among the touched paths, and so is judged on its own."""
    try:
        return root.stat(path)
    except PathRefused:
        for folder in ancestors(path):
            found = root.stat(folder)
            if found is not None and found.kind is Kind.SYMLINK and folder in touched:
                return None
        raise


def see(root: Root, change: Change, touched: Container[str]) -> Seen:
    """Where the path of one change stands now; `touched` are all paths of its set."""
    try:
        found = stat_beneath(root, change.path, touched)
        if found is None:
            return Seen(_absent(change), None)
        candidates = [node for node in (change.before, change.after) if node is not None and _may_be(found, node)]
        now = node_at(root, change.path) if candidates else None
    except (PathRefused, WorkspaceConflict):
        return Seen(State.OTHER, None)
    is_before = now is not None and now.same(change.before)
    is_after = now is not None and now.same(change.after)
    match is_before, is_after:
        case True, True:
            return Seen(State.BOTH, found)
        case True, False:
            return Seen(State.BEFORE, found)
        case False, True:
            return Seen(State.AFTER, found)
        case _:
            return Seen(State.PARTIAL if _on_the_way(found, change) else State.OTHER, found)


def see_all(root: Root, change_set: ChangeSet) -> tuple[Seen, ...]:
    """Where every path of a set stands now, in the order of its changes."""
    touched = frozenset(change_set.paths)
    return tuple(see(root, change, touched) for change in change_set.changes)


def _absent(change: Change) -> State:
    if change.before is None:
        return State.BEFORE
    if change.after is None:
        return State.AFTER
    # A folder cannot be exchanged for a file in one step, so between the two the name is free.
    return State.PARTIAL if Kind.FOLDER in (change.before.kind, change.after.kind) else State.OTHER


def _may_be(found: FileStat, node: Node) -> bool:
    match node.kind:
        case Kind.SYMLINK:
            return found.kind is Kind.SYMLINK
        case Kind.FILE:
            return (found.kind, found.mode & PERMISSIONS, found.size) == (node.kind, node.mode, node.size)
        case _:
            return (found.kind, found.mode & PERMISSIONS) == (node.kind, node.mode)


def _on_the_way(found: FileStat, change: Change) -> bool:
    if found.kind is not Kind.FOLDER:
        return False
    mode = found.mode & PERMISSIONS
    was_folder = change.before is not None and change.before.kind is Kind.FOLDER
    if was_folder and change.before is not None:
        return mode == change.before.mode | OWNER_ACCESS
    return change.after is not None and change.after.kind is Kind.FOLDER and mode == OWNER_ACCESS
