"""A memory limit that no process can outrun: a cgroup (v2) of its own for each command, where we may make some.

The watch looks every 50 ms, and memory can grow by hundreds of megabytes in that time; the kernel counts every page.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepgate.domain.ids import new_id
from stepgate.workspace.sandbox.limits import Limits

_CONTROLLERS: Final = frozenset({"memory", "pids"})


@dataclass(frozen=True, slots=True)
class Counted:
    """What a group used; `out_of_memory` says that the kernel killed in it. None where the kernel does not tell."""

    peak_bytes: int | None
    out_of_memory: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The group of one command; `remove` it when its last process is gone."""

    folder: Path

    @classmethod
    def make(cls, home: Path, limits: Limits) -> "Group":
        """An empty group with the limits. Raises OSError where groups may not be made or limited."""
        group = cls(home / f"stepgate-{new_id()}")
        group.folder.mkdir()
        try:
            group._write("memory.max", limits.memory_bytes)
            group._write("pids.max", limits.pids)
            group._write("memory.oom.group", 1)
            # There is no such file where the host has no swap accounting.
            with contextlib.suppress(FileNotFoundError):
                group._write("memory.swap.max", 0)
        except BaseException:
            group.remove()
            raise
        return group

    def add(self, pid: int) -> None:
        """Moves a process in, with all it will start. Raises OSError."""
        self._write("cgroup.procs", pid)

    def counted(self) -> Counted:
        """What was used so far."""
        peak = self._read("memory.peak").strip()
        events = dict(line.split() for line in self._read("memory.events").splitlines() if line.count(" ") == 1)
        return Counted(int(peak) if peak.isdigit() else None, int(events.get("oom_kill", 0)) > 0)

    def remove(self) -> None:
        """Removes the empty group; one that cannot be removed yet is left to the host."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text()
        except FileNotFoundError:
            return ""

    def _write(self, name: str, value: int) -> None:
        # Never created: what is no control group must not pass for one.
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, str(value).encode())
        finally:
            os.close(descriptor)


def find_home(processes: str | None = None, mounts: str | None = None) -> Path | None:
    """Where groups with memory and process limits can be made, None where that is nowhere.

    The texts are those of /proc/self/cgroup and /proc/self/mountinfo. Tried are our own group and the one above it:
    in a group that holds processes itself no limited one can be made, beside it one can.
    """
    here = _here(
        Path("/proc/self/cgroup").read_text() if processes is None else processes,
        Path("/proc/self/mountinfo").read_text() if mounts is None else mounts,
    )
    return next((home for home in here if _usable(home)), None)


def _here(processes: str, mounts: str) -> Iterator[Path]:
    own = next((line[3:] for line in processes.splitlines() if line.startswith("0::/")), None)
    for line in mounts.splitlines() if own is not None else ():
        before, _dash, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            top = Path(before.split()[4])
            home = top / (own or "").lstrip("/")
            yield from (home, home.parent) if home != top else (home,)


def _usable(home: Path) -> bool:
    try:
        group = Group.make(home, Limits())
    except OSError:
        return False
    try:
        return set((group.folder / "cgroup.controllers").read_text().split()) >= _CONTROLLERS
    except OSError:
        return False
    finally:
        group.remove()
