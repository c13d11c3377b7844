"""The two ways of opening a path beneath a folder without following a link, and what a refusal means."""

import errno
import os
import stat
from collections.abc import Callable
from functools import cache

from stepgate.domain.errors import PathRefused, StepgateError, WorkspaceUnavailable
from stepgate.workspace.syscalls import LINUX, O_PATH, has_openat2, openat2

Opener = Callable[[int, str, int, int], int]
"""Opens (folder descriptor, relative path, flags, mode) beneath the folder; raises OSError."""


def open_by_walk(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """What openat2 does, one component at a time, for kernels and container filters without it."""
    here = os.dup(folder)
    try:
        mount = _mount_of(here)
        *folders, name = [part for part in path.split("/") if part not in ("", ".")] or ["."]
        if ".." in (*folders, name):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        for part in folders:
            below = _open_folder(here, part, path)
            os.close(here)
            here = below
            _check_mount(here, mount, path)
        found = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here)
        try:
            _check_mount(found, mount, path)
        except OSError:
            os.close(found)
            raise
        return found
    finally:
        os.close(here)


def _open_folder(folder: int, name: str, path: str) -> int:
    try:
        return os.open(name, O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except NotADirectoryError as error:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from error
        raise


def _check_mount(descriptor: int, mount: str, path: str) -> None:
    if _mount_of(descriptor) != mount:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)


def _mount_of(descriptor: int) -> str:
    # st_dev does not show a bind mount of the same file system; the mount's id does.
    if LINUX:
        with open(f"/proc/self/fdinfo/{descriptor}") as info:
            for line in info:
                if line.startswith("mnt_id:"):
                    return line
    return str(os.fstat(descriptor).st_dev)


@cache
def default_opener() -> Opener:
    """openat2 where this kernel has it, else the walk; asked once per process."""
    return openat2 if has_openat2() else open_by_walk


def refused(error: OSError, rel: str) -> StepgateError:
    """The error to raise when the system refused to open or change a path."""
    match error.errno:
        case errno.ELOOP:
            reason, fix = "goes through a symbolic link", "name the file itself"
        case errno.EXDEV:
            reason, fix = "leads out of the workspace or into another file system", "name a file in the workspace"
        case errno.ENOTDIR:
            reason, fix = "goes through something that is no folder", "name a file in the workspace"
        case errno.EACCES | errno.EPERM:
            reason, fix = "may not be accessed by this user", "check its permissions"
        case errno.ENAMETOOLONG | errno.ENXIO | errno.EISDIR | errno.EINVAL:
            reason, fix = f"cannot be opened ({error.strerror})", "name a regular file"
        case _:
            return WorkspaceUnavailable(f"{rel!r}: {error.strerror}", field="path", details={"path": rel})
    return PathRefused(f"{rel!r} {reason}", field="path", fix=fix, details={"path": rel})
