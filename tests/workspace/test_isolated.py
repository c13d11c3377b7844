"""Private copies: whole or not there, of everything but what is protected or no file, with what a file carries."""

import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stepgate.domain.errors import ChangeRefused, IntegrityError, PathRefused, WorkspaceConflict, WorkspaceUnavailable
from stepgate.workspace import isolated, treecopy
from stepgate.workspace.access import Root
from stepgate.workspace.isolated import Busy, Copies, Copy
from stepgate.workspace.locks import WorkspaceLock
from stepgate.workspace.treecopy import Bounds, Stopped
from tests.fixtures.patience import PATIENCE_S
from tests.workspace.trees import File, Folder, Link, Tree, read, write

RUN = "019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b10"
TREE: Tree = {
    "a.txt": File(b"a\n", 0o640),
    "run.sh": File(b"#!/bin/sh\n", 0o755),
    "empty": File(b""),
    "large": File(bytes(range(256)) * 1024),
    "d": Folder(0o750),
    "d/deep": Folder(0o500),
    "d/deep/b": File(b"b\n", 0o400),
    "link": Link("a.txt"),
    "away": Link("/etc/passwd"),
    "dangling": Link("nowhere"),
}
ROOM = Bounds(1 << 30, 100_000)


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(tmp_path / "state", ROOM)


def make(copies: Copies, source: Path, *, wanted: Callable[[], bool] = lambda: True) -> Copy:
    return copies.make(RUN, source, lambda _root: ("refs/heads/main", "1" * 40), lambda: False, wanted)


def left_behind(copies: Copies) -> list[str]:
    return [str(path.relative_to(copies.path)) for path in copies.path.rglob("*") if path.name != "aside"]


def test_a_copy_is_equal_in_content_modes_times_and_links(workspace: Path, copies: Copies) -> None:
    write(workspace, TREE)
    os.utime(workspace / "d", ns=(1, 1_600_000_000_000_000_000))
    made = make(copies, workspace)
    folder = copies.folder_of(RUN)
    assert read(folder) == TREE
    assert (folder / "d").stat().st_mtime_ns == 1_600_000_000_000_000_000
    assert (made.files, made.bytes) == (len(TREE), sum(len(f.data) for f in TREE.values() if isinstance(f, File)))
    assert (made.left_out, made.git_commit) == ([], "1" * 40)
    assert copies.find(RUN) == made


def test_the_copy_is_nobody_else_s_to_look_at(workspace: Path, copies: Copies) -> None:
    workspace.chmod(0o755)
    make(copies, workspace)
    assert stat.S_IMODE(copies.path.stat().st_mode) == 0o700


def test_writing_to_the_copy_changes_nothing_in_the_folder(workspace: Path, copies: Copies) -> None:
    write(workspace, TREE)
    (workspace / "other-name").hardlink_to(workspace / "a.txt")
    make(copies, workspace)
    folder = copies.folder_of(RUN)
    (folder / "a.txt").write_text("changed\n")
    assert (workspace / "a.txt").read_bytes() == b"a\n"
    assert (folder / "other-name").read_bytes() == b"a\n"


def test_git_and_what_is_no_file_are_left_out_and_named(workspace: Path, copies: Copies) -> None:
    write(workspace, {"a.txt": File(b"a\n"), "d": Folder()})
    (workspace / ".git").mkdir()
    (workspace / ".git" / "config").write_text("[core]\n")
    (workspace / "d" / ".git").write_text("gitdir: elsewhere\n")
    os.mkfifo(workspace / "d" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(workspace / "socket"))
        made = make(copies, workspace)
    assert read(copies.folder_of(RUN)) == {"a.txt": File(b"a\n", mtime_ns=made_at(workspace / "a.txt")), "d": Folder()}
    assert made.left_out == [(".git", treecopy.PROTECTED), ("d/pipe", "a fifo"), ("socket", "a socket")]


