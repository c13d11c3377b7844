"""Names for a planner: bounded, without what is ignored, whatever lies in the folder."""

from pathlib import Path

import pytest

from stepgate.workspace.access import Root
from stepgate.workspace.names import Names, file_names


def names(path: Path, most: int = 100, most_chars: int = 10_000) -> Names:
    with Root.open(path) as root:
        return file_names(root, most, most_chars)


def grown(path: Path, *files: str) -> None:
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("x")


def test_files_are_named_and_git_never_is(tmp_path: Path) -> None:
    grown(tmp_path, "b.py", "a/c.py", ".git/config", "a/.git/config")
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert names(tmp_path) == Names(("a/c.py", "b.py"), cut=False)


def test_what_ignore_files_name_is_left_out_with_everything_below(tmp_path: Path) -> None:
    grown(tmp_path, "keep.py", "x.log", "build/deep/x.py", "sub/x.tmp", "sub/keep.tmp", "sub/y.log")
    (tmp_path / ".gitignore").write_text("*.log\nbuild/\n# a comment\n")
    (tmp_path / "sub" / ".gitignore").write_text("*.tmp\n!keep.tmp\n")
    assert names(tmp_path).paths == (".gitignore", "keep.py", "sub/.gitignore", "sub/keep.tmp")


def test_a_nearer_ignore_file_wins(tmp_path: Path) -> None:
    grown(tmp_path, "sub/x.log")
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "sub" / ".gitignore").write_text("!x.log\n")
    assert "sub/x.log" in names(tmp_path).paths


@pytest.mark.parametrize(("most", "chars"), [(3, 1000), (100, 8)])
def test_names_are_bounded_by_number_and_length(tmp_path: Path, most: int, chars: int) -> None:
    grown(tmp_path, *(f"f{number}" for number in range(10)))
    found = names(tmp_path, most, chars)
    assert found.cut
    assert 0 < len(found.paths) <= 4


def test_an_ignore_file_that_cannot_be_read_ignores_nothing(tmp_path: Path) -> None:
    grown(tmp_path, "a.py")
    (tmp_path / ".gitignore").symlink_to("/etc/passwd")
    assert names(tmp_path).paths == ("a.py",)
