"""Reading off what a command did: its layer is hostile input, the person's files below may have moved on."""

import os
import stat
from dataclasses import dataclass, field

from stepgate.domain.errors import ChangeRefused, NotFound, PathRefused, WorkspaceConflict
from stepgate.workspace.access import FileStat, Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Kind, Node
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.layers.walk import Entry, Touched
from stepgate.workspace.paths import check_relative, is_protected
from stepgate.workspace.repositories import refuse_repositories
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.states import node_at, stat_beneath

_LATEST_NS = 2**63 - 1
_SET_ID = stat.S_ISUID | stat.S_ISGID


def harvest(layer: Layer, root: Root, blobs: BlobStore, limits: Limits) -> ChangeSet:
    """The change set that turns the workspace into what the command left; contents before and after go to `blobs`.

    Call it when no process of the layer is left; the blobs are not durable until `blobs.sync()`. Unchanged files drop
    out, as do changes of nothing but a time, of the workspace folder itself, of owners and of extended attributes.
    Raises ChangeRefused, naming the path, for anything that may not be in a change set or is over the limits, and
    WorkspaceConflict (code `drifted`, `details["paths"]`) when somebody else changed one of the paths meanwhile.
    """
    return _Harvest(layer, root, blobs, limits).run()


@dataclass(slots=True)
class _Harvest:
    layer: Layer
    root: Root
    blobs: BlobStore
    limits: Limits
    read: int = 0
    seen: set[str] = field(default_factory=set)

    def run(self) -> ChangeSet:
        changes: list[Change] = []
        touched: list[Touched] = []
        for one in self.layer.touched(self.limits.files):
            self.seen.add(one.path)
            change = self._change(one)
            if change is not None:
                changes.append(change)
                touched.append(one)
                _check_count(len(changes), self.limits, change.path)
        drifted = sorted(one.path for one in touched if self.layer.drifted(one, self.seen))
        if drifted:
            raise WorkspaceConflict(
                f"{drifted[0]!r} was changed by another program while the command ran",
                code="drifted",
                field="path",
                details={"paths": drifted},
            )
        change_set = ChangeSet.of(changes)
        refuse_repositories(self.root, change_set)
        return change_set

    def _change(self, touched: Touched) -> Change | None:
        path = touched.path
        try:
            check_relative(path)
            # Folders come before what is in them, so a link that gave way to a folder is known by now.
            before_stat = stat_beneath(self.root, path, self.seen)
        except PathRefused as error:
            raise self._moved(path, error) from error
        after = None if touched.entry is None else self._after(touched.entry, before_stat)
        if before_stat is None and after is None:
            return None
        if is_protected(path):
            if after is not None and before_stat is not None and {after.kind, before_stat.kind} == {Kind.FOLDER}:
                return None
            raise ChangeRefused(
                f"the command changed {path!r}, which is protected", field="path", fix="leave .git alone"
            )
        before = None if before_stat is None else self._before(path)
        if before is None and after is None:
            return None
        if after is not None and after.same(before):
            return None
        return Change(path, before, after)

    def _moved(self, path: str, error: PathRefused) -> ChangeRefused | WorkspaceConflict:
        if len(path.encode()) > 4095 or max(len(part.encode()) for part in path.split("/")) > 255:
            return ChangeRefused(error.message, field="path")
        return WorkspaceConflict(
            f"{path!r} was changed by another program while the command ran: {error.message}",
            code="drifted",
            field="path",
            details={"paths": [path]},
        )

    def _before(self, path: str) -> Node | None:
        try:
            return node_at(self.root, path, self.blobs)
        except PathRefused as error:
            raise ChangeRefused(f"what was there before cannot be recorded: {error.message}", field="path") from error
        except NotFound:
            return None

    def _after(self, entry: Entry, before: FileStat | None) -> Node:
        found = entry.stat
        mtime = min(max(found.st_mtime_ns, 0), _LATEST_NS)
        match stat.S_IFMT(found.st_mode):
            case stat.S_IFDIR:
                if found.st_mode & stat.S_ISUID:
                    raise _refused(entry.path, "a folder with the set-user-id bit")
                return Node.folder(found.st_mode, mtime)
            case stat.S_IFLNK:
                return Node.symlink(_target(entry), mtime)
            case stat.S_IFREG:
                kept = before is not None and before.mode & _SET_ID == found.st_mode & _SET_ID
                if found.st_mode & _SET_ID and not kept:
                    raise _refused(entry.path, "a file with a set-id bit")
                return self._file(entry, mtime)
            case _:
                raise _refused(entry.path, "neither a file, a folder nor a symbolic link")

    def _file(self, entry: Entry, mtime: int) -> Node:
        left = self.limits.written_bytes - self.read
        if entry.stat.st_size > min(left, self.limits.file_bytes):
            raise _over(entry.path, self.limits)
        descriptor = entry.open()
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refused(entry.path, "no regular file")
            name, size = self.blobs.put_stream(descriptor, left)
        finally:
            os.close(descriptor)
        self.read += size
        return Node.file(name, size, entry.stat.st_mode, mtime)


def _check_count(count: int, limits: Limits, path: str) -> None:
    if count > limits.files:
        raise ChangeRefused(
            f"more than {limits.files} files were changed, up to {path!r}", field="path", fix="change fewer files"
        )


def _target(entry: Entry) -> str:
    try:
        return os.readlink(os.fsencode(entry.name), dir_fd=entry.parent).decode()
    except UnicodeDecodeError as error:
        raise ChangeRefused(f"the target of the link {entry.path!r} is not UTF-8", field="path") from error


def _refused(path: str, what: str) -> ChangeRefused:
    return ChangeRefused(f"the command left {what} at {path!r}", field="path", fix="remove it before the command ends")


def _over(path: str, limits: Limits) -> ChangeRefused:
    return ChangeRefused(
        f"{path!r} is over the limits: {limits.file_bytes} bytes for a file, {limits.written_bytes} in all",
        field="path",
        fix="write less, or raise the limits",
    )
