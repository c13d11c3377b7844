"""Taking more memory than the limits give, in every form that a process can hold some; each takes a bounded amount."""

import ctypes
import errno
import mmap
import os
import socket
import time

from tests.escapes.inside import FACTS, call, keep, libc

MIB = 1 << 20
MADV_DONTNEED = 4


def private_memory() -> None:
    held = []
    for _ in range(320):
        held.append(bytearray(os.urandom(16) * (MIB // 16)))
    keep(f"{len(held)} MiB")


def memory_in_children() -> None:
    for _ in range(8):
        if os.fork() == 0:
            _held = b"x" * (40 * MIB)
            time.sleep(FACTS["hold_s"] + 2)
            os._exit(0)
    keep("320 MiB in eight processes")


def _fill(area: mmap.mmap, size: int) -> None:
    for at in range(0, size, mmap.PAGESIZE):
        area[at] = 1


def shared_memory() -> None:
    area = mmap.mmap(-1, 320 * MIB)
    _fill(area, 320 * MIB)
    keep("320 MiB of shared memory")


def shared_memory_out_of_sight() -> None:
    # A page that is mapped nowhere counts for no process, but the mapping keeps it.
    area = mmap.mmap(-1, 640 * MIB)
    for at in range(0, 640 * MIB, 8 * MIB):
        for page in range(at, at + 8 * MIB, mmap.PAGESIZE):
            area[page] = 1
        area.madvise(MADV_DONTNEED, at, 8 * MIB)
    keep("640 MiB that are mapped nowhere")


def memory_file() -> None:
    descriptor = call("memfd_create", b"x", 0)
    for _ in range(320):
        os.write(descriptor, bytes(MIB))
    keep("320 MiB in a memory file")


def secret_memory_file() -> None:
    descriptor = call("memfd_secret", 0)
    os.ftruncate(descriptor, MIB)
    keep("secret memory")


def system_v_memory() -> None:
    call("shmget", 0, 320 * MIB, 0o1600)
    keep("a segment of shared memory")


def input_that_grows() -> None:
    descriptor = os.open("/proc/self/fd/0", os.O_RDWR)
    for _ in range(16):
        os.write(descriptor, bytes(MIB))
    keep("16 MiB in standard input")


def page_tables() -> None:
    # Reading one byte in every two megabytes costs one page of tables each and no memory of one's own.
    size = 160 << 30
    libc.mmap.restype = ctypes.c_void_p
    PRIVATE_ANONYMOUS_NORESERVE = 0x4022
    start = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, PRIVATE_ANONYMOUS_NORESERVE, -1, ctypes.c_long(0))
    if start == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    area = (ctypes.c_char * size).from_address(start)
    for at in range(0, size, 2 * MIB):
        _ = area[at]
    keep("320 MiB of page tables")


def pipe_buffers() -> None:
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            os._exit(_fill_pipes(480))
        children.append(child)
    _all_end(children)
    keep("the buffers of 3,840 pipes")


def _fill_pipes(count: int) -> int:
    held: list[tuple[int, int]] = []
    try:
        while len(held) < count:
            reading, writing = os.pipe()
            os.set_blocking(writing, False)
            held.append((reading, writing))
            try:
                while True:
                    os.write(writing, bytes(65536))
            except BlockingIOError:
                pass
    except OSError:
        return 1
    time.sleep(FACTS["hold_s"] + 3)
    return 0


def _all_end(children: "list[int]") -> None:
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        raise OSError(errno.ENFILE, f"some could not take what they wanted: {codes}")


def socket_buffers() -> None:
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            os._exit(_fill_sockets(120))
        children.append(child)
    _all_end(children)
    keep("the buffers of 960 sockets")


def _fill_sockets(pairs: int) -> int:
    held = []
    try:
        for _ in range(pairs):
            one, other = socket.socketpair()
            held.append((one, other))
            for end in (one, other):
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
                try:
                    while True:
                        end.send(bytes(65536))
                except BlockingIOError:
                    pass
    except OSError:
        return 1
    time.sleep(FACTS["hold_s"] + 3)
    return 0
