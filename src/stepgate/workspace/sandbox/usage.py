"""What the processes and folders of a running sandbox use, read from /proc and by walking descriptors."""

import errno
import os
import stat
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MANY = 10_000
_OPEN = 64
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


@dataclass(frozen=True, slots=True)
class Processes:
    """Sums over a process and all its descendants; `memory_bytes` is what only they hold (no file pages).

    `own_s` is what each used itself, by pid and start, so that somebody can remember it when the process is gone.
    """

    pids: tuple[int, ...]
    cpu_s: float
    memory_bytes: int
    own_s: dict[tuple[int, int], float]


@dataclass(frozen=True, slots=True)
class Contents:
    """`bytes` on disk and `files` (of any kind) beneath a folder; `closed` says that some of it cannot be read."""

    bytes: int
    files: int
    closed: bool


def processes(first: int) -> Processes:
    """Everything started by a sandbox, given its first process; those that end meanwhile are left out."""
    ticks, memory = 0, 0
    pids: list[int] = []
    own: dict[tuple[int, int], float] = {}
    waiting = [first]
    while waiting and len(pids) < _MANY:
        pid = waiting.pop()
        try:
            waiting += _children(pid)
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            with open(f"/proc/{pid}/status", "rb") as file:
                memory += _held(file.read())
        except (FileNotFoundError, ProcessLookupError):
            continue
        pids.append(pid)
        # Own user and system time, and that of children already waited for: proc_pid_stat(5), fields 14 to 17.
        user, system, *of_children = map(int, fields[11:15])
        ticks += user + system + sum(of_children)
        own[pid, int(fields[19])] = (user + system) / _TICKS
    return Processes(tuple(pids), ticks / _TICKS, memory, own)


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
        if line.startswith((b"RssAnon:", b"RssShmem:", b"VmPTE:", b"VmSwap:")):
            total += int(line.split()[1]) * 1024
    return total


@dataclass(slots=True)
class _Level:
    """A folder on the way down; `fd` is -1 while what lies far below it is counted."""

    fd: int
    names: list[str]
    identity: tuple[int, int]

    @classmethod
    def open(cls, parent: int, name: str) -> "_Level":
        fd = os.open(name, _FOLDER, dir_fd=parent)
        found = os.fstat(fd)
        return cls(fd, os.listdir(fd), (found.st_dev, found.st_ino))

    def reopen(self, below: int) -> bool:
        """Comes back from a folder below; False when that was moved meanwhile, so that above it lies another."""
        fd = os.open("..", _FOLDER, dir_fd=below)
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != self.identity:
            os.close(fd)
            return False
        self.fd = fd
        return True


def contents(folder: int, most: int) -> Contents:
    """What lies beneath a folder, counted until `most` files are found; changes meanwhile are tolerated."""
    size = files = 0
    closed = False
    try:
        # Only the last levels are open, so that neither depth nor width nor long paths can exhaust anything.
        levels = [_Level.open(folder, ".")]
    except OSError:
        return Contents(0, 0, closed=True)
    try:
        while levels and files <= most:
            level = levels[-1]
            if not level.names:
                closed = not _leave(levels) or closed
                continue
            name = level.names.pop()
            try:
                found = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
                files += 1
                size += found.st_blocks * 512
                if stat.S_ISDIR(found.st_mode):
                    levels.append(_Level.open(level.fd, name))
            except OSError as error:
                closed = closed or error.errno not in _GONE
                continue
            if len(levels) > _OPEN and levels[-_OPEN - 1].fd >= 0:
                os.close(levels[-_OPEN - 1].fd)
                levels[-_OPEN - 1].fd = -1
    finally:
        for level in levels:
            if level.fd >= 0:
                os.close(level.fd)
    return Contents(size, files, closed)


def _leave(levels: list[_Level]) -> bool:
    """Goes up; False, and nothing more to count, where the way up is lost."""
    below = levels.pop()
    try:
        if not levels or levels[-1].fd >= 0 or levels[-1].reopen(below.fd):
            return True
    except OSError:
        pass
    finally:
        os.close(below.fd)
    levels.clear()
    return False
