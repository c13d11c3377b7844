import os
from pathlib import Path

import pytest

from stepgate.domain.errors import ChangeRefused, NotFound
from stepgate.workspace.access import Root
from stepgate.workspace.changes import Kind
from stepgate.workspace.walk import walk
from tests.workspace import trees


def test_everything_but_git_is_walked_parents_first(either_root: Root, workspace: Path, tmp_path: Path) -> None:
    for folder in ("b/c", ".git/objects", "a/.git", "a.d"):
        (workspace / folder).mkdir(parents=True)
    for file in ("b/c/f", ".git/config", "z", "a.txt"):
        (workspace / file).touch()
    (workspace / "out").symlink_to(tmp_path)
    os.mkfifo(workspace / "pipe")
    found = [(entry.path, entry.stat.kind) for entry in walk(either_root)]
    assert found == [
        ("a", Kind.FOLDER),
        ("a.d", Kind.FOLDER),
        ("a.txt", Kind.FILE),
        ("b", Kind.FOLDER),
        ("b/c", Kind.FOLDER),
        ("b/c/f", Kind.FILE),
        ("out", Kind.SYMLINK),
        ("pipe", Kind.FIFO),
        ("z", Kind.FILE),
    ]
    assert [entry.path for entry in walk(either_root, "b")] == ["b/c", "b/c/f"]


def test_a_name_that_is_not_utf8_is_named_not_skipped(either_root: Root, workspace: Path) -> None:
    Path(os.fsdecode(os.fsencode(workspace) + b"/bad\xffname")).touch()
    with pytest.raises(ChangeRefused, match=r"bad\\\\xffname"):
        list(walk(either_root))


def test_a_tree_deeper_than_a_path_may_be_is_refused_not_cut(either_root: Root, workspace: Path) -> None:
    here = os.open(workspace, os.O_RDONLY)
    for _ in range(70):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(ChangeRefused, match="deep"):
        list(walk(either_root))


def test_the_deepest_path_that_can_be_named_is_walked(either_root: Root, workspace: Path) -> None:
    path = "/".join(["d"] * 63 + ["f"])
    (workspace / path).parent.mkdir(parents=True)
    (workspace / path).touch()
    assert [entry.path for entry in walk(either_root)][-1] == path


def test_more_entries_than_allowed_are_refused(either_root: Root, workspace: Path) -> None:
    for number in range(6):
        (workspace / str(number)).touch()
    assert len(list(walk(either_root, max_entries=6))) == 6
    with pytest.raises(ChangeRefused, match="more than 5"):
        list(walk(either_root, max_entries=5))
    (workspace / "d").mkdir()
    (workspace / "0").rename(workspace / "d/0")
    with pytest.raises(ChangeRefused, match="more than 6"):
        list(walk(either_root, max_entries=6))


def test_what_vanishes_meanwhile_is_left_out(either_root: Root, workspace: Path) -> None:
    for name in ("a", "b", "c"):
        (workspace / name).mkdir()
    found = list[str]()
    for entry in walk(either_root):
        found.append(entry.path)
        if entry.path == "a":
            (workspace / "a").rmdir()
            (workspace / "b").rmdir()
    assert found == ["a", "c"]


def test_a_folder_swapped_for_a_link_meanwhile_is_not_followed(
    either_root: Root, workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").touch()
    (workspace / "a").mkdir()
    found = list[str]()
    for entry in walk(either_root):
        found.append(entry.path)
        (workspace / "a").rmdir()
        (workspace / "a").symlink_to(tmp_path)
    assert found == ["a"]


def test_leaving_a_walk_early_closes_what_it_opened(either_root: Root, workspace: Path) -> None:
    (workspace / "a/b/c").mkdir(parents=True)
    before = trees.open_descriptors()
    for _ in range(20):
        walking = walk(either_root)
        next(walking)
        next(walking)
        walking.close()
    assert trees.open_descriptors() == before


def test_a_folder_that_is_not_there_is_not_found(either_root: Root) -> None:
    with pytest.raises(NotFound):
        list(walk(either_root, "none"))
