"""The system call filter, assembled by hand for both architectures: what a build or a test run never needs is refused.

Classic BPF over `struct seccomp_data` (seccomp(2)): nr at 0, arch at 4, the low half of argument n at 16 + 8 n.
"""

import errno
import platform
import stat
import struct
from functools import cache
from typing import Final

from stepgate.domain.errors import SandboxUnavailable

_ARCHES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Numbers on (x86_64, aarch64); None where the architecture lacks the call.
_NUMBERS: Final[dict[str, tuple[int | None, int]]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "semget": (64, 190),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
    "vmsplice": (278, 75),
}
_X86_ONLY: Final = {"iopl": 172, "ioperm": 173, "modify_ldt": 154, "uselib": 134, "create_module": 174}

# Calls whose arguments decide.
_CLONE, _CLONE3 = (56, 220), (435, 435)
_IOCTL, _SOCKET, _SOCKETPAIR = (16, 29), (41, 198), (53, 199)
_MKNOD, _MKNODAT = (133, None), (259, 33)
_CHMOD, _FCHMOD, _FCHMODAT, _FCHMODAT2 = (90, None), (91, 52), (268, 53), (452, 452)
_MEMFD_CREATE = (319, 279)

_LD, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_NR, _ARCH = 0, 4
_X32_BIT = 0x40000000
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET} and CLONE_NEWTIME
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: all of them end in the empty network namespace
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_SET_ID = stat.S_ISUID | stat.S_ISGID


def _argument(number: int) -> int:
    return 16 + 8 * number


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value & 0xFFFFFFFF)


def _fail(code: int) -> bytes:
    return _step(_RET, 0x00050000 | code)


def _rule(number: int | None, body: list[bytes]) -> list[bytes]:
    """Runs the body for one call; the body must end in a return on every way."""
    return [] if number is None else [_step(_JEQ, number, 0, len(body)), *body]


def _refuse_bits(argument: int, bits: int) -> list[bytes]:
    return [_step(_LD, _argument(argument)), _step(_JSET, bits, 0, 1), _fail(errno.EPERM), _step(_RET, _ALLOW)]


def _one_of(argument: int, mask: int, values: tuple[int, ...], otherwise: int) -> list[bytes]:
    body = [_step(_LD, _argument(argument)), _step(_AND, mask)]
    for value in values:
        body += [_step(_JEQ, value, 0, 1), _step(_RET, _ALLOW)]
    return [*body, _fail(otherwise)]


@cache
def program(machine: str = platform.machine()) -> bytes:
    """The filter for one architecture (x86_64 or aarch64) in the form bubblewrap's `--seccomp` reads.

    Raises SandboxUnavailable for another architecture.
    """
    if machine not in _ARCHES:
        raise SandboxUnavailable(
            f"there is no system call filter for {machine}", fix="run the worker on x86_64 or aarch64"
        )
    x86 = machine == "x86_64"

    def number(pair: tuple[int | None, int | None]) -> int | None:
        return pair[0] if x86 else pair[1]

    steps = [_step(_LD, _ARCH), _step(_JEQ, _ARCHES[machine], 1, 0), _step(_RET, _KILL), _step(_LD, _NR)]
    if x86:
        steps += [_step(_JGE, _X32_BIT, 0, 1), _fail(errno.ENOSYS)]
    refused = [number(pair) for pair in _NUMBERS.values()] + (list(_X86_ONLY.values()) if x86 else [])
    for call in refused:
        steps += _rule(call, [_fail(errno.EPERM)])
    # glibc falls back to clone, whose flags a filter can read.
    steps += _rule(number(_CLONE3), [_fail(errno.ENOSYS)])
    steps += _rule(number(_CLONE), _refuse_bits(0, _NEW_NAMESPACES))
    steps += _rule(number(_IOCTL), _terminal_rule())
    for pair, argument in ((_CHMOD, 1), (_FCHMOD, 1), (_FCHMODAT, 2), (_FCHMODAT2, 2)):
        steps += _rule(number(pair), _refuse_bits(argument, _SET_ID))
    plain = (0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK)
    for pair, argument in ((_MKNOD, 1), (_MKNODAT, 2)):
        steps += _rule(number(pair), _one_of(argument, stat.S_IFMT(0xFFFF), plain, errno.EPERM))
    for pair in (_SOCKET, _SOCKETPAIR):
        steps += _rule(number(pair), _one_of(0, 0xFFFFFFFF, _FAMILIES, errno.EAFNOSUPPORT))
    # Pages of a memfd belong to no process and to no folder, so nothing would count them.
    steps += _rule(number(_MEMFD_CREATE), [_fail(errno.EPERM)])
    return b"".join([*steps, _step(_RET, _ALLOW)])


def _terminal_rule() -> list[bytes]:
    # Typing into the terminal the worker was started from (CVE-2017-5226).
    return [
        _step(_LD, _argument(1)),
        _step(_JEQ, _TIOCSTI, 1, 0),
        _step(_JEQ, _TIOCLINUX, 0, 1),
        _fail(errno.EPERM),
        _step(_RET, _ALLOW),
    ]