def made_at(path: Path) -> int:
    return path.stat().st_mtime_ns


@pytest.mark.parametrize("bounds", [Bounds(1 << 30, len(TREE) - 1), Bounds(1000, 100_000)])
def test_over_the_bounds_nothing_is_left(workspace: Path, tmp_path: Path, bounds: Bounds) -> None:
    write(workspace, TREE)
    copies = Copies(tmp_path / "state", bounds)
    with pytest.raises(ChangeRefused, match="more than") as refused:
        make(copies, workspace)
    assert refused.value.reason_code == "copy_too_large"
    assert "STEPGATE_ISOLATED_MAX" in (refused.value.fix or "")
    assert left_behind(copies) == []


def test_exactly_the_bounds_is_enough(workspace: Path, tmp_path: Path) -> None:
    write(workspace, TREE)
    size = sum(len(f.data) for f in TREE.values() if isinstance(f, File))
    assert make(Copies(tmp_path / "state", Bounds(size, len(TREE))), workspace).bytes == size


def test_a_name_that_is_not_utf8_is_refused_by_name(workspace: Path, copies: Copies) -> None:
    Path(os.fsdecode(bytes(workspace) + b"/bad\xff")).touch()
    with pytest.raises(ChangeRefused, match=r"bad.*not UTF-8"):
        make(copies, workspace)
    assert left_behind(copies) == []


