import hashlib
import os
import socket
import time
from pathlib import Path

import pytest

from stepgate.domain.errors import NotFound, PathRefused, StepgateError, WorkspaceUnavailable
from stepgate.workspace.access import Root, check_workspace
from stepgate.workspace.changes import Kind
from stepgate.workspace.opening import Opener
from tests.workspace import trees
from tests.workspace.swapper import swapping

AS_ROOT = os.geteuid() == 0


def test_a_file_is_read_whole_with_its_hash_and_stat(either_root: Root, workspace: Path) -> None:
    (workspace / "a" / "b").mkdir(parents=True)
    data = os.urandom(300_000)
    (workspace / "a/b/f").write_bytes(data)
    (workspace / "a/b/f").chmod(0o640)
    content = either_root.read("a/b/f", 1 << 20)
    assert content.data == data
    assert content.sha256 == hashlib.sha256(data).hexdigest()
    assert (content.stat.kind, content.stat.mode, content.stat.size) == (Kind.FILE, 0o640, len(data))


def test_an_empty_file_is_read(either_root: Root, workspace: Path) -> None:
    (workspace / "empty").touch()
    assert either_root.read("empty", 0).data == b""


def test_a_missing_file_is_not_found(either_root: Root, workspace: Path) -> None:
    (workspace / "file").touch()
    for path in ("nothing", "no/thing", "file/beneath"):
        with pytest.raises(NotFound) as caught:
            either_root.read(path, 10)
        assert caught.value.field == "path"
        assert either_root.stat(path) is None


def test_a_file_over_the_limit_is_refused_with_its_size(either_root: Root, workspace: Path) -> None:
    (workspace / "big").write_bytes(b"x" * 11)
    assert either_root.read("big", 11).data == b"x" * 11
    with pytest.raises(PathRefused, match="11 bytes") as caught:
        either_root.read("big", 10)
    assert caught.value.details["size"] == 11


