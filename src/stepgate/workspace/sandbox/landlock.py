"""Landlock by its raw system calls: which files a process and all it starts may open, for as long as they live.

Standard library only: it runs in the launcher too. Numbers and rights are those of landlock(7), linux/landlock.h.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

# The same numbers on every architecture that Stepgate supports.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_SOCK, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
_TRUNCATE = 1 << 14
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
# The first ABI that has each right: the first thirteen; moving between folders; truncating; asking devices.
_RIGHTS: Final = ((1, (1 << 13) - 1), (2, 1 << 13), (3, _TRUNCATE), (5, 1 << 15))
_NETWORK: Final = (4, 0b11)  # binding and connecting TCP
_SCOPES: Final = (6, 0b11)  # abstract unix sockets and signals

MOVES: Final = 2
"""The first ABI that permits moving files between folders, where it permits making them."""
TRUNCATES: Final = 3
"""The first ABI that keeps files from being truncated."""
SIGNALS: Final = 6
"""The first ABI that keeps signals in."""

READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
WRITE: Final = ((1 << 15) - 1) & ~(_MAKE_CHAR | _MAKE_BLOCK | _MAKE_SOCK)
DEVICE: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def abi() -> int:
    """What this kernel offers: 0 for nothing, else the version, 1 (Linux 5.13) or higher."""
    found = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    return max(0, int(found))


class Ruleset:
    """Paths that stay open to a process when it restricts itself; everything else that can be kept away is."""

    def __init__(self, version: int) -> None:
        """For an ABI that the kernel has. Raises OSError."""
        self._handled = sum(right for since, right in _RIGHTS if version >= since)
        network = _NETWORK[1] if version >= _NETWORK[0] else 0
        scopes = _SCOPES[1] if version >= _SCOPES[0] else 0
        # A kernel refuses a structure that is longer than the one it knows, unless the rest is zero.
        attributes = struct.pack("QQQ", self._handled, network, scopes)
        size = ctypes.c_size_t(len(attributes))
        self._fd = int(_checked(_libc.syscall(_CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset"))

    def allow(self, paths: Iterable[str], rights: int) -> None:
        """Grants rights to files, and to folders with all beneath; what is not there is left out. Raises OSError."""
        for path in paths:
            try:
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                granted = rights & self._handled
                if not stat.S_ISDIR(os.fstat(place).st_mode):
                    granted &= _OF_FILES
                rule = struct.pack("=Qi", granted, place)
                _checked(_libc.syscall(_ADD_RULE, self._fd, _RULE_PATH_BENEATH, rule, 0), f"landlock_add_rule {path}")
            finally:
                os.close(place)

    def restrict(self) -> None:
        """Holds the calling thread and all it will start to the rules, for ever. Raises OSError."""
        forgo_privileges()
        _checked(_libc.syscall(_RESTRICT_SELF, self._fd, 0), "landlock_restrict_self")
        os.close(self._fd)


def forgo_privileges() -> None:
    """From now on no program gives more rights than the calling process has."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def _checked(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result
