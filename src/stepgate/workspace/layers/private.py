"""Layers by copy: the workspace is copied, the command writes to the copy, and a manifest tells what it changed."""

import fcntl
import os
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import assert_never

from stepgate.domain.errors import PathRefused, WorkspaceUnavailable
from stepgate.workspace.access import FileStat, Root
from stepgate.workspace.changes import Kind
from stepgate.workspace.layers.folder import SCRATCH, LayerFolder
from stepgate.workspace.layers.layer import WORKSPACE, Capture, Places
from stepgate.workspace.layers.overlay import current_path, keep_git, scratch_mounts
from stepgate.workspace.layers.walk import FOLDER, Touched, walk
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.states import stat_beneath

COPY = "copy"
_FICLONE = 0x40049409
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 24
_DEEPEST = 512


@dataclass(frozen=True, slots=True)
class _Mark:
    """Enough of a stat to see that something was changed or exchanged; a change of ctime cannot be hidden."""

    kind: Kind
    mode: int
    inode: int
    size: int
    ctime_ns: int

    @classmethod
    def of(cls, found: FileStat) -> "_Mark":
        return cls(found.kind, found.mode, found.inode, found.size, found.ctime_ns)

    def same(self, other: "_Mark") -> bool:
        """Whether nothing was done to it; of a folder only its mode counts, as its entries speak for themselves."""
        if self.kind is Kind.FOLDER:
            return (self.kind, self.mode, self.inode) == (other.kind, other.mode, other.inode)
        return self == other


@dataclass(slots=True)
class CopyLayer:
    """`_below` and `_copied` hold, for each path, what was copied and what the copy was when the command started."""

    root: Root
    folder: LayerFolder
    written: int
    scratch: int
    _base: str
    _git: str | None
    _below: dict[str, _Mark]
    _copied: dict[str, _Mark]
    capture: Capture = field(default=Capture.COPY, init=False)

    @classmethod
    def open(cls, root: Root, folder: LayerFolder, launcher: Launcher, base: str, *, mounts: bool) -> "CopyLayer":
        """Copies the workspace; sockets, FIFOs and devices are left out. `mounts`: commands see it through mounts.

        Raises WorkspaceUnavailable for what cannot be read, as a command would otherwise see it missing.
        """
        found = os.fstat(root.fd)
        folder.add(COPY, launcher.uid, stat.S_IMODE(found.st_mode) & 0o777 | 0o700)
        written = folder.open(COPY)
        # A worker that is not root can show the command the workspace's own `.git`; it may be large.
        git = None if launcher.root or not mounts else current_path(root)
        copier = _Copier(launcher.uid if launcher.root else None, "" if git is None else ".git")
        source = os.open(".", FOLDER, dir_fd=root.fd)
        try:
            copier.copy(source, written)
        except BaseException:
            os.close(written)
            raise
        finally:
            os.close(source)
        here = f"{base}/{folder.id}/{COPY}"
        return cls(
            root,
            folder,
            written,
            folder.open(SCRATCH),
            base,
            git or here,
            copier.below,
            copier.copied,
        )

    @property
    def opened_ns(self) -> int:
        return 0

    @property
    def id(self) -> str:
        return self.folder.id

    def mounts(self) -> tuple[str, ...]:
        here = f"{self._base}/{self.id}"
        git = keep_git(self.root, self._git) if self._git else ()
        return ("--bind", f"{here}/{COPY}", WORKSPACE, *git, *scratch_mounts(here))

    def places(self) -> Places:
        here = f"{self._base}/{self.id}"
        return Places(f"{here}/{COPY}", f"{here}/{SCRATCH}/tmp")  # noqa: S108

    def untouched(self) -> bool:
        return False

    def touched(self, most: int) -> Iterator[Touched]:
        left = dict(self._copied)
        for entry in walk(self.written, most=most + len(left)):
            known = left.pop(entry.path, None)
            if known is None or not known.same(_Mark.of(FileStat.of(entry.stat))):
                yield Touched(entry.path, entry, known is not None)
        for path in left:
            yield Touched(path, None, True)

    def drifted(self, touched: Touched, among: Container[str]) -> bool:
        seen = self._below.get(touched.path)
        try:
            found = stat_beneath(self.root, touched.path, among)
        except PathRefused:
            return True
        if found is None or seen is None:
            return found is not None or seen is not None
        # Where a folder goes, what others put into it meanwhile counts too.
        stays = touched.entry is not None and touched.entry.is_folder
        return not (seen.same(_Mark.of(found)) if stays else seen == _Mark.of(found))

    def discard(self) -> None:
        for descriptor in (self.written, self.scratch):
            if descriptor >= 0:
                os.close(descriptor)
        self.written = self.scratch = -1
        self.folder.remove()


