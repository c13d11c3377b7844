"""Interfaces of the kernel that builds and tests do not need and attacks do."""

import ctypes
import mmap
import os
import platform
import resource
import struct
from contextlib import suppress

from tests.escapes.inside import FACTS, call, checked, claim, each, gained, libc, raw

X86 = platform.machine() == "x86_64"


def bpf_map() -> None:
    attributes = ctypes.create_string_buffer(struct.pack("6I", 2, 4, 8, 1, 0, 0), 128)
    call("bpf", 0, attributes, 128)
    claim("a map for programs in the kernel was made")


def bpf_program() -> None:
    code = ctypes.create_string_buffer(struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("=IIQQ", 1, 2, ctypes.addressof(code), ctypes.addressof(licence))
    call("bpf", 5, ctypes.create_string_buffer(attributes, 128), 128)
    claim("a program was loaded into the kernel")


def io_uring() -> None:
    call("io_uring_setup", 4, ctypes.create_string_buffer(120))
    claim("a ring for system calls past the filter was made")


def add_key() -> None:
    call("add_key", b"user", FACTS["token"].encode(), b"x", 1, -3)
    claim("a key was added")


def session_keys() -> None:
    KEYCTL_GET_KEYRING_ID, SESSION = 0, -3
    call("keyctl", KEYCTL_GET_KEYRING_ID, SESSION, 0, 0, 0)
    claim("the session's keys can be named")


def request_key() -> None:
    call("request_key", b"user", b"stepgate-no-such-key", None, 0)
    claim("a key was found")


def fault_handling() -> None:
    USER_MODE_ONLY = 1
    each(
        lambda: gained("faults of the kernel can be held up", call("userfaultfd", os.O_CLOEXEC)),
        lambda: gained("faults can be held up", call("userfaultfd", os.O_CLOEXEC | USER_MODE_ONLY)),
    )


def performance_events() -> None:
    SOFTWARE, SIZE, EXCLUDE_KERNEL_AND_HYPERVISOR = 1, 128, 0b1100000
    attributes = struct.pack("IIQQQQQ", SOFTWARE, SIZE, 1, 0, 0, 0, EXCLUDE_KERNEL_AND_HYPERVISOR)
    call("perf_event_open", ctypes.create_string_buffer(attributes, SIZE), 0, -1, -1, 0)
    claim("performance counters were opened")


def x32_entry() -> None:
    raw(0x40000000 + 39)
    claim("the x32 calls are there")


# int 0x80 in 64-bit code enters the kernel by the 32-bit table, where the numbers mean other calls.
I386 = bytes.fromhex("53 b8 14 00 00 00 cd 80 5b c3")


def i386_entry() -> None:
    if not X86:
        raise OSError("there is no 32-bit table")
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(I386)
    entry = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    if entry() == os.getpid():
        claim("the 32-bit calls are there")


def new_kernel() -> None:
    EINVAL_FLAGS = 0xFFFF
    _reaches("kexec_load", 0, 0, None, EINVAL_FLAGS)


def load_module() -> None:
    _reaches("finit_module", -1, b"", 0)


def _reaches(name: str, *arguments: object) -> None:
    """A call with arguments that cannot succeed: any answer but "not permitted" comes from beyond the gate."""
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno in (1, 38):
            raise
    claim(f"{name} can be reached")


def kernel_log() -> None:
    READ_ALL = 3
    call("syslog", READ_ALL, ctypes.create_string_buffer(4096), 4096)
    claim("the kernel's log was read")


def swap() -> None:
    _reaches("swapon", b"/nonexistent", 0)


def reboot() -> None:
    # With wrong magic numbers nothing happens, but permission is looked at first.
    _reaches("reboot", 1, 2, 3, None)


def accounting() -> None:
    _reaches("acct", b"/nonexistent")


def quota() -> None:
    _reaches("quotactl", 0x800002 << 8, b"/nonexistent", 0, None)


def set_time() -> None:
    call("settimeofday", None, None)
    claim("the clock can be set")


def port_access() -> None:
    each(
        lambda: gained("ports of the machine can be written", call("iopl", 3)),
        lambda: gained("a port of the machine can be written", call("ioperm", 0x80, 1, 1)),
    )


def local_descriptors() -> None:
    call("modify_ldt", 0, ctypes.create_string_buffer(64), 64)
    claim("the table of local descriptors was read")


def watch_the_file_system() -> None:
    call("fanotify_init", 0, 0)
    claim("everybody's file accesses can be watched")


def give_pages() -> None:
    reading, writing = os.pipe()
    data = ctypes.create_string_buffer(4096)
    vector = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(data), 4096), 16)
    os.set_inheritable(reading, False)
    call("vmsplice", writing, vector, 1, 0)
    claim("pages were given to a pipe")


def filter_replaced() -> None:
    # A filter of one's own that allows everything must not take the place of the one that is there.
    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000), 8)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 1, ctypes.addressof(code)), 16)
    checked(libc.prctl(38, 1, 0, 0, 0))
    call("seccomp", 1, 0, program)
    call("unshare", 0x10000000)
    claim("the filter was replaced")


def filter_taken_off() -> None:
    # A program that has no filter yet may be started by another name: 32-bit personality, then the same calls.
    checked(libc.personality(ctypes.c_ulong(0x0008)))
    call("unshare", 0x10000000)
    claim("the filter depends on the personality")


def page_zero() -> None:
    libc.mmap.restype = ctypes.c_void_p
    got = libc.mmap(ctypes.c_void_p(0), ctypes.c_size_t(4096), 3, 0x32, -1, ctypes.c_long(0))
    if got != ctypes.c_void_p(-1).value:
        claim("page zero was mapped")


SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/poweroff_cmd",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/fs/file-max",
)


def kernel_settings() -> None:
    each(*(lambda path=path: _opens(path, os.O_WRONLY) for path in SETTINGS))


def _opens(path: str, flags: int) -> None:
    os.close(os.open(path, flags))
    claim(f"{path} was opened")


def magic_keys() -> None:
    _opens("/proc/sysrq-trigger", os.O_WRONLY)


def memory_of_the_machine() -> None:
    each(
        *(
            lambda path=path: _opens(path, os.O_RDONLY)
            for path in ("/proc/kcore", "/dev/mem", "/dev/kmsg", "/proc/kmsg")
        )
    )


def cgroup_files() -> None:
    each(
        *(
            lambda path=path: _opens(path, os.O_WRONLY)
            for path in (
                "/sys/fs/cgroup/cgroup.procs",
                "/sys/fs/cgroup/unified/cgroup.procs",
                "/sys/kernel/uevent_helper",
            )
        )
    )


def hidden_memory() -> None:
    call("memfd_secret", 0)
    claim("memory that nobody can look into was made")


def dump_core() -> None:
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if resource.getrlimit(resource.RLIMIT_CORE)[0] != 1:
        claim("the host's collector of core dumps would be started")
