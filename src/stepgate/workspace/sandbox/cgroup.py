"""A memory limit that no process can outrun: a cgroup (v2) of its own for each command, where we may make some.

The watch looks many times a second, and memory can grow by hundreds of megabytes meanwhile; the kernel counts every
page.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepgate.domain.ids import new_id
from stepgate.workspace.sandbox.limits import Limits

_CONTROLLERS: Final = frozenset({"memory", "pids"})
_OURS: Final = "stepgate-worker"
_DELEGATED: Final = ("user.delegate", "trusted.delegate")
_PASSES: Final = 10


@dataclass(frozen=True, slots=True)
class Counted:
    """What a group used; `out_of_memory` says that the kernel killed in it. None where the kernel does not tell."""

    peak_bytes: int | None
    out_of_memory: bool
    cpu_us: int | None = None


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
            _write(group.folder / "memory.max", str(limits.memory_bytes))
            _write(group.folder / "pids.max", str(limits.pids))
            _write(group.folder / "memory.oom.group", "1")
            # There is no such file where the host has no swap accounting.
            with contextlib.suppress(FileNotFoundError):
                _write(group.folder / "memory.swap.max", "0")
        except BaseException:
            group.remove()
            raise
        return group

    def add(self, pid: int) -> None:
        """Moves a process in, with all it will start. Raises OSError."""
        _write(self.folder / "cgroup.procs", str(pid))

    def counted(self) -> Counted:
        """What was used so far."""
        peak = self._read("memory.peak").strip()
        killed = self._fields("memory.events").get("oom_kill", 0)
        return Counted(int(peak) if peak.isdigit() else None, killed > 0, self._fields("cpu.stat").get("usage_usec"))

    def remove(self) -> None:
        """Removes the empty group; one that cannot be removed yet is left to the host."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _fields(self, name: str) -> dict[str, int]:
        pairs = (line.split() for line in self._read(name).splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text()
        except FileNotFoundError:
            return ""


def find_home(processes: str | None = None, mounts: str | None = None) -> Path | None:
    """Where groups with memory and process limits can be made, None where that is nowhere.

    The texts are those of /proc/self/cgroup and /proc/self/mountinfo. Tried are our own group and the one above it:
    in a group that holds processes itself no limited one can be made, beside it one can. What a service manager has
    delegated to us is arranged so: everything in it moves into a group below, which leaves room beside that.
    """
    here = list(
        _here(
            Path("/proc/self/cgroup").read_text() if processes is None else processes,
            Path("/proc/self/mountinfo").read_text() if mounts is None else mounts,
        )
    )
    found = next((home for home in here if _usable(home)), None)
    if found is not None:
        return found
    return next((home for home in here if _is_delegated(home) and _arrange(home) and _usable(home)), None)


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
        return _words(group.folder / "cgroup.controllers") >= _CONTROLLERS
    except OSError:
        return False
    finally:
        group.remove()


def _is_delegated(home: Path) -> bool:
    """Whether the service manager (systemd, `Delegate=`) has left the group and all below to whoever runs in it."""
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(home, name) == b"1":
                return True
    return False


def _arrange(home: Path) -> bool:
    """Lets groups below have limits; whether that is so."""
    try:
        missing = _CONTROLLERS - _words(home / "cgroup.subtree_control")
        if not missing <= _words(home / "cgroup.controllers"):
            return False
        wanted = " ".join(f"+{name}" for name in sorted(missing))
        try:
            _write(home / "cgroup.subtree_control", wanted)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _move_down(home)
            _write(home / "cgroup.subtree_control", wanted)
    except OSError:
        return False
    return True


def _move_down(home: Path) -> None:
    below = home / _OURS
    below.mkdir(exist_ok=True)
    # What is started meanwhile by those that did not move yet is found by another pass.
    for _ in range(_PASSES):
        pids = (home / "cgroup.procs").read_text().split()
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                _write(below / "cgroup.procs", pid)


def _words(path: Path) -> set[str]:
    return set(path.read_text().split())


def _write(path: Path, value: str) -> None:
    # Never created: what is no control group must not pass for one.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
