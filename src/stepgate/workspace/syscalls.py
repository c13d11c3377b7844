"""The few kernel calls that file safety needs and the standard library lacks."""

import ctypes
import errno
import fcntl
import os
import struct
import sys
from typing import Any, Final

LINUX: Final = sys.platform == "linux"
# macOS has no descriptor that merely names a file; opening a folder for reading is harmless there.
O_PATH: Final = getattr(os, "O_PATH", os.O_RDONLY)
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2

_OPENAT2: Final = 437  # the same number on every Linux architecture Stepgate supports
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x01, 0x02, 0x04, 0x08
_RESOLVE = _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
_HOW_SIZE = ctypes.c_size_t(24)
_RACES = 64


def _load() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


_libc = _load()
_renameat2 = getattr(_libc, "renameat2", None)
_syncfs = getattr(_libc, "syncfs", None)


def openat2(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """Opens a path beneath a folder; the kernel follows no link, leaves neither the folder nor its file system.

    Raises OSError: ELOOP for a link on the way, EXDEV for leaving, ENOSYS or EPERM where the call does not exist.
    """
    how = struct.pack("QQQ", flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode, _RESOLVE)
    encoded = os.fsencode(path)
    for _ in range(_RACES):
        descriptor = _libc.syscall(_OPENAT2, folder, encoded, how, _HOW_SIZE)
        if descriptor >= 0:
            return int(descriptor)
        code = ctypes.get_errno()
        # The kernel reports EAGAIN when a rename elsewhere raced with the walk.
        if code not in (errno.EAGAIN, errno.EINTR):
            raise OSError(code, os.strerror(code), path)
    raise OSError(errno.ELOOP, "the path kept changing while it was opened", path)


def has_openat2() -> bool:
    """Whether the kernel has openat2 (5.6) and nothing, such as an old container filter, hides it."""
    if not LINUX:
        return False
    try:
        folder = os.open("/", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(openat2(folder, ".", O_PATH | os.O_DIRECTORY))
        finally:
            os.close(folder)
    except OSError:
        return False
    return True


def rename(old_folder: int, old: str, new_folder: int, new: str, flags: int) -> bool:
    """renameat2 with `RENAME_NOREPLACE` or `RENAME_EXCHANGE`; False where the system or file system lacks it.

    Raises OSError, with EEXIST for a name that exists and may not be replaced.
    """
    if _renameat2 is None:
        return False
    if _renameat2(old_folder, os.fsencode(old), new_folder, os.fsencode(new), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), old, None, new)


def sync_filesystem(descriptor: int) -> bool:
    """Makes all of the descriptor's file system durable; False where there is no such call.

    Raises OSError when a write to it failed since the descriptor was opened (Linux 5.8).
    """
    if _syncfs is None:
        return False
    if _syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return True


def fsync(descriptor: int) -> None:
    """fsync that reaches the disk, which on macOS needs F_FULLFSYNC."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def fsync_folder(path: str | os.PathLike[str]) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)
