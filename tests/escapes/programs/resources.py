"""Taking more of the machine than the limits give; each takes a bounded amount, well above its limits."""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import select
import signal
import struct
import threading
import time

from tests.escapes.inside import FACTS, call, checked, claim, keep, libc, wait_to_be_looked_at

MIB = 1 << 20
MADV_DONTNEED = 4


def fork_bomb() -> None:
    for _ in range(60):
        if os.fork() == 0:
            time.sleep(FACTS["hold_s"])
            os._exit(0)
    keep("60 processes")


def thread_bomb() -> None:
    for _ in range(60):
        threading.Thread(target=time.sleep, args=(FACTS["hold_s"],), daemon=True).start()
    keep("60 threads")


def sparse_file() -> None:
    with open("sparse", "wb") as file:
        file.truncate(1 << 40)
    keep("a file of a terabyte")


def large_file() -> None:
    with open("large", "wb") as file:
        for _ in range(24):
            file.write(bytes(MIB))
            file.flush()
    keep("a file of 24 MiB")


def files_in_all() -> None:
    for number in range(12):
        with open(f"part-{number}", "wb") as file:
            file.write(bytes(4 * MIB))
    keep("48 MiB in files")


def scratch_in_all() -> None:
    folder = FACTS["scratch_folder"] or os.environ["TMPDIR"]
    for number in range(12):
        with open(f"{folder}/part-{number}", "wb") as file:
            file.write(bytes(4 * MIB))
    keep("48 MiB of scratch")


def shared_scratch_in_all() -> None:
    folder = FACTS["scratch_folder"] or "/dev/shm"
    for number in range(12):
        with open(f"{folder}/{FACTS['token']}-{number}", "wb") as file:
            file.write(bytes(4 * MIB))
    keep("48 MiB in /dev/shm")


def nameless_files() -> None:
    held = []
    for number in range(24):
        file = open(f"gone-{number}", "wb")
        os.unlink(f"gone-{number}")
        file.write(bytes(4 * MIB))
        file.flush()
        held.append(file)
    keep("96 MiB in files without a name")


def reserved_disk() -> None:
    KEEP_SIZE = 1
    with open("reserved", "wb") as file:
        call("fallocate", file.fileno(), KEEP_SIZE, 0, 256 * MIB)
    keep("256 MiB of disk in a file of no size")


def many_files() -> None:
    os.mkdir("many")
    for number in range(2500):
        os.close(os.open(f"many/{number}", os.O_CREAT | os.O_WRONLY))
    keep("2,500 files")


def many_folders_deep() -> None:
    for _ in range(1500):
        os.mkdir("deep")
        os.chdir("deep")
    keep("1,500 folders in one another")


def many_links() -> None:
    with open("first", "w") as file:
        file.write("x")
    for number in range(2500):
        os.link("first", f"link-{number}")
    keep("2,500 names of a file")


def _flood(*descriptors: int, line: bytes = b"flood\n" * 2048) -> None:
    for _ in range(24 * MIB // len(line) // len(descriptors) + 1):
        for descriptor in descriptors:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
    os.write(1, b"\n")
    keep("24 MiB of output")


def flood_of_output() -> None:
    _flood(1)


def flood_of_errors() -> None:
    _flood(2)


def flood_of_both() -> None:
    _flood(1, 2)


def one_huge_line() -> None:
    _flood(1, line=b"x" * 65536)


def processor_time() -> None:
    _burn(1.5)
    keep("1.5 seconds of processor time")


def _burn(seconds: float) -> None:
    while time.process_time() < seconds:
        sum(range(1000))


def processor_time_in_children() -> None:
    for _ in range(4):
        if os.fork() == 0:
            _burn(0.4)
            os._exit(0)
    for _ in range(4):
        os.wait()
    keep("1.6 seconds of processor time in children")


def processor_time_in_forgotten_children() -> None:
    # Nobody waits for them, so no parent inherits what they used.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in range(10):
        if os.fork() == 0:
            _burn(time.process_time() + 0.2)
            os._exit(0)
        try:
            os.wait()
        except ChildProcessError:
            continue
    keep("2 seconds of processor time in children that nobody waited for")


def sleeping_for_ever() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    time.sleep(FACTS["longer_than_wall_s"])
    keep("more time than it was given")


def descriptors() -> None:
    held = [os.open(".", os.O_RDONLY) for _ in range(600)]
    keep(f"{len(held)} descriptors in one process")


def event_polls() -> None:
    held = []
    try:
        for _ in range(600):
            held.append(select.epoll())
    except OSError:
        pass
    if len(held) < 600:
        raise OSError(errno.EMFILE, "not so many")
    keep("600 event polls")


def message_queues() -> None:
    # The queue's name must begin with no slash for the call itself.
    attributes = ctypes.create_string_buffer(struct.pack("4l32x", 0, 10, 8192, 0), 64)
    libc.mq_open.restype = ctypes.c_int
    checked(libc.mq_open(b"/" + FACTS["token"].encode(), os.O_CREAT | os.O_RDWR, 0o600, attributes))
    libc.mq_unlink(b"/" + FACTS["token"].encode())
    keep("a message queue")


def system_v_queues() -> None:
    call("msgget", 0, 0o1600)
    keep("a System V message queue")


def locked_memory() -> None:
    area = mmap.mmap(-1, 8 * MIB)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    checked(libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(8 * MIB)))
    keep("8 MiB of locked memory")


def real_time() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    claim("it can run before everybody else")


def higher_priority() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    claim("it runs before others")


def raised_limits() -> None:
    for kind in (resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE):
        _soft, hard = resource.getrlimit(kind)
        more = resource.RLIM_INFINITY if hard == resource.RLIM_INFINITY else hard + 1
        try:
            resource.setrlimit(kind, (more, more))
        except ValueError as error:
            raise OSError(errno.EPERM, str(error)) from error
        claim("a hard limit was raised")


def lock_the_workspace() -> None:
    for path in (".", "/workspace", FACTS["workspace"]):
        try:
            fcntl.flock(os.open(path, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
    wait_to_be_looked_at()


def lock_a_file() -> None:
    for path in ("plain", ".git/config"):
        try:
            fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
    wait_to_be_looked_at()


def lease_on_a_file() -> None:
    for path in ("plain", ".git/config"):
        try:
            fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError:
            continue
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    wait_to_be_looked_at()
