import hashlib
import os
from pathlib import Path

import pytest

from stepgate.domain.errors import EditConflict, NotFound, PathRefused
from stepgate.workspace.access import Root
from stepgate.workspace.apply import apply
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.building import build_edit
from stepgate.workspace.changes import Op
from tests.workspace import trees
from tests.workspace.trees import File, Folder


def test_an_edit_is_computed_without_writing_and_keeps_both_contents(
    root: Root, workspace: Path, blobs: BlobStore
) -> None:
    trees.write(workspace, {"f": File(b"old", 0o640)})
    change_set = build_edit(root, "./f", b"new", blobs=blobs)
    assert trees.read(workspace) == {"f": File(b"old", 0o640)}
    assert change_set.paths == ("f",)
    assert {blobs.get(name) for name in change_set.blob_names} == {b"old", b"new"}
    apply(root, change_set, blobs)
    assert ((workspace / "f").read_bytes(), (workspace / "f").stat().st_mode & 0o777) == (b"new", 0o640)


def test_missing_folders_are_part_of_the_change(root: Root, workspace: Path, blobs: BlobStore) -> None:
    (workspace / "a").mkdir()
    change_set = build_edit(root, "a/b/c/f", b"x", blobs=blobs, mode=0o755, mtime_ns=1_000_000_007)
    assert [(change.path, change.op) for change in change_set.changes] == [
        ("a/b", Op.CREATE),
        ("a/b/c", Op.CREATE),
        ("a/b/c/f", Op.CREATE),
    ]
    apply(root, change_set, blobs)
    assert trees.read(workspace) == {
        "a": Folder((workspace / "a").stat().st_mode & 0o777),
        "a/b": Folder(),
        "a/b/c": Folder(),
        "a/b/c/f": File(b"x", 0o755, 1_000_000_007),
    }


def test_deleting_and_changing_only_the_mode(root: Root, workspace: Path, blobs: BlobStore) -> None:
    trees.write(workspace, {"f": File(b"x"), "g": File(b"x")})
    apply(root, build_edit(root, "f", None, blobs=blobs), blobs)
    apply(root, build_edit(root, "g", b"x", 0o755, blobs=blobs), blobs)
    assert (workspace / "g").stat().st_mode & 0o777 == 0o755
    assert not (workspace / "f").exists()
    with pytest.raises(NotFound):
        build_edit(root, "f", None, blobs=blobs)


def test_an_edit_that_changes_nothing_is_an_empty_set(root: Root, workspace: Path, blobs: BlobStore) -> None:
    trees.write(workspace, {"f": File(b"x")})
    assert build_edit(root, "f", b"x", blobs=blobs).changes == ()


def test_an_edit_of_another_base_is_a_conflict(root: Root, workspace: Path, blobs: BlobStore) -> None:
    trees.write(workspace, {"f": File(b"x")})
    base = hashlib.sha256(b"x").hexdigest()
    assert build_edit(root, "f", b"y", base_sha256=base, blobs=blobs).paths == ("f",)
    for path, wrong in (("f", "0" * 64), ("none", base)):
        with pytest.raises(EditConflict) as caught:
            build_edit(root, path, b"y", base_sha256=wrong, blobs=blobs)
        assert caught.value.field == "base_sha256"


def test_paths_that_may_not_be_edited_are_refused(root: Root, workspace: Path, blobs: BlobStore) -> None:
    trees.write(workspace, {"d": Folder(), "f": File(b"x"), "l": trees.Link("d")})
    os.mkfifo(workspace / "p")
    (workspace / "h").hardlink_to(workspace / "f")
    for path in (".git/hooks/x", "sub/.GIT", "/abs", "../up", "d", "l", "l/x", "f/x", "p", "h", ""):
        with pytest.raises(PathRefused) as caught:
            build_edit(root, path, b"x", blobs=blobs)
        assert caught.value.field == "path", path
    with pytest.raises(PathRefused) as caught:
        build_edit(root, "n", b"x", 0o4755, blobs=blobs)
    assert caught.value.field == "mode"
