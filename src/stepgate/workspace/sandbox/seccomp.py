"""The system call filter, made by hand for both architectures: what a build or a test run never needs is refused."""

import errno
import platform
import stat
from functools import cache
from typing import Final

from stepgate.workspace.sandbox import bpf

# Numbers on (x86_64, aarch64); None where the architecture lacks the call.
_NUMBERS: Final[dict[str, bpf.Numbers]] = {
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
_MEMFD_CREATE, _FALLOCATE = (319, 279), (285, 47)
_OPEN, _OPENAT, _OPENAT2, _CREAT = (2, None), (257, 56), (437, 437), (85, None)
_SETRLIMIT, _PRLIMIT = (160, 164), (302, 261)

_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET} and CLONE_NEWTIME
# All of them end in the empty network namespace.
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_TYPE_MASK, _SOCK_TYPES = 0xF, (1, 2, 3)
# Any, ICMP, TCP, UDP, ICMPv6: asking for another protocol or type makes the host load a module for it.
_PROTOCOLS, _NETLINK_ROUTE = (0, 1, 6, 17, 58), 0
# The low half of a request is its kind and number; the rest is a size. Typing into the terminal the worker was started
# from (CVE-2017-5226): TIOCSTI, TIOCLINUX. Snapshots of a subvolume, which take its other files along, and their like:
# btrfs (0x94) and bcachefs (0xbc).
_IOCTLS = (0x5412, 0x541C, 0x9401, 0x940E, 0x940F, 0x9417, 0x9418, 0x943F, 0xBC10, 0xBC11)
_O_CREAT, _O_TMPFILE = 0o100, 0o20000000
_SET_ID = stat.S_ISUID | stat.S_ISGID
_RLIMIT_CORE = 4


def _creating(flags: int, mode: int) -> list[bytes]:
    # A file with a set-id bit lies on the host while the command runs, where another user may start it.
    refuse = bpf.refuse_bits(mode, _SET_ID)
    return [
        bpf.step(bpf.LD, bpf.argument(flags)),
        bpf.step(bpf.JSET, _O_CREAT | _O_TMPFILE, 0, len(refuse)),
        *refuse,
        bpf.step(bpf.RET, bpf.ALLOW),
    ]


def _making_nodes(mode: int) -> list[bytes]:
    plain = (0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK)
    return [*bpf.allow_only(mode, plain, errno.EPERM, stat.S_IFMT(0xFFFF)), *bpf.refuse_bits(mode, _SET_ID)]


def _sockets() -> list[bytes]:
    allow = bpf.step(bpf.RET, bpf.ALLOW)
    internet = [
        *bpf.allow_only(1, _SOCK_TYPES, errno.EPROTONOSUPPORT, _SOCK_TYPE_MASK),
        *bpf.allow_only(2, _PROTOCOLS, errno.EPROTONOSUPPORT),
        allow,
    ]
    return [
        *bpf.when(0, (_AF_UNIX,), [allow]),
        *bpf.when(0, (_AF_INET, _AF_INET6), internet),
        *bpf.when(0, (_AF_NETLINK,), [*bpf.allow_only(2, (_NETLINK_ROUTE,), errno.EPROTONOSUPPORT), allow]),
        bpf.fail(errno.EAFNOSUPPORT),
    ]


def _keeping_core_limit(resource: int, *pointer: int) -> list[bytes]:
    # With a limit of 0 the kernel would still start the host's collector of core dumps, as the host's root; with the 1
    # that was set it does not. `ulimit -c 0` must not fail, so it does nothing.
    pretend, allow = bpf.fail(0), bpf.step(bpf.RET, bpf.ALLOW)
    asked = [
        step
        for place in pointer
        for half in (0, 4)
        for step in (bpf.step(bpf.LD, bpf.argument(place) + half), bpf.step(bpf.JEQ, 0, 1, 0), pretend)
    ]
    return [*bpf.when(resource, (_RLIMIT_CORE,), [*asked, allow] if pointer else [pretend]), allow]


@cache
def program(machine: str = platform.machine()) -> bytes:
    """The filter for one architecture (x86_64 or aarch64) in the form bubblewrap's `--seccomp` reads.

    Raises SandboxUnavailable for another architecture.
    """
    x86 = machine == "x86_64"

    def number(pair: bpf.Numbers) -> int | None:
        return bpf.number(pair, machine)

    steps = bpf.beginning(machine)
    refused = [number(pair) for pair in _NUMBERS.values()] + (list(_X86_ONLY.values()) if x86 else [])
    for call in refused:
        steps += bpf.rule(call, [bpf.fail(errno.EPERM)])
    # glibc falls back to clone, whose flags a filter can read.
    steps += bpf.rule(number(_CLONE3), [bpf.fail(errno.ENOSYS)])
    steps += bpf.rule(number(_CLONE), bpf.refuse_bits(0, _NEW_NAMESPACES))
    steps += bpf.rule(number(_IOCTL), _requests())
    for pair, argument in ((_CHMOD, 1), (_FCHMOD, 1), (_FCHMODAT, 2), (_FCHMODAT2, 2), (_CREAT, 1)):
        steps += bpf.rule(number(pair), bpf.refuse_bits(argument, _SET_ID))
    for pair, flags in ((_OPEN, 1), (_OPENAT, 2)):
        steps += bpf.rule(number(pair), _creating(flags, flags + 1))
    # Its flags and mode lie in memory, where a filter cannot read them; libraries fall back to openat.
    steps += bpf.rule(number(_OPENAT2), [bpf.fail(errno.ENOSYS)])
    for pair, argument in ((_MKNOD, 1), (_MKNODAT, 2)):
        steps += bpf.rule(number(pair), _making_nodes(argument))
    for pair in (_SOCKET, _SOCKETPAIR):
        steps += bpf.rule(number(pair), _sockets())
    # Pages of a memfd belong to no process and to no folder, so nothing would count them.
    steps += bpf.rule(number(_MEMFD_CREATE), [bpf.fail(errno.EPERM)])
    # It takes a whole disk in less time than a look takes, past the limit on the size of a file; libraries write zeros.
    steps += bpf.rule(number(_FALLOCATE), [bpf.fail(errno.EOPNOTSUPP)])
    steps += bpf.rule(number(_SETRLIMIT), _keeping_core_limit(0))
    steps += bpf.rule(number(_PRLIMIT), _keeping_core_limit(1, 2))
    return b"".join([*steps, bpf.step(bpf.RET, bpf.ALLOW)])


def _requests() -> list[bytes]:
    refused = bpf.fail(errno.EPERM)
    tests = [bpf.step(bpf.JEQ, request, len(_IOCTLS) - place, 0) for place, request in enumerate(_IOCTLS)]
    return [bpf.step(bpf.LD, bpf.argument(1)), bpf.step(bpf.AND, 0xFFFF), *tests, bpf.step(bpf.RET, bpf.ALLOW), refused]