def test_a_file_that_keeps_changing_is_refused(
    workspace: Path, copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(workspace, TREE)
    copy = treecopy._copy_content

    def meddled(source: int, target: int, size: int) -> None:
        copy(source, target, size)
        with (workspace / "a.txt").open("ab") as file:
            file.write(b"more\n")

    monkeypatch.setattr(treecopy, "_copy_content", meddled)
    with pytest.raises(WorkspaceConflict) as refused:
        make(copies, workspace)
    assert refused.value.details["paths"] == ["a.txt"]
    assert left_behind(copies) == []


def test_a_file_saved_once_meanwhile_is_read_again(
    workspace: Path, copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(workspace, {"a.txt": File(b"old\n")})
    copy, saves = treecopy._copy_content, iter([b"newer and longer\n"])

    def meddled(source: int, target: int, size: int) -> None:
        copy(source, target, size)
        for text in saves:
            (workspace / "a.txt").write_bytes(text)

    monkeypatch.setattr(treecopy, "_copy_content", meddled)
    make(copies, workspace)
    assert (copies.folder_of(RUN) / "a.txt").read_bytes() == b"newer and longer\n"


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_kernel_that_cannot_copy_across_file_systems_is_no_obstacle(
    workspace: Path, copies: Copies, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write(workspace, TREE)

    def refuse(*_arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    make(copies, workspace)
    assert read(copies.folder_of(RUN)) == TREE


def test_a_full_disk_says_so_and_leaves_nothing(
    workspace: Path, copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(workspace, TREE)

    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(WorkspaceUnavailable, match="no room"):
        make(copies, workspace)
    assert left_behind(copies) == []


def test_nobody_applies_a_set_while_the_folder_is_copied(workspace: Path, copies: Copies) -> None:
    write(workspace, TREE)
    locked: list[bool] = []

    def look() -> bool:
        with Root.open(workspace) as root:
            try:
                with WorkspaceLock(root).exclusive():
                    locked.append(False)
            except WorkspaceUnavailable:
                locked.append(True)
        return True

    make(copies, workspace, wanted=look)
    assert set(locked) == {True}


def test_a_folder_that_is_being_changed_is_not_copied(
    workspace: Path, copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "LOCK_WAIT_S", 0.01)
    with Root.open(workspace) as root, WorkspaceLock(root).exclusive(), pytest.raises(Busy):
        make(copies, workspace)
    with pytest.raises(Busy):
        copies.make(RUN, workspace, lambda _root: (None, None), lambda: True, lambda: True)
    assert left_behind(copies) == []


def test_a_copy_nobody_wants_any_more_is_not_finished(workspace: Path, copies: Copies) -> None:
    write(workspace, TREE)
    answers = iter([True, True, False])
    with pytest.raises(Stopped):
        make(copies, workspace, wanted=lambda: next(answers))
    assert left_behind(copies) == []


def test_of_two_makers_the_first_one_s_copy_stays(workspace: Path, copies: Copies) -> None:
    write(workspace, {"a.txt": File(b"first\n")})
    make(copies, workspace)
    (workspace / "a.txt").write_bytes(b"second\n")
    again = make(copies, workspace)
    assert again == copies.find(RUN)
    assert (copies.folder_of(RUN) / "a.txt").read_bytes() == b"first\n"
    assert sorted(left_behind(copies)) == [RUN, f"{RUN}/copy.json", f"{RUN}/files", f"{RUN}/files/a.txt"]


KILLED = """
import os, signal, sys
from pathlib import Path
from stepgate.workspace.isolated import Copies
from stepgate.workspace.treecopy import Bounds
state, source, at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
left = [at]
def wanted():
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return True
rename = os.rename
def killed(*names):
    if at == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*names)
os.rename = killed
Copies(state, Bounds(1 << 30, 1000)).make(sys.argv[4], source, lambda root: (None, None), lambda: False, wanted)
"""


@pytest.mark.parametrize("at", [0, 3, len(TREE) - 1, 99])
def test_a_maker_killed_on_the_way_leaves_no_copy_and_its_rest_is_swept(
    workspace: Path, copies: Copies, at: int
) -> None:
    write(workspace, TREE)
    argv = [sys.executable, "-c", KILLED, str(copies.state_dir), str(workspace), str(at), RUN]
    assert subprocess.run(argv, check=False, timeout=PATIENCE_S).returncode == -9
    assert copies.find(RUN) is None
    assert not copies.folder_of(RUN).exists()
    assert copies.sweep() == 1
    assert left_behind(copies) == []
    make(copies, workspace)
    assert read(copies.folder_of(RUN)) == TREE


def test_a_copy_is_removed_whatever_its_modes(workspace: Path, copies: Copies) -> None:
    write(workspace, TREE)
    make(copies, workspace)
    (copies.folder_of(RUN) / "d").chmod(0)
    assert copies.remove(RUN)
    assert not copies.remove(RUN)
    assert copies.find(RUN) is None
    assert left_behind(copies) == []


def test_a_damaged_note_is_said_to_be(workspace: Path, copies: Copies) -> None:
    make(copies, workspace)
    (copies.path / RUN / "copy.json").write_text('{"files": 1}')
    with pytest.raises(IntegrityError, match="damaged"):
        copies.find(RUN)


def test_a_copy_cannot_hold_itself(copies: Copies, tmp_path: Path) -> None:
    copies.check_workspace(tmp_path, isolated=False)
    with pytest.raises(PathRefused, match="state folder"):
        copies.check_workspace(tmp_path, isolated=True)
    with pytest.raises(PathRefused, match="private copy"):
        copies.check_workspace(copies.folder_of(RUN), isolated=False)


def test_a_workspace_that_has_become_a_link_is_not_followed(workspace: Path, copies: Copies, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    workspace.rmdir()
    workspace.symlink_to(other)
    with pytest.raises(WorkspaceUnavailable):
        make(copies, workspace)


@pytest.fixture
def foreign(workspace: Path) -> Path:
    """A workspace of another user, for root."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    write(workspace, TREE)
    for path in [workspace, *workspace.rglob("*")]:
        os.chown(path, 1234, 4321, follow_symlinks=False)
    return workspace


def test_root_keeps_the_owners(foreign: Path, copies: Copies) -> None:
    make(copies, foreign)
    folder = copies.folder_of(RUN)
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in [folder, *folder.rglob("*")]}
    assert owners == {(1234, 4321)}
    assert read(folder) == TREE
