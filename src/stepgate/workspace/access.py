"""Reading a workspace without being led out of it: every path is opened beneath one descriptor, following no link."""

import errno
import hashlib
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from stepgate.domain.errors import NotFound, PathRefused, WorkspaceConflict, WorkspaceUnavailable
from stepgate.workspace.changes import Kind
from stepgate.workspace.opening import Opener, default_opener, refused
from stepgate.workspace.paths import check_relative, is_protected, parent_of
from stepgate.workspace.syscalls import LINUX, O_PATH

__all__ = ["FileContent", "FileStat", "Opener", "Root", "check_relative", "check_workspace", "is_protected"]

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.FOLDER,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.DEVICE,
    stat.S_IFBLK: Kind.DEVICE,
}
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_TORN_READS = 4


class FileStat(NamedTuple):
    """What the kernel says about one path, links not followed; `size` bytes, times nanoseconds since the epoch."""

    kind: Kind
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    links: int
    uid: int
    gid: int

    @classmethod
    def of(cls, found: os.stat_result) -> "FileStat":
        """From `os.stat` and its kin; `mode` keeps the bits 0o7777."""
        return cls(
            _KINDS[stat.S_IFMT(found.st_mode)],
            stat.S_IMODE(found.st_mode),
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_ino,
            found.st_dev,
            found.st_nlink,
            found.st_uid,
            found.st_gid,
        )


class FileContent(NamedTuple):
    """A whole file as it was at one moment."""

    data: bytes
    sha256: str
    stat: FileStat


