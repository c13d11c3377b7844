"""What the processes and folders of a running sandbox use, read from /proc and by walking descriptors."""

import errno
import os
import stat
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MANY = 10_000
_DEEPEST = 128
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


@dataclass(frozen=True, slots=True)
class Processes:
    """Sums over a process and all its descendants; `memory_bytes` is what only they hold (no file pages)."""

    count: int
    cpu_s: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Contents:
    """`bytes` on disk and `files` (of any kind) beneath a folder; `closed` says that some of it cannot be read."""

    bytes: int
    files: int
    closed: bool


def processes(first: int) -> Processes:
    """Everything started by a sandbox, given its first process; those that end meanwhile are left out."""
    count, ticks, memory = 0, 0, 0
    waiting = [first]
    while waiting and count < _MANY:
        pid = waiting.pop()
        try:
            waiting += _children(pid)
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            with open(f"/proc/{pid}/status", "rb") as file:
                memory += _held(file.read())
        except (FileNotFoundError, ProcessLookupError):
            continue
        count += 1
        # Own user and system time, and that of children already waited for: proc_pid_stat(5), fields 14 to 17.
        ticks += sum(map(int, fields[11:15]))
    return Processes(count, ticks / _TICKS, memory)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _held(status: bytes) -> int:
    total = 0
    for line in status.splitlines():
        if line.startswith((b"RssAnon:", b"RssShmem:", b"VmSwap:")):
            total += int(line.split()[1]) * 1024
    return total


def contents(folder: int, most: int) -> Contents:
    """What lies beneath a folder, counted until `most` files are found; changes meanwhile are tolerated."""
    size = files = 0
    closed = False
    # One descriptor for each level on the way down, so that neither width nor long paths can exhaust anything.
    open_folders: list[tuple[int, list[str]]] = []

    def enter(parent: int, name: str) -> None:
        nonlocal closed
        if len(open_folders) >= _DEEPEST:
            closed = True
            return
        try:
            inside = os.open(name, _FOLDER, dir_fd=parent)
        except OSError as error:
            closed = closed or error.errno not in _GONE
            return
        open_folders.append((inside, os.listdir(inside)))

    enter(folder, ".")
    try:
        while open_folders and files <= most:
            inside, names = open_folders[-1]
            if not names:
                os.close(open_folders.pop()[0])
                continue
            name = names.pop()
            try:
                found = os.stat(name, dir_fd=inside, follow_symlinks=False)
            except OSError as error:
                closed = closed or error.errno not in _GONE
                continue
            files += 1
            size += found.st_blocks * 512
            if stat.S_ISDIR(found.st_mode):
                enter(inside, name)
    finally:
        for inside, _names in open_folders:
            os.close(inside)
    return Contents(size, files, closed)
