"""Copying a workspace whole: by descriptors, following nothing, within limits, each file as it was at one moment."""

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from stepgate.domain.errors import ChangeRefused, NotFound, PathRefused, WorkspaceConflict, WorkspaceUnavailable
from stepgate.workspace.access import FileStat, Root
from stepgate.workspace.changes import PERMISSIONS, Kind
from stepgate.workspace.paths import is_protected, parent_of
from stepgate.workspace.walk import walk

_FICLONE = 0x40049409
_CHUNK = 1 << 24
_TORN_READS = 4
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EBADF)
PROTECTED = "protected: it stays where it is"


class Stopped(Exception):
    """Whoever asked for the copy no longer wants it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that is copied: bytes of all files together, and files and folders."""

    max_bytes: int
    max_files: int


@dataclass(slots=True)
class Copied:
    """`left_out` are `(path, reason)` of what was not copied."""

    files: int = 0
    bytes: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


def copy_tree(source: Root, target: int, bounds: Bounds, wanted: Callable[[], bool] = lambda: True) -> Copied:
    """Fills an empty folder with all of a workspace but `.git`, FIFOs, sockets and devices, which are named instead.

    Content, permission bits, times, links as links and, for root, owners are kept; hard links become files of their
    own. Raises ChangeRefused over the bounds and for what no change set could name, WorkspaceConflict for a file that
    changes faster than it can be copied, WorkspaceUnavailable for what cannot be read or written, Stopped.
    """
    copier = _Copier(source, target, bounds)
    try:
        copier.note_protected()
        tree = walk(source, max_entries=bounds.max_files)
        try:
            for entry in tree:
                if not wanted():
                    raise Stopped
                copier.take(entry.path, entry.stat)
        except ChangeRefused as error:
            raise _over(bounds) if "max_entries" in error.details else error from error
        finally:
            tree.close()
        copier.finish()
    except OSError as error:
        raise _failed(error) from error
    finally:
        copier.close()
    return copier.copied


class _Copier:
    """Keeps the descriptor of the one folder it writes to; the walk gives parents before children, depth first."""

    def __init__(self, source: Root, target: int, bounds: Bounds) -> None:
        self.copied = Copied()
        self._source = source
        self._bounds = bounds
        self._levels: list[tuple[str, int]] = [("", os.dup(target))]
        self._folders: list[tuple[str, FileStat]] = []
        self._target = target

    def note_protected(self) -> None:
        for name in self._source.list():
            if is_protected(name):
                self.copied.left_out.append((name, PROTECTED))

    def take(self, path: str, found: FileStat) -> None:
        folder, name = self._folder(parent_of(path)), path.rpartition("/")[2]
        match found.kind:
            case Kind.FILE:
                self._file(path, folder, name)
            case Kind.SYMLINK:
                self._link(path, folder, name, found)
            case Kind.FOLDER:
                os.mkdir(name, 0o700, dir_fd=folder)
                self._levels.append((path, os.open(name, _FOLDER, dir_fd=folder)))
                self._folders.append((path, found))
            case Kind.FIFO | Kind.SOCKET | Kind.DEVICE:
                self.copied.left_out.append((path, f"a {found.kind}"))
                return
            case _:
                assert_never(found.kind)
        self.copied.files += 1

    def _folder(self, path: str) -> int:
        while self._levels[-1][0] != path:
            os.close(self._levels.pop()[1])
        return self._levels[-1][1]

    def _file(self, path: str, folder: int, name: str) -> None:
        for _ in range(_TORN_READS):
            try:
                descriptor, before = self._source.open_file(path, allow_hard_links=True)
            except NotFound:  # gone since it was listed
                return
            try:
                if self.copied.bytes + before.size > self._bounds.max_bytes:
                    raise _over(self._bounds)
                if self._content(descriptor, before, folder, name):
                    self.copied.bytes += before.size
                    return
            finally:
                os.close(descriptor)
        raise WorkspaceConflict(
            f"{path!r} is being written by another program", field="path", details={"paths": [path]}
        )

    def _content(self, source: int, before: FileStat, folder: int, name: str) -> bool:
        """False, and nothing left, where the file changed while it was read."""
        target = os.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            _copy_content(source, target, before.size)
            after = FileStat.of(os.fstat(source))
            if (after.size, after.mtime_ns, after.ctime_ns) != (before.size, before.mtime_ns, before.ctime_ns):
                os.unlink(name, dir_fd=folder)
                return False
            if os.geteuid() == 0:
                os.fchown(target, before.uid, before.gid)
            os.fchmod(target, before.mode & PERMISSIONS)
            os.utime(target, ns=(before.mtime_ns, before.mtime_ns))
            return True
        finally:
            os.close(target)

    def _link(self, path: str, folder: int, name: str, found: FileStat) -> None:
        try:
            text = self._source.read_link(path)
        except NotFound:
            return
        os.symlink(text, name, dir_fd=folder)
        if os.geteuid() == 0:
            os.chown(name, found.uid, found.gid, dir_fd=folder, follow_symlinks=False)
        os.utime(name, ns=(found.mtime_ns, found.mtime_ns), dir_fd=folder, follow_symlinks=False)

    def finish(self) -> None:
        """Folders get their owners, modes and times last, innermost first, as each write to them changes the time."""
        top = FileStat.of(os.fstat(self._source.fd))
        for path, found in reversed([("", top), *self._folders]):
            descriptor = os.open(path or ".", _FOLDER, dir_fd=self._target)
            try:
                if os.geteuid() == 0:
                    os.fchown(descriptor, found.uid, found.gid)
                os.fchmod(descriptor, found.mode & PERMISSIONS)
                os.utime(descriptor, ns=(found.mtime_ns, found.mtime_ns))
            finally:
                os.close(descriptor)

    def close(self) -> None:
        for _, descriptor in self._levels:
            os.close(descriptor)


def _copy_content(source: int, target: int, size: int) -> None:
    """Shares the disk blocks where the file system can."""
    if size == 0:
        return
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        _copy_bytes(source, target)


def _copy_bytes(source: int, target: int) -> None:
    try:
        while os.copy_file_range(source, target, _CHUNK):
            pass
    except OSError as error:
        if error.errno not in _NO_RANGE:
            raise
        # Another file system: what the kernel copied before it refused is copied again.
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        while chunk := os.read(source, _CHUNK):
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(target, rest) :]


def _over(bounds: Bounds) -> ChangeRefused:
    return ChangeRefused(
        f"the workspace has more than {bounds.max_files} files and folders or more than {bounds.max_bytes} bytes",
        code="copy_too_large",
        field="workspace_path",
        fix="raise STEPGATE_ISOLATED_MAX_FILES or STEPGATE_ISOLATED_MAX_BYTES, or run in_place",
        details={"max_files": bounds.max_files, "max_bytes": bounds.max_bytes},
    )


def _failed(error: OSError) -> PathRefused | WorkspaceUnavailable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WorkspaceUnavailable(
            "there is no room for a copy of the workspace",
            code="no_room",
            field="STEPGATE_STATE_DIR",
            fix="free some space, discard old copies, or run in_place",
        )
    return WorkspaceUnavailable(f"the workspace cannot be copied: {error}", field="workspace_path")
