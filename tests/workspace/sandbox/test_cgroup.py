"""The kernel's control groups are played by a plain folder, as a host rarely lets tests make real ones with limits."""

import asyncio
import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.errors import SandboxUnavailable
from stepgate.workspace.sandbox import cgroup
from stepgate.workspace.sandbox.canaries import Runner, groups_hold
from stepgate.workspace.sandbox.cgroup import Counted, Group, find_home
from stepgate.workspace.sandbox.command import Command, Killed
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.running import Running
from tests.workspace.sandbox.lab import Lab

FILES = ("memory.max", "pids.max", "memory.oom.group", "memory.swap.max", "cgroup.procs")
MOUNTS = "34 25 0:30 / {top} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n22 1 8:1 / / rw - ext4 /dev/sda rw\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which new folders hold what the kernel puts into a new group, and vanish with it."""
    folder = tmp_path / "cgroup"
    folder.mkdir()
    make, rmdir = Path.mkdir, Path.rmdir

    def mkdir(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        make(path, mode, parents, exist_ok)
        if path.parent == folder:
            for name in FILES:
                (path / name).touch()
            (path / "memory.events").write_text("low 0\nmax 3\noom 0\noom_kill 0\n")
            (path / "memory.peak").write_text("123456789\n")
            (path / "cgroup.controllers").write_text("cpu memory pids\n")

    def remove(path: Path) -> None:
        if path.parent == folder:
            for entry in path.iterdir():
                entry.unlink()
        rmdir(path)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(Path, "rmdir", remove)
    return folder


def test_a_group_takes_its_limits_its_process_and_tells_what_was_used(home: Path) -> None:
    group = Group.make(home, Limits(memory_bytes=1000, pids=7))
    group.add(42)
    assert {name: (group.folder / name).read_text() for name in FILES} == {
        "memory.max": "1000",
        "pids.max": "7",
        "memory.oom.group": "1",
        "memory.swap.max": "0",
        "cgroup.procs": "42",
    }
    assert group.counted() == Counted(123456789, out_of_memory=False)
    (group.folder / "memory.events").write_text("oom 1\noom_kill 2\noom_group_kill 1\n")
    assert group.counted().out_of_memory
    (group.folder / "cpu.stat").write_text("usage_usec 77\nuser_usec 70\n")
    assert group.counted().cpu_us == 77
    group.remove()
    assert list(home.iterdir()) == []


def test_a_plain_folder_is_no_control_group(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Group.make(tmp_path, Limits())
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_that_does_not_tell_the_peak_leaves_it_unknown(home: Path) -> None:
    group = Group.make(home, Limits())
    (group.folder / "memory.peak").unlink()
    assert group.counted().peak_bytes is None


def test_a_home_is_our_own_group_or_the_one_above(home: Path) -> None:
    mounts = MOUNTS.format(top=home.parent)
    assert find_home("1:name=systemd:/x\n0::/cgroup\n", mounts) == home
    assert find_home("0::/cgroup/own.scope\n", mounts) == home
    assert find_home("0::/cgroup/slice/own.scope\n", mounts) is None
    assert find_home("1:memory:/cgroup\n", mounts) is None
    assert find_home("0::/cgroup\n", "22 1 8:1 / / rw - ext4 /dev/sda rw\n") is None


class Service:
    """A group that a service manager delegated and started us in, with the kernel's rules for it played."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, *, delegated: bool) -> None:
        self.folder = folder
        folder.mkdir()
        for name, text in (("controllers", "cpu memory pids"), ("subtree_control", ""), ("procs", "11\n12\n")):
            (folder / f"cgroup.{name}").write_text(text)
        self._delegated = delegated
        self._make, self._rmdir = Path.mkdir, Path.rmdir
        patch.setattr(cgroup, "_write", self.write)

        def mkdir(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
            self.mkdir(path, mode, parents, exist_ok)

        def rmdir(path: Path) -> None:
            self.rmdir(path)

        patch.setattr(Path, "mkdir", mkdir)
        patch.setattr(Path, "rmdir", rmdir)
        patch.setattr(os, "getxattr", self.attribute)

    def attribute(self, path: Path, name: str) -> bytes:
        if self._delegated and path == self.folder and name == "user.delegate":
            return b"1"
        raise OSError(errno.ENODATA, "No data available")

    def mkdir(self, path: Path, *given: Any) -> None:
        self._make(path, *given)
        if path.parent == self.folder:
            enabled = (self.folder / "cgroup.subtree_control").read_text()
            (path / "cgroup.procs").touch()
            (path / "cgroup.controllers").write_text(enabled)
            if "memory" in enabled:
                for name in FILES:
                    (path / name).touch()

    def rmdir(self, path: Path) -> None:
        for entry in path.iterdir() if path.parent == self.folder else ():
            entry.unlink()
        self._rmdir(path)

    def write(self, path: Path, value: str) -> None:
        if not path.exists():
            raise FileNotFoundError(path)
        held = self.folder / "cgroup.procs"
        if path.name == "cgroup.subtree_control":
            if held.read_text():
                raise OSError(errno.EBUSY, "Device or resource busy")
            value = value.replace("+", "")
        if path.name == "cgroup.procs":
            held.write_text("".join(f"{pid}\n" for pid in held.read_text().split() if pid != value))
            value = f"{path.read_text()}{value}\n"
        path.write_text(value)


@pytest.mark.parametrize("below", ["", "/own"])
def test_a_delegated_group_is_emptied_into_one_below_so_that_others_can_be_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    service = Service(tmp_path / "ours.service", monkeypatch, delegated=True)
    mounts = MOUNTS.format(top=tmp_path)
    assert find_home(f"0::/ours.service{below}\n", mounts) == service.folder
    assert (service.folder / "cgroup.procs").read_text() == ""
    assert (service.folder / "stepgate-worker" / "cgroup.procs").read_text() == "11\n12\n"
    assert (service.folder / "cgroup.subtree_control").read_text() == "memory pids"
    # Another worker of the service, or this one after a restart, finds it arranged.
    assert find_home("0::/ours.service/stepgate-worker\n", mounts) == service.folder


def test_a_group_that_is_not_delegated_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(tmp_path / "not-ours.slice", monkeypatch, delegated=False)
    assert find_home("0::/not-ours.slice\n", MOUNTS.format(top=tmp_path)) is None
    assert (service.folder / "cgroup.procs").read_text() == "11\n12\n"
    assert not (service.folder / "stepgate-worker").exists()


def test_a_delegated_group_without_the_controllers_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a host whose memory is still counted by the first version of control groups."""
    service = Service(tmp_path / "ours.service", monkeypatch, delegated=True)
    (service.folder / "cgroup.controllers").write_text("hugetlb")
    assert find_home("0::/ours.service\n", MOUNTS.format(top=tmp_path)) is None
    assert (service.folder / "cgroup.procs").read_text() == "11\n12\n"


async def test_a_command_is_put_into_its_group_before_it_begins(lab: Lab, home: Path) -> None:
    seen: list[tuple[str, str]] = []

    def look(_name: str, data: bytes) -> None:
        (group,) = home.iterdir()
        seen.append((data.decode().strip(), (group / "cgroup.procs").read_text()))

    with lab.layer() as layer:
        recipe = replace(lab.sandbox._recipe, groups=home)
        running = Running(recipe, Command(("/bin/sh", "-c", "echo begun")), layer, look)
        finished = await running.run(None)
    assert (finished.exit_code, finished.peak_memory_bytes) == (0, 123456789)
    ((output, process),) = seen
    assert output == "begun"
    assert int(process) > 1
    assert _groups(home) == []


async def test_memory_taken_too_fast_for_the_watch_is_reported_by_the_kernel(lab: Lab, home: Path) -> None:
    def kill(_name: str, _data: bytes) -> None:
        # What the kernel does when the limit is reached.
        (group,) = home.iterdir()
        (group / "memory.events").write_text("oom_kill 1\n")
        os.kill(int((group / "cgroup.procs").read_text()), 9)

    with lab.layer() as layer:
        recipe = replace(lab.sandbox._recipe, groups=home)
        running = Running(recipe, Command(("/bin/sh", "-c", "echo begun; sleep 60")), layer, kill)
        finished = await running.run(None)
    assert (finished.killed, finished.exit_code) == (Killed.MEMORY, None)


async def test_a_group_that_cannot_be_entered_stops_the_command(
    lab: Lab, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_group: Group, _pid: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Group, "add", refuse)
    begun = asyncio.Event()
    with lab.layer() as layer:
        recipe = replace(lab.sandbox._recipe, groups=home)
        running = Running(recipe, Command(("/bin/echo", "x")), layer, lambda _name, _data: begun.set())
        with pytest.raises(SandboxUnavailable, match="control group"):
            await running.run(None)
    assert not begun.is_set()
    assert _groups(home) == []


async def test_groups_that_do_not_end_a_hog_are_not_used(lab: Lab, home: Path) -> None:
    runner, python = Runner(lab.sandbox._recipe, lab.layers), lab.sandbox.resolve_executable("python3") or ""
    assert not await groups_hold(runner, python, home)
    assert not await groups_hold(runner, python, home / "nowhere")


def _groups(home: Path) -> list[Path]:
    return list(home.iterdir())
