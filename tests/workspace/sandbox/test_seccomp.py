"""The filter is run here by a small interpreter, so that the other architecture's is tried as well."""

import errno
import os
import stat
import struct

import pytest

from stepgate.domain.errors import SandboxUnavailable
from stepgate.workspace.sandbox import seccomp

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
O_CREAT, O_TMPFILE = 0o100, 0o20000000
ALLOW, KILL = 0x7FFF0000, 0x80000000


def decide(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """What the kernel would do: ALLOW, KILL or an errno."""
    values = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<iIQ6Q", number, ARCH[machine] if arch is None else arch, 0, *values)
    program = seccomp.program(machine)
    accumulator = at = 0
    for _ in range(10_000):
        code, yes, no, value = struct.unpack_from("HBBI", program, 8 * at)
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, value)[0]
            case 0x54:
                accumulator &= value
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x45:
                at += yes if accumulator & value else no
            case 0x06:
                return value & 0xFFFF if value & 0xFFFF0000 == 0x00050000 else int(value)
            case _:
                raise AssertionError(code)
    raise AssertionError("the filter does not end")


# Numbers on x86_64 and on aarch64.
ORDINARY = {
    "read": (0, 63),
    "openat": (257, 56),
    "execve": (59, 221),
    "futex": (202, 98),
    "renameat2": (316, 276),
    "mmap": (9, 222),
    "prctl": (157, 167),
    "setrlimit": (160, 164),
    "kill": (62, 129),
    "statx": (332, 291),
    "getdents64": (217, 61),
    "epoll_pwait2": (441, 441),
    "rseq": (334, 293),
    "pidfd_open": (434, 434),
}
REFUSED = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "setns": (308, 268),
    "ptrace": (101, 117),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "open_by_handle_at": (304, 265),
    "process_vm_writev": (311, 271),
    "userfaultfd": (323, 282),
    "vmsplice": (278, 75),
    "memfd_create": (319, 279),
    "mount_setattr": (442, 442),
    "perf_event_open": (298, 241),
}


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _number(pair: tuple[int, int], machine: str) -> int:
    return pair[machine == "aarch64"]


@pytest.mark.parametrize("name", ORDINARY)
def test_what_programs_need_is_allowed(machine: str, name: str) -> None:
    assert decide(machine, _number(ORDINARY[name], machine)) == ALLOW


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_attacks_need_is_refused(machine: str, name: str) -> None:
    assert decide(machine, _number(REFUSED[name], machine)) == errno.EPERM


def test_the_calls_of_another_architecture_kill(machine: str) -> None:
    assert decide(machine, 0, arch=0x40000003) == KILL


def test_the_x32_calls_do_not_exist() -> None:
    assert decide("x86_64", 0x40000000 + 165) == errno.ENOSYS


def test_processes_and_threads_can_be_made_but_no_namespaces(machine: str) -> None:
    clone = _number((56, 220), machine)
    assert decide(machine, clone, 17) == ALLOW
    assert decide(machine, clone, 0x3D0F00) == ALLOW
    for namespace in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(machine, clone, namespace | 17) == errno.EPERM
    assert decide(machine, 435) == errno.ENOSYS


def test_no_file_can_be_made_set_id(machine: str) -> None:
    fchmod, fchmodat = _number((91, 52), machine), _number((268, 53), machine)
    assert decide(machine, fchmod, 3, 0o1777) == ALLOW
    assert decide(machine, fchmodat, 3, 0, 0o755) == ALLOW
    for bits in (0o4755, 0o2755, 0o6000):
        assert decide(machine, fchmod, 3, bits) == errno.EPERM
        assert decide(machine, fchmodat, 3, 0, bits) == errno.EPERM
        assert decide(machine, 452, 3, 0, bits) == errno.EPERM


