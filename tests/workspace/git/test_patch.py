"""Patches that the real `git apply` turns the old tree into the new one with, to the byte."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from stepgate.domain.errors import ChangeRefused
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet
from stepgate.workspace.git.patch import blob_id, patch_of
from stepgate.workspace.states import node_at
from tests.workspace.trees import File, Folder, Link, Tree, read, write

GIT = shutil.which("git")
pytestmark = pytest.mark.skipif(GIT is None, reason="what git makes of it can only be seen with git")
TEXT = b"".join(b"line %d\n" % number for number in range(40))

OLD: Tree = {
    "a.txt": File(TEXT),
    "no-newline": File(b"one\ntwo"),
    "crlf": File(b"one\r\ntwo\r\n"),
    "binary": File(bytes(range(256)) * 20),
    "latin1": File("caf\xe9\n".encode("latin-1")),
    "gone": File(b"gone\n"),
    "gone-empty": File(b""),
    "script": File(b"#!/bin/sh\n", 0o644),
    "link": Link("a.txt"),
    "kind": File(b"a file\n"),
    "moved": File(b"moved as it is\n"),
    "d": Folder(),
    "d/x": File(b"x\n"),
    "with blank": File(b"b\n"),
    'quote"tab\t': File(b"q\n"),
    "caf\xe9": File(b"c\n"),
    "now-folder": File(b"file\n"),
}
NEW: Tree = {
    "a.txt": File(TEXT.replace(b"line 7\n", b"LINE 7\n").replace(b"line 30\n", b"") + b"more\n"),
    "no-newline": File(b"one\ntwo\nthree"),
    "crlf": File(b"one\r\nTWO\r\n"),
    "binary": File(bytes(range(255, -1, -1)) * 21),
    "latin1": File("caf\xe9s\n".encode("latin-1")),
    "script": File(b"#!/bin/sh\n", 0o755),
    "link": Link("d/x"),
    "kind": Link("a.txt"),
    "renamed": File(b"moved as it is\n"),
    "new-empty": File(b""),
    "new-binary": File(b"\x00" * 1000),
    "new-large": File(b"x" * (1 << 20) + b"\n"),
    "e": Folder(),
    "e/deep": Folder(),
    "e/deep/new": File(b"new\n", 0o755),
    "with blank": File(b"B\n"),
    'quote"tab\t': File(b"Q\n"),
    "caf\xe9": File(b"C\n"),
    "now-folder": Folder(),
    "now-folder/in": File(b"in\n"),
}


def change(old: Path, new: Path, blobs: BlobStore) -> ChangeSet:
    """What makes one tree of the other."""
    with Root.open(old) as before, Root.open(new) as after:
        paths = set(read(old)) | set(read(new))
        pairs = ((path, node_at(before, path, blobs), node_at(after, path, blobs)) for path in paths)
        return ChangeSet.of(
            Change(path, one, other)
            for path, one, other in pairs
            if (one is None) != (other is None) or (one is not None and not one.same(other))
        )


def apply(folder: Path, patch: str, *options: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        [str(GIT), "apply", "--whitespace=nowarn", *options],
        input=patch.encode(),
        cwd=folder,
        env=environment | {"GIT_CEILING_DIRECTORIES": str(folder.parent)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def without_times(tree: Mapping[str, File | Folder | Link]) -> dict[str, object]:
    return {path: (item.data, item.mode & 0o111) if isinstance(item, File) else item for path, item in tree.items()}


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, tree in ((old, OLD), (new, NEW)):
        folder.mkdir()
        write(folder, tree)
    return old, new


def test_git_apply_makes_the_new_tree_of_the_old_one_and_back(trees: tuple[Path, Path], blobs: BlobStore) -> None:
    old, new = trees
    patch = patch_of(change(old, new, blobs), blobs)
    assert patch.left_out == []
    apply(old, patch.text, "--check")
    apply(old, patch.text)
    assert without_times(read(old)) == without_times(read(new))
    apply(old, patch.text, "-R")
    assert without_times(read(old)) == without_times(OLD)


def test_a_patch_that_does_not_fit_is_refused_by_git(trees: tuple[Path, Path], blobs: BlobStore) -> None:
    old, new = trees
    patch = patch_of(change(old, new, blobs), blobs)
    (old / "binary").write_bytes(b"another")
    with pytest.raises(AssertionError, match="binary"):
        apply(old, patch.text, "--check")


def test_what_git_cannot_hold_is_named(tmp_path: Path, blobs: BlobStore) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    write(old, {"a": File(b"a\n", 0o644), "d": Folder(0o755), "d/x": File()})
    write(new, {"a": File(b"a\n", 0o600), "d": Folder(0o700), "d/x": File(), "empty": Folder(), "f": Folder()})
    (new / "f" / "y").touch()
    patch = patch_of(change(old, new, blobs), blobs)
    assert dict(patch.left_out) == {
        "a": "git does not record the mode 0600",
        "d": "git does not record the modes of folders",
        "empty": "git does not record empty folders",
    }
    apply(old, patch.text)
    assert (old / "f" / "y").exists()


def test_a_change_of_mode_and_content_together(tmp_path: Path, blobs: BlobStore) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    write(old, {"a": File(b"a\n", 0o644), "b": File(b"\x00", 0o755)})
    write(new, {"a": File(b"b\n", 0o755), "b": File(b"\x01", 0o644)})
    apply(old, patch_of(change(old, new, blobs), blobs).text)
    assert without_times(read(old)) == without_times(read(new))


def test_a_patch_over_the_limit_is_refused_and_says_what_else_there_is(
    trees: tuple[Path, Path], blobs: BlobStore
) -> None:
    with pytest.raises(ChangeRefused, match="more than 1000 bytes") as refused:
        patch_of(change(*trees, blobs), blobs, max_bytes=1000)
    assert refused.value.reason_code == "patch_too_large"


@pytest.mark.parametrize("data", [b"", b"hello\n", bytes(range(256))])
def test_blobs_have_git_s_names(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(data)
    told = subprocess.run([str(GIT), "hash-object", "f"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert blob_id(data) == told.stdout.strip()