def test_links_are_never_followed(either_root: Root, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (workspace / "real").mkdir()
    (workspace / "real/f").write_text("inside")
    (workspace / "out").symlink_to(tmp_path / "secret")
    (workspace / "in").symlink_to("real/f")
    (workspace / "folder").symlink_to("real")
    (workspace / "proc").symlink_to("/proc/self/root")
    for path in ("out", "in", "folder/f", "folder", "proc/etc/hostname"):
        with pytest.raises(PathRefused, match=r"symbolic link|no folder"):
            either_root.read(path, 1000)
    found = either_root.stat("out")
    assert found is not None
    assert found.kind is Kind.SYMLINK
    assert either_root.read_link("in") == "real/f"
    with pytest.raises(PathRefused):
        either_root.stat("folder/f")
    with pytest.raises(PathRefused):
        either_root.open_folder("folder")


def test_what_is_no_regular_file_is_refused_without_blocking(either_root: Root, workspace: Path) -> None:
    os.mkfifo(workspace / "fifo")
    (workspace / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(workspace)
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        for path, name in (("fifo", "fifo"), ("folder", "folder"), ("socket", "socket")):
            with pytest.raises(PathRefused, match=name):
                either_root.read(path, 1000)


@pytest.mark.skipif(not AS_ROOT, reason="only root makes devices")
def test_a_device_is_refused(either_root: Root, workspace: Path) -> None:
    try:
        os.mknod(workspace / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this container makes no devices")
    with pytest.raises(PathRefused, match="device"):
        either_root.read("null", 1000)


def test_a_hard_linked_file_is_refused_unless_allowed(either_root: Root, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("shared")
    (workspace / "f").hardlink_to(tmp_path / "elsewhere")
    with pytest.raises(PathRefused, match="hard links"):
        either_root.read("f", 100)
    assert either_root.read("f", 100, allow_hard_links=True).data == b"shared"


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a\x00", "", "\udcff", ".git/config", "a/.GIT/x"])
def test_a_path_that_may_not_be_named_is_not_opened(either_root: Root, path: str) -> None:
    with pytest.raises(PathRefused) as caught:
        either_root.read(path, 100)
    assert caught.value.field == "path"


@pytest.mark.skipif(AS_ROOT, reason="root reads everything")
def test_a_file_without_permission_is_refused(either_root: Root, workspace: Path) -> None:
    (workspace / "f").touch(0o000)
    with pytest.raises(PathRefused, match="user"):
        either_root.read("f", 100)


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs a mount within a folder")
def test_another_file_system_in_the_folder_is_not_entered(opener: Opener) -> None:
    with Root.open(Path("/dev"), opener=opener) as root, pytest.raises(PathRefused, match="another file system"):
        root.stat("shm/x")


def test_names_of_every_kind_work(either_root: Root, workspace: Path) -> None:
    for name in ("a b", "ü", "new\nline", "-rf", "'\"\\", "…" * 85, "a" * 255, "~", "$HOME", "*"):
        (workspace / name).write_text(name)
        assert either_root.read(name, 1000).data.decode() == name
    assert "new\nline" in either_root.list()


def test_the_deepest_tree_allowed_is_read(either_root: Root, workspace: Path) -> None:
    path = "/".join(["d"] * 63 + ["f"])
    (workspace / path).parent.mkdir(parents=True)
    (workspace / path).write_text("deep")
    assert either_root.read(path, 10).data == b"deep"


def test_no_descriptor_stays_open(either_root: Root, workspace: Path) -> None:
    (workspace / "f").write_text("x")
    (workspace / "l").symlink_to("f")
    os.mkfifo(workspace / "p")

    def use() -> None:
        for path in ("f", "l", "p", "none", "f/x"):
            try:
                either_root.read(path, 10)
                either_root.stat(path)
            except StepgateError:
                continue
        either_root.list()

    use()
    before = trees.open_descriptors()
    for _ in range(50):
        use()
    assert trees.open_descriptors() <= before + 2


def test_swapping_a_folder_for_a_link_never_leads_outside(either_root: Root, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_text("secret")
    (workspace / "d").mkdir()
    (workspace / "d/f").write_text("inside")
    (workspace / "link").symlink_to(tmp_path / "outside")
    outcomes = {"read": 0, "refused": 0}
    with swapping(workspace):
        end = time.monotonic() + 1.0
        latest = end + 10
        while time.monotonic() < end or (0 in outcomes.values() and time.monotonic() < latest):
            try:
                assert either_root.read("d/f", 100).data == b"inside"
                outcomes["read"] += 1
            except (PathRefused, NotFound):
                outcomes["refused"] += 1
    assert all(outcomes.values()), outcomes


def test_a_workspace_that_cannot_be_one_names_its_field(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceUnavailable) as gone:
        Root.open(tmp_path / "none")
    assert gone.value.field == "workspace_path"
    for path in (tmp_path / "file", Path("relative"), Path("/"), Path("/a\x00b")):
        with pytest.raises(PathRefused) as caught:
            Root.open(path)
        assert caught.value.field == "workspace_path"


@pytest.mark.parametrize("replaced", ["spaces/w", "spaces"])
def test_a_workspace_known_by_its_path_is_not_followed_to_another_place(tmp_path: Path, replaced: str) -> None:
    path = tmp_path / "spaces/w"
    path.mkdir(parents=True)
    (tmp_path / "elsewhere/w").mkdir(parents=True)
    Root.open(path, exact=True).close()
    (tmp_path / replaced).rename(tmp_path / "moved")
    (tmp_path / replaced).symlink_to(tmp_path / "elsewhere")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(WorkspaceUnavailable, match="has become a link") as caught:
        Root.open(path, exact=True)
    assert caught.value.field == "workspace_path"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_named_workspace_must_lie_beneath_the_allowed_root(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "project").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (allowed / "escape").symlink_to(tmp_path / "other")
    (allowed / "file").touch()
    assert check_workspace("project", allowed) == (allowed / "project").resolve()
    assert check_workspace(str(allowed / "project"), allowed) == (allowed / "project").resolve()
    for text in ("../other", str(tmp_path / "other"), "escape", "none", "file", "", "a\x00", "\udcff"):
        with pytest.raises(PathRefused) as caught:
            check_workspace(text, allowed)
        assert caught.value.field == "workspace_path"