class _Copier:
    """Copies a tree by descriptors, one per level; `uid` is who shall own the copy (None: whoever copies)."""

    def __init__(self, uid: int | None, skipped: str) -> None:
        self.below: dict[str, _Mark] = {}
        self.copied: dict[str, _Mark] = {}
        self._uid = uid
        self._skipped = skipped

    def copy(self, source: int, target: int) -> None:
        levels = [_Level("", os.dup(source), os.dup(target), os.listdir(source))]
        try:
            while levels:
                level = levels[-1]
                if not level.names:
                    self._finish(levels.pop())
                    continue
                name = level.names.pop()
                if level.prefix + name == self._skipped:
                    continue
                if len(levels) > _DEEPEST:
                    raise _unreadable(level.prefix + name, "it lies too deep")
                below = self._entry(level, name)
                if below is not None:
                    levels.append(below)
        finally:
            for level in levels:
                level.close()

    def _entry(self, level: "_Level", name: str) -> "_Level | None":
        path = level.prefix + name
        try:
            found = FileStat.of(os.stat(name, dir_fd=level.source, follow_symlinks=False))
            match found.kind:
                case Kind.FILE:
                    self._file(level, name, found)
                case Kind.SYMLINK:
                    os.symlink(os.readlink(name, dir_fd=level.source), name, dir_fd=level.target)
                    self._settle(level, name, found)
                case Kind.FOLDER:
                    source = os.open(name, FOLDER, dir_fd=level.source)
                    os.mkdir(name, 0o700, dir_fd=level.target)
                    self.below[path] = _Mark.of(found)
                    return _Level(
                        f"{path}/", source, os.open(name, FOLDER, dir_fd=level.target), os.listdir(source), found
                    )
                case Kind.FIFO | Kind.SOCKET | Kind.DEVICE:
                    return None
                case _:
                    assert_never(found.kind)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(path, error.strerror or str(error)) from error
        self.below[path] = _Mark.of(found)
        self.copied[path] = _Mark.of(FileStat.of(os.stat(name, dir_fd=level.target, follow_symlinks=False)))
        return None

    def _file(self, level: "_Level", name: str, found: FileStat) -> None:
        source = os.open(name, _FILE, dir_fd=level.source)
        try:
            target = os.open(name, _NEW, 0o600, dir_fd=level.target)
            try:
                _content(source, target)
                if self._uid is not None:
                    os.fchown(target, self._uid, self._uid)
                os.fchmod(target, found.mode & 0o777)
                os.utime(target, ns=(found.mtime_ns, found.mtime_ns))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _settle(self, level: "_Level", name: str, found: FileStat) -> None:
        if self._uid is not None:
            os.chown(name, self._uid, self._uid, dir_fd=level.target, follow_symlinks=False)
        os.utime(name, ns=(found.mtime_ns, found.mtime_ns), dir_fd=level.target, follow_symlinks=False)

    def _finish(self, level: "_Level") -> None:
        try:
            if level.found is not None:
                if self._uid is not None:
                    os.fchown(level.target, self._uid, self._uid)
                os.fchmod(level.target, level.found.mode & 0o777)
                os.utime(level.target, ns=(level.found.mtime_ns, level.found.mtime_ns))
                self.copied[level.prefix[:-1]] = _Mark.of(FileStat.of(os.fstat(level.target)))
        finally:
            level.close()


@dataclass(slots=True)
class _Level:
    prefix: str
    source: int
    target: int
    names: list[str]
    found: FileStat | None = None

    def close(self) -> None:
        os.close(self.source)
        os.close(self.target)


def _content(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        while os.copy_file_range(source, target, _CHUNK):
            pass


def _unreadable(path: str, reason: str) -> WorkspaceUnavailable:
    return WorkspaceUnavailable(
        f"{path!r} cannot be copied for the command: {reason}",
        code="unreadable",
        field="workspace_path",
        fix="make it readable for the worker, or keep the workspace on a file system that overlays can use",
    )
