"""The further filter for commands without namespaces of their own: what would reach other processes or users' files.

Landlock says which files may be opened, not whose processes may be touched, nor who may change modes and times; those
calls are refused here, by number and argument. It runs in the launcher too and is standard library only.
"""

import errno
import os
import platform
import socket
from collections.abc import Callable, Sequence
from typing import Final

from stepgate.workspace.sandbox import bpf

_SOCKET, _SOCKETPAIR = (41, 198), (53, 199)
# Numbers on (x86_64, aarch64); None where the architecture lacks the call.
_REFUSED: Final[dict[str, bpf.Numbers]] = {
    # A pair of sockets is for the command itself; these lead elsewhere.
    "accept": (43, 202),
    "accept4": (288, 242),
    "bind": (49, 200),
    "connect": (42, 203),
    "listen": (50, 201),
    # Shared memory and queues of the host, for which a number that can be guessed is enough.
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "msgctl": (71, 187),
    "msgrcv": (70, 188),
    "msgsnd": (69, 189),
    "semctl": (66, 191),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    # It tells what happens in folders that cannot be opened.
    "inotify_add_watch": (254, 27),
}
# Landlock leaves them to the owner of a file, and where the worker is no root that is the worker's user.
_OF_OWNERS: Final[dict[str, bpf.Numbers]] = {
    "chmod": (90, None),
    "chown": (92, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "file_setattr": (469, 469),
    "fremovexattr": (199, 16),
    "fsetxattr": (190, 7),
    "futimesat": (261, None),
    "lchown": (94, None),
    "lremovexattr": (198, 15),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "removexattrat": (466, 466),
    "setxattr": (188, 5),
    "setxattrat": (463, 463),
    "utime": (132, None),
    "utimes": (235, None),
}
_UTIMENSAT: Final = (280, 88)
# Scheduling and limits of a process that is named by its number; 0 is the caller.
_OF_PROCESSES: Final[dict[str, tuple[bpf.Numbers, int]]] = {
    "prlimit64": ((302, 261), 0),
    "sched_setaffinity": ((203, 122), 0),
    "sched_setattr": ((314, 274), 0),
    "sched_setparam": ((142, 118), 0),
    "sched_setscheduler": ((144, 119), 0),
}
# The first argument says of what kind the second is: a process, a group, or all of a user.
_PRIORITIES: Final[tuple[tuple[bpf.Numbers, int], ...]] = (((141, 140), 0), ((251, 30), 1))
_KILL, _TGKILL = (62, 129), (234, 131)
# Signals whose target a filter cannot tell, or that nothing needs.
_OTHER_SIGNALS: Final[dict[str, bpf.Numbers]] = {
    "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "tkill": (200, 130),
}
_FCNTL, _F_SETOWN, _F_SETOWN_EX = (72, 25), 8, 15
_IOCTL, _FIOSETOWN, _SIOCSPGRP = (16, 29), 0x8901, 0x8902
_TRUNCATE, _OPEN, _OPENAT = (76, 45), (2, None), (257, 56)
_EVERYBODY: Final = -1

_ALLOW: Final = bpf.step(bpf.RET, bpf.ALLOW)
_REFUSE: Final = bpf.fail(errno.EPERM)


def program(*, owner: bool, truncates: bool, guarded: Sequence[int] = (), machine: str = platform.machine()) -> bytes:
    """The filter; `owner`: the command runs as a user who owns files of the host. `truncates`: Landlock does not keep
    files from being truncated. `guarded` are processes no signal may be sent to, where Landlock does not see to it.

    Raises SandboxUnavailable for an unknown architecture.
    """

    def rule(numbers: bpf.Numbers, body: list[bytes]) -> list[bytes]:
        return bpf.rule(bpf.number(numbers, machine), body)

    steps = bpf.beginning(machine)
    for numbers in (*_REFUSED.values(), *(_OF_OWNERS.values() if owner else ())):
        steps += rule(numbers, [_REFUSE])
    steps += rule(_SOCKET, [bpf.fail(errno.EAFNOSUPPORT)])
    # One of datagrams could send to any address; a stream stays with its other end.
    streams = (int(socket.SOCK_STREAM), int(socket.SOCK_SEQPACKET))
    steps += rule(_SOCKETPAIR, [*bpf.allow_only(1, streams, errno.EAFNOSUPPORT, 0xF), _ALLOW])
    for of_process, place in _OF_PROCESSES.values():
        steps += rule(of_process, [*bpf.allow_only(place, (0,), errno.EPERM), _ALLOW])
    for of_kind, process in _PRIORITIES:
        steps += rule(
            of_kind, [*bpf.allow_only(0, (process,), errno.EPERM), *bpf.allow_only(1, (0,), errno.EPERM), _ALLOW]
        )
    if owner:
        # Of a file by its path; of an open one, as `touch` does it, the command may set the times.
        steps += rule(_UTIMENSAT, [*_only_null(1), _ALLOW])
    if truncates:
        steps += rule(_TRUNCATE, [_REFUSE])
        for opening, flags in ((_OPEN, 1), (_OPENAT, 2)):
            steps += rule(opening, _no_emptying_by_readers(flags))
    if guarded:
        steps += _signals(guarded, rule)
    return b"".join([*steps, _ALLOW])


def _signals(guarded: Sequence[int], rule: Callable[[bpf.Numbers, list[bytes]], list[bytes]]) -> list[bytes]:
    groups = {os.getpgid(pid) for pid in guarded}
    targets = (_EVERYBODY, *guarded, *(-group for group in groups))
    unsigned = tuple(target & 0xFFFFFFFF for target in targets)
    steps: list[bytes] = []
    for sending in (_KILL, _TGKILL):
        steps += rule(sending, [*bpf.when(0, unsigned, [_REFUSE]), _ALLOW])
    for numbers in _OTHER_SIGNALS.values():
        steps += rule(numbers, [_REFUSE])
    steps += rule(_FCNTL, [*bpf.when(1, (_F_SETOWN, _F_SETOWN_EX), [_REFUSE]), _ALLOW])
    steps += rule(_IOCTL, [*bpf.when(1, (_FIOSETOWN, _SIOCSPGRP), [_REFUSE]), _ALLOW])
    return steps


def _only_null(place: int) -> list[bytes]:
    """Goes on where the argument, a pointer, is NULL."""
    return [*bpf.allow_only(place, (0,), errno.EPERM), *_high_half_is_zero(place)]


def _high_half_is_zero(place: int) -> list[bytes]:
    return [bpf.step(bpf.LD, bpf.argument(place) + 4), bpf.step(bpf.JEQ, 0, 1, 0), _REFUSE]


def _no_emptying_by_readers(place: int) -> list[bytes]:
    flags = bpf.step(bpf.LD, bpf.argument(place))
    writing = os.O_WRONLY | os.O_RDWR
    return [flags, bpf.step(bpf.JSET, os.O_TRUNC, 0, 2), bpf.step(bpf.JSET, writing, 1, 0), _REFUSE, _ALLOW]