def test_pipes_can_be_made_but_no_devices(machine: str) -> None:
    mknodat = _number((259, 33), machine)
    for kind in (0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
        assert decide(machine, mknodat, 3, 0, kind | 0o644) == ALLOW
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        assert decide(machine, mknodat, 3, 0, kind | 0o644) == errno.EPERM


def test_no_file_can_be_made_set_id_from_the_start(machine: str) -> None:
    openat, mknodat = _number((257, 56), machine), _number((259, 33), machine)
    for flags in (O_CREAT, O_TMPFILE, O_CREAT | os.O_WRONLY):
        assert decide(machine, openat, 3, 0, flags, 0o1777) == ALLOW
        for bits in (0o4755, 0o2755):
            assert decide(machine, openat, 3, 0, flags, bits) == errno.EPERM
    # Without a file to make, the mode is whatever was left in a register.
    assert decide(machine, openat, 3, 0, os.O_RDWR, 0o4755) == ALLOW
    assert decide(machine, mknodat, 3, 0, stat.S_IFREG | 0o4755) == errno.EPERM
    assert decide(machine, 437) == errno.ENOSYS
    if machine == "x86_64":
        assert decide(machine, 2, 0, O_CREAT, 0o4755) == errno.EPERM
        assert decide(machine, 85, 0, 0o4755) == errno.EPERM
        assert decide(machine, 133, 0, 0o4755) == errno.EPERM


def test_only_sockets_that_end_in_the_empty_network_are_allowed(machine: str) -> None:
    for call in (_number((41, 198), machine), _number((53, 199), machine)):
        for family, kind, protocol in ((1, 1, 0), (1, 5, 0), (2, 1, 0), (10, 2, 17), (2, 0x80801, 6), (16, 3, 0)):
            assert decide(machine, call, family, kind, protocol) == ALLOW
        for family in (17, 38, 40, 0):
            assert decide(machine, call, family, 1) == errno.EAFNOSUPPORT


def test_no_socket_makes_the_host_load_a_module(machine: str) -> None:
    call = _number((41, 198), machine)
    for family, kind, protocol in (
        (2, 1, 132),
        (10, 5, 132),
        (2, 6, 0),
        (2, 5, 0),
        (2, 1, 262),
        (16, 3, 12),
        (16, 3, 16),
    ):
        assert decide(machine, call, family, kind, protocol) == errno.EPROTONOSUPPORT


def test_no_disk_is_taken_without_writing(machine: str) -> None:
    assert decide(machine, _number((285, 47), machine), 3, 1, 0, 1 << 40) == errno.EOPNOTSUPP


def test_the_limit_that_keeps_the_hosts_collector_of_core_dumps_away_stays(machine: str) -> None:
    setrlimit, prlimit = _number((160, 164), machine), _number((302, 261), machine)
    assert decide(machine, setrlimit, 4, 0x7000) == 0
    assert decide(machine, setrlimit, 7, 0x7000) == ALLOW
    for pointer in (0x7000, 1 << 32):
        assert decide(machine, prlimit, 0, 4, pointer) == 0
    assert decide(machine, prlimit, 0, 4, 0) == ALLOW
    assert decide(machine, prlimit, 0, 7, 0x7000) == ALLOW


def test_no_snapshot_takes_other_files_along(machine: str) -> None:
    ioctl = _number((16, 29), machine)
    for request in (0x50009401, 0x5000940E, 0x50009417, 0x50009418, 0x4020BC10):
        assert decide(machine, ioctl, 3, request) == errno.EPERM
    for clone in (0x40049409, 0x4020940D, 0xC0189436):
        assert decide(machine, ioctl, 3, clone) == ALLOW


def test_nothing_is_typed_into_a_terminal(machine: str) -> None:
    ioctl = _number((16, 29), machine)
    assert decide(machine, ioctl, 0, 0x5401) == ALLOW
    assert decide(machine, ioctl, 0, 0x5412) == errno.EPERM
    assert decide(machine, ioctl, 0, 0x541C) == errno.EPERM
    # The kernel looks at the low half only, so the filter must too.
    assert decide(machine, ioctl, 0, 0xFFFFFFFF00005412) == errno.EPERM


def test_another_architecture_has_no_filter() -> None:
    with pytest.raises(SandboxUnavailable):
        seccomp.program("riscv64")