class Root:
    """A workspace's folder, held open; every path given to it is relative and is opened beneath it.

    The methods raise PathRefused (field `path`) for what may not be touched and WorkspaceUnavailable when the
    file system fails.
    """

    __slots__ = ("_opener", "fd", "path")

    def __init__(self, path: Path, fd: int, opener: Opener) -> None:
        self.path = path
        self.fd = fd
        self._opener = opener

    @classmethod
    def open(cls, path: Path, *, opener: Opener | None = None, exact: bool = False) -> "Root":
        """Opens the folder; the field of its errors is `workspace_path`.

        `exact`: the path was resolved before, and a link that took its place since then is not followed.
        Raises PathRefused for text that cannot be a workspace, WorkspaceUnavailable when the folder is not there.
        """
        where = "workspace_path"
        text = str(path)
        if "\x00" in text or not path.is_absolute():
            raise PathRefused("the workspace path is not absolute", field=where, fix="give an absolute path")
        try:
            resolved = path.resolve(strict=True)
            if not resolved.is_dir():
                raise PathRefused(f"{text!r} is not a folder", field=where, fix="give a folder")
            fd = os.open(resolved, O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise WorkspaceUnavailable(
                f"the workspace {text!r} cannot be opened: {reason}",
                field=where,
                fix="create the folder or correct the path",
            ) from error
        if resolved == resolved.parent:
            os.close(fd)
            raise PathRefused("the whole file system is no workspace", field=where, fix="give a project's folder")
        if exact and (resolved != path or (LINUX and os.readlink(f"/proc/self/fd/{fd}") != text)):
            os.close(fd)
            raise WorkspaceUnavailable(
                f"the way to the workspace {text!r} has become a link", field=where, fix="put the folder back"
            )
        return cls(resolved, fd, opener or default_opener())

    def close(self) -> None:
        """Gives the descriptor back; closing twice is harmless."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stat(self, rel: str) -> FileStat | None:
        """What is at the path, a link itself rather than its target; None if there is nothing.

        Protected paths can be asked for. Raises PathRefused when the way there leads through a link or a mount.
        """
        return self._stat(check_relative(rel))

    def _stat(self, rel: str) -> FileStat | None:
        try:
            if LINUX:
                descriptor = self._opener(self.fd, rel, O_PATH, 0)
                try:
                    return FileStat.of(os.fstat(descriptor))
                finally:
                    os.close(descriptor)
            folder = self._opener(self.fd, parent_of(rel) or ".", O_PATH | os.O_DIRECTORY, 0)
            try:
                return FileStat.of(os.stat(rel.rpartition("/")[2], dir_fd=folder, follow_symlinks=False))
            finally:
                os.close(folder)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise refused(error, rel) from error

    def read(self, rel: str, max_bytes: int, *, allow_hard_links: bool = False) -> FileContent:
        """The file's bytes, its sha256 and stat, all of one moment.

        Raises NotFound when absent; PathRefused for links, folders, FIFOs, devices, sockets, protected paths, files
        over `max_bytes` and files with several names; WorkspaceConflict when it changes faster than it can be read.
        """
        rel = check_relative(rel)
        descriptor, before = self._open_file(rel, allow_hard_links)
        try:
            for _ in range(_TORN_READS):
                if before.size > max_bytes:
                    raise _too_large(rel, before.size, max_bytes)
                data = _read_up_to(descriptor, before.size + 1)
                after = FileStat.of(os.fstat(descriptor))
                if after == before and len(data) == before.size:
                    return FileContent(data, hashlib.sha256(data).hexdigest(), after)
                os.lseek(descriptor, 0, os.SEEK_SET)
                before = after
        except OSError as error:
            raise refused(error, rel) from error
        finally:
            os.close(descriptor)
        raise WorkspaceConflict(f"{rel!r} is being written by another program", field="path", details={"paths": [rel]})

    def open_file(self, rel: str, *, allow_hard_links: bool = False) -> tuple[int, FileStat]:
        """A descriptor for reading a regular file, and its stat; the caller closes it. Errors as in `read`."""
        return self._open_file(check_relative(rel), allow_hard_links)

    def _open_file(self, rel: str, allow_hard_links: bool) -> tuple[int, FileStat]:
        if is_protected(rel):
            raise PathRefused(f"{rel!r} is protected", field="path", fix="leave .git to git")
        try:
            # Naming a file before opening it touches no device and cannot block on a FIFO.
            if LINUX:
                named = self._opener(self.fd, rel, O_PATH, 0)
                try:
                    found = _regular(FileStat.of(os.fstat(named)), rel, allow_hard_links)
                    return os.open(f"/proc/self/fd/{named}", _READ), found
                finally:
                    os.close(named)
            named_stat = self._stat(rel)
            if named_stat is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), rel)
            _regular(named_stat, rel, allow_hard_links)
            descriptor = self._opener(self.fd, rel, _READ, 0)
            try:
                return descriptor, _regular(FileStat.of(os.fstat(descriptor)), rel, allow_hard_links)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            if error.errno in _ABSENT:
                raise NotFound(f"there is no file {rel!r} in the workspace", field="path") from error
            raise refused(error, rel) from error

    def read_link(self, rel: str) -> str:
        """A symbolic link's text. Raises NotFound, or PathRefused when it is no link or its text is not UTF-8."""
        rel = check_relative(rel)
        folder = self.open_folder(parent_of(rel), readable=False)
        try:
            return os.readlink(os.fsencode(rel.rpartition("/")[2]), dir_fd=folder).decode()
        except UnicodeDecodeError as error:
            raise PathRefused(f"the target of the link {rel!r} is not UTF-8", field="path") from error
        except FileNotFoundError as error:
            raise NotFound(f"there is no link {rel!r} in the workspace", field="path") from error
        except OSError as error:
            raise refused(error, rel) from error
        finally:
            os.close(folder)

    def open_folder(self, rel: str = "", *, readable: bool = True) -> int:
        """A descriptor of a folder (`""` is the workspace); the caller closes it. `readable=False` only names it.

        Raises NotFound when absent, PathRefused when it is no folder.
        """
        rel = check_relative(rel or ".", allow_root=True)
        try:
            access = os.O_RDONLY if readable else O_PATH
            return self._opener(self.fd, rel or ".", access | os.O_DIRECTORY, 0)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise NotFound(f"there is no folder {rel!r} in the workspace", field="path") from error
            raise refused(error, rel) from error

    def open_beneath(self, folder: int, rel: str, flags: int) -> int:
        """Opens a path beneath a descriptor that this root gave out, as safely; raises OSError unchanged."""
        return self._opener(folder, rel, flags, 0)

    def list(self, rel: str = "") -> tuple[str, ...]:
        """The names in a folder, sorted; bytes that are not UTF-8 come as lone surrogates, as from `os.listdir`."""
        folder = self.open_folder(rel)
        try:
            return tuple(sorted(os.listdir(folder)))
        except OSError as error:
            raise refused(error, rel) from error
        finally:
            os.close(folder)


def check_workspace(text: str, allowed_root: Path) -> Path:
    """The resolved folder of a workspace that a person named, relative to `allowed_root` unless absolute.

    Raises PathRefused with the field `workspace_path` when it is not there, no folder, or outside `allowed_root`.
    """
    where = "workspace_path"
    if "\x00" in text or not text:
        raise PathRefused("the workspace path is empty or contains NUL", field=where, fix="give a folder's path")
    try:
        base = allowed_root.resolve(strict=True)
        found = (base / text).resolve(strict=True)
    except (OSError, RuntimeError, UnicodeEncodeError) as error:
        raise PathRefused(
            f"the workspace {text!r} does not exist", field=where, fix="create the folder or correct the path"
        ) from error
    if not found.is_relative_to(base):
        raise PathRefused(
            f"the workspace {text!r} lies outside {str(base)!r}", field=where, fix="choose a folder beneath it"
        )
    if not found.is_dir():
        raise PathRefused(f"the workspace {text!r} is not a folder", field=where, fix="give a folder")
    return found


def _regular(found: FileStat, rel: str, allow_hard_links: bool) -> FileStat:
    match found.kind:
        case Kind.FILE:
            if found.links > 1 and not allow_hard_links:
                raise PathRefused(
                    f"{rel!r} has {found.links} names (hard links), so its other names may lie outside the workspace",
                    field="path",
                    fix="copy the file to a name of its own",
                )
            return found
        case Kind.SYMLINK:
            raise PathRefused(f"{rel!r} is a symbolic link", field="path", fix="name the file itself")
        case Kind.FOLDER:
            raise PathRefused(f"{rel!r} is a folder", field="path", fix="name a file in it")
        case _:
            raise PathRefused(f"{rel!r} is a {found.kind}", field="path", fix="name a regular file")


def _too_large(rel: str, size: int, max_bytes: int) -> PathRefused:
    return PathRefused(
        f"{rel!r} has {size} bytes, more than the {max_bytes} allowed",
        field="path",
        fix="name a smaller file or raise the limit",
        details={"path": rel, "size": size, "max_bytes": max_bytes},
    )


def _read_up_to(descriptor: int, wanted: int) -> bytes:
    first = os.read(descriptor, wanted)
    if len(first) >= wanted - 1:
        return first
    parts = [first]
    while parts[-1]:
        parts.append(os.read(descriptor, wanted - sum(map(len, parts))))
    return b"".join(parts)
