"""Ending a process with all it started where no namespace does: found by who descends from whom, stopped, then killed.

Standard library only: it runs in the launcher. The caller adopts orphans, so that nothing leaves its descendants.
"""

import contextlib
import os
import signal
import time
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

_NAP_S: Final = 0.001
_THREADS: Final = 17
"""Where the number of threads stands, counted from the state."""
_GONE: Final = (FileNotFoundError, ProcessLookupError)


@dataclass(slots=True)
class Usage:
    """What the processes waited for have used, with their own children; `status` and `peak_bytes` are of `first`."""

    first: int
    cpu_us: int = 0
    status: int | None = None
    peak_bytes: int | None = None

    def reap(self) -> bool:
        """Takes note of one dead child; False where there is none yet. Raises ChildProcessError without children."""
        ended, status, used = os.wait4(-1, os.WNOHANG)
        if not ended:
            return False
        self.cpu_us += round((used.ru_utime + used.ru_stime) * 1e6)
        if ended == self.first:
            self.status, self.peak_bytes = status, used.ru_maxrss * 1024
        return True


def end_all(usage: Usage) -> None:
    """Kills every descendant of the calling process and waits for all of them."""
    while True:
        for pid in (family := _stopped()):
            _signal(pid, family, signal.SIGKILL)
        try:
            while usage.reap():
                pass
        except ChildProcessError:
            return
        time.sleep(_NAP_S)


def _stopped() -> set[int]:
    """All descendants, none of which runs: even what forks as fast as it can comes to an end so."""
    family: set[int] = set()
    while new := descendants() - family:
        family |= new
        for pid in new:
            _signal(pid, family, signal.SIGSTOP)
    return family


def descendants() -> set[int]:
    """All processes below the calling one; zombies are left out."""
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        children = {child for child in _children(waiting.pop()) if child not in found and _lives(child)}
        found |= children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(*_GONE):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(*_GONE), open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def _status(pid: int) -> list[bytes]:
    """From the state on: proc_pid_stat(5), the third field and those after it; nothing for one that is gone."""
    with contextlib.suppress(*_GONE), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()
    return []


def _lives(pid: int) -> bool:
    """A process whose first thread has ended looks dead while its other threads run on."""
    status = _status(pid)
    return bool(status) and (status[0] not in (b"Z", b"X") or int(status[_THREADS]) > 1)


def _signal(pid: int, family: Container[int], number: signal.Signals) -> None:
    """Only to one whose parent is of the family, or who came to us: the number may be somebody else's by now."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            status = _status(pid)
            if status and (int(status[1]) in family or int(status[1]) == os.getpid()):
                signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)
