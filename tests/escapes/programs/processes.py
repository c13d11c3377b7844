"""Reaching processes of the host: one of the suite's own user and, where that is root, one of the sandbox's user."""

import ctypes
import fcntl
import os
import resource
import signal
import struct

from tests.escapes.inside import FACTS, call, checked, claim, each, libc, read, tell

PTRACE_SEIZE, PTRACE_ATTACH = 0x4206, 16
F_SETSIG = 10


def _victims() -> "list[int]":
    return [FACTS["victim"], FACTS["sleeper"]]


def terminate() -> None:
    each(*(lambda pid=pid: os.kill(pid, signal.SIGTERM) for pid in _victims()))


def signal_everybody() -> None:
    # By default it is ignored, so that it harms nobody who does not wait for it.
    os.kill(-1, signal.SIGURG)


def terminate_group() -> None:
    each(*(lambda pid=pid: os.killpg(pid, signal.SIGTERM) for pid in _victims()))


def terminate_by_descriptor() -> None:
    def way(pid: int) -> None:
        process = call("pidfd_open", pid, 0)
        call("pidfd_send_signal", process, signal.SIGTERM, None, 0)

    each(*(lambda pid=pid: way(pid) for pid in _victims()))


def queue_signal() -> None:
    information = ctypes.create_string_buffer(struct.pack("iii", signal.SIGTERM, 0, -1), 128)
    each(
        *(lambda pid=pid: call("rt_sigqueueinfo", pid, signal.SIGTERM, information) for pid in _victims()),
        *(lambda pid=pid: call("tgkill", pid, pid, signal.SIGTERM) for pid in _victims()),
    )


def signal_by_descriptor_owner() -> None:
    for pid in _victims():
        reading, writing = os.pipe()
        try:
            fcntl.fcntl(reading, fcntl.F_SETOWN, pid)
        except OSError:
            continue
        fcntl.fcntl(reading, F_SETSIG, signal.SIGTERM)
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(writing, b"x")


def trace() -> None:
    def way(request: int, pid: int) -> None:
        checked(libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), None, None))
        claim(f"process {pid} is traced")

    each(
        *(
            lambda pid=pid, request=request: way(request, pid)
            for pid in _victims()
            for request in (PTRACE_SEIZE, PTRACE_ATTACH)
        )
    )


def _vectors(
    size: int,
) -> "tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]":
    here = ctypes.create_string_buffer(size)
    local = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(here), size), 16)
    remote = ctypes.create_string_buffer(struct.pack("PN", FACTS["address"], size), 16)
    return here, local, remote


def read_memory() -> None:
    here, local, remote = _vectors(FACTS["memory_size"])
    call("process_vm_readv", FACTS["victim"], local, 1, remote, 1, 0)
    tell(here.raw)


def write_memory() -> None:
    here, local, remote = _vectors(8)
    here.raw = b"tampered"
    call("process_vm_writev", FACTS["victim"], local, 1, remote, 1, 0)


def memory_file() -> None:
    with open(f"/proc/{FACTS['victim']}/mem", "rb", buffering=0) as file:
        file.seek(FACTS["address"])
        tell(file.read(FACTS["memory_size"]))


def environment_of_a_process() -> None:
    each(*(lambda pid=pid: read(f"/proc/{pid}/environ") for pid in _victims()))


def arguments_of_every_process() -> None:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                read(f"/proc/{name}/cmdline")
            except OSError:
                continue


def take_descriptor() -> None:
    process = call("pidfd_open", FACTS["victim"], 0)
    taken = call("pidfd_getfd", process, FACTS["victim_fd"], 0)
    os.lseek(taken, 0, os.SEEK_SET)
    tell(os.read(taken, 1 << 16))


def compare() -> None:
    call("kcmp", FACTS["worker"], FACTS["victim"], 1, 0, 0)
    claim("processes of the host can be compared")


def priority() -> None:
    each(*(lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, 19) for pid in _victims()))


def affinity() -> None:
    each(*(lambda pid=pid: os.sched_setaffinity(pid, {0}) for pid in _victims()))


def limits_of_a_process() -> None:
    each(*(lambda pid=pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64)) for pid in _victims()))


def disk_priority() -> None:
    idle = 3 << 13
    each(*(lambda pid=pid: call("ioprio_set", 1, pid, idle) for pid in _victims()))
    claim("the disk priority of a process of the host was set")


def memory_killer_score() -> None:
    def way(pid: int) -> None:
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write("900")

    each(*(lambda pid=pid: way(pid) for pid in _victims()))


def move_pages_of_a_process() -> None:
    nodes = ctypes.create_string_buffer(struct.pack("L", 1), 8)
    call("migrate_pages", FACTS["victim"], 2, nodes, nodes)
    claim("pages of a process of the host were moved")


def list_processes() -> None:
    names = {name for name in os.listdir("/proc") if name.isdigit()}
    if str(FACTS["worker"]) in names and len(names) > 8:
        claim(f"{len(names)} processes are to be seen")


def stop_the_parent() -> None:
    # The parent of a command's first process lies outside; a child may signal what it can name.
    if os.getppid() and os.getppid() != 1:
        os.kill(os.getppid(), 0)
        claim("the parent can be signalled")
