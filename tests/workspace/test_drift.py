import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Node
from stepgate.workspace.drift import drifted, observe, opening_mark, settle
from stepgate.workspace.states import node_at
from tests.workspace import trees


def opened() -> int:
    mark = opening_mark()
    settle(mark)
    return mark


def replace(path: Path, data: bytes) -> None:
    (path.parent / "new").write_bytes(data)
    (path.parent / "new").rename(path)


def edit_keeping_the_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


MEDDLINGS: list[Callable[[Path], object]] = [
    lambda path: path.write_bytes(b"longer"),
    lambda path: path.write_bytes(b"two"),
    lambda path: path.write_bytes(b"one"),
    edit_keeping_the_time,
    lambda path: replace(path, b"one"),
    lambda path: path.unlink(),
    lambda path: path.chmod(0o600),
    lambda path: path.touch(),
    make_folder,
    lambda path: trees.relink(path, "elsewhere"),
]


@pytest.mark.parametrize("meddle", MEDDLINGS)
def test_whatever_happens_to_a_file_after_opening_is_drift(
    root: Root, workspace: Path, meddle: Callable[[Path], object]
) -> None:
    (workspace / "f").write_bytes(b"one")
    (workspace / "f").chmod(0o644)
    (workspace / "quiet").write_bytes(b"one")
    before = observe(root, ["f", "quiet"])
    at = opened()
    change_set = ChangeSet.of([Change(path, node_at(root, path), None) for path in ("f", "quiet")])
    assert drifted(root, change_set, at) == ()
    assert before.drifted(root) == ()
    meddle(workspace / "f")
    assert drifted(root, change_set, at) == ("f",)
    assert before.drifted(root) == ("f",)


def test_a_change_made_right_before_opening_is_no_drift_and_right_after_is(root: Root, workspace: Path) -> None:
    path = workspace / "f"
    for _ in range(20):
        path.write_bytes(b"one")
        at = opened()
        before = node_at(root, "f")
        assert drifted(root, ChangeSet.of([Change("f", before, None)]), at) == ()
        path.write_bytes(b"one")
        assert drifted(root, ChangeSet.of([Change("f", node_at(root, "f"), None)]), at) == ("f",)


def test_a_file_that_appears_where_one_is_to_be_made_is_drift(root: Root, workspace: Path) -> None:
    at = opened()
    change_set = ChangeSet.of([Change("f", None, Node.file("0" * 64, 0))])
    assert drifted(root, change_set, at) == ()
    (workspace / "f").touch()
    assert drifted(root, change_set, at) == ("f",)


def test_new_entries_in_a_folder_are_no_drift_of_the_folder(root: Root, workspace: Path) -> None:
    (workspace / "d").mkdir(0o755)
    at = opened()
    change_set = ChangeSet.of([Change("d", node_at(root, "d"), Node.folder(0o700))])
    before = observe(root, ["d"])
    (workspace / "d/theirs").touch()
    assert drifted(root, change_set, at) == ()
    assert before.drifted(root) == ()
    (workspace / "d").chmod(0o711)
    assert drifted(root, change_set, at) == ("d",)
    assert before.drifted(root) == ("d",)


def test_a_link_on_the_way_is_drift_unless_the_set_is_about_it(root: Root, workspace: Path, blobs: BlobStore) -> None:
    (workspace / "l").symlink_to("elsewhere")
    at = opened()
    below = Change("l/f", None, Node.file(blobs.put(b"x"), 1))
    link = Change("l", node_at(root, "l"), Node.folder())
    assert drifted(root, ChangeSet.of([link, below]), at) == ()
    assert drifted(root, ChangeSet.of([below]), at) == ("l/f",)


def test_a_path_never_observed_counts_as_drifted(root: Root, workspace: Path) -> None:
    (workspace / "f").touch()
    assert observe(root, ["f"]).drifted(root, ["f", "g"]) == ("g",)
