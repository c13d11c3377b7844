"""Whether somebody changed the files under an open layer, so that what was computed over them can be thrown away."""

import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from stepgate.domain.errors import PathRefused
from stepgate.workspace.access import FileStat, Root
from stepgate.workspace.changes import PERMISSIONS, Change, ChangeSet, Kind, Node
from stepgate.workspace.states import stat_beneath

_CLOCK_REALTIME_COARSE: Final = 5
_TICK_S: Final = 0.0005
_LONGEST_TICK_S: Final = 0.1


class Identity(NamedTuple):
    """What changes whenever a file does: nobody can set ctime."""

    kind: Kind
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: FileStat) -> "Identity":
        """From a stat; a folder's size and times tell of its entries, not of itself, and are left out."""
        if found.kind is Kind.FOLDER:
            return cls(found.kind, found.mode, found.inode, 0, 0)
        return cls(found.kind, found.size, found.inode, found.mtime_ns, found.ctime_ns)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The identities of some paths at one moment; None means absent."""

    seen: Mapping[str, Identity | None]

    def drifted(self, root: Root, paths: Iterable[str] | None = None) -> tuple[str, ...]:
        """Those of the paths (default: all observed) that are not what they were; a path never observed counts."""
        asked = self.seen.keys() if paths is None else paths
        return tuple(sorted(p for p in asked if p not in self.seen or _identity(root, p) != self.seen[p]))


def observe(root: Root, paths: Iterable[str]) -> Snapshot:
    """The identities of the paths now."""
    return Snapshot({path: _identity(root, path) for path in paths})


def opening_mark() -> int:
    """The time (nanoseconds) after which a change to the workspace counts as drift; take it, then `settle` it."""
    return time.time_ns()


def settle(mark_ns: int) -> None:
    """Returns once any later change to a local file gets a ctime beyond the mark: at once, or within a clock tick.

    Linux stamps files with a clock that moves every 1 to 10 ms, so a change made right after the mark could look older
    than it. Call it right before the layer's command starts; setting up a sandbox usually takes longer than a tick.
    """
    deadline = time.monotonic() + _LONGEST_TICK_S
    while _filesystem_clock() <= mark_ns and time.monotonic() < deadline:
        time.sleep(_TICK_S)


def _filesystem_clock() -> int:
    try:
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
    except OSError:
        return time.time_ns()


def drifted(root: Root, change_set: ChangeSet, opened_at_ns: int) -> tuple[str, ...]:
    """The paths of the set that changed since the layer over the workspace opened, sorted.

    A path counts when it is not what `before` says, or when its ctime lies after `opened_at_ns`, an
    `opening_mark`. On network file systems whose clock differs from this host's, observe instead.
    """
    touched = frozenset(change_set.paths)
    return tuple(change.path for change in change_set.changes if _has_drifted(root, change, touched, opened_at_ns))


def _has_drifted(root: Root, change: Change, touched: Container[str], opened_at_ns: int) -> bool:
    try:
        found = stat_beneath(root, change.path, touched)
    except PathRefused:
        return True
    if found is None or change.before is None:
        return (found is None) != (change.before is None)
    if not _fits(found, change.before):
        return True
    # A folder's times move with its entries, which have changes of their own.
    return found.kind is not Kind.FOLDER and found.ctime_ns > opened_at_ns


def _fits(found: FileStat, before: Node) -> bool:
    if found.kind is not before.kind:
        return False
    if found.kind is Kind.SYMLINK:
        return found.mtime_ns == before.mtime_ns
    if found.mode & PERMISSIONS != before.mode:
        return False
    return found.kind is Kind.FOLDER or (found.size, found.mtime_ns) == (before.size, before.mtime_ns)


def _identity(root: Root, path: str) -> Identity | None:
    try:
        found = root.stat(path)
    except PathRefused:
        # Something on the way became a link: whatever was there, it is not there any more.
        return None
    return Identity.of(found) if found is not None else None
