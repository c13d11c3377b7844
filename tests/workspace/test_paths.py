import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain.errors import PathRefused
from stepgate.workspace.paths import ancestors, check_relative, is_protected, parent_of


@pytest.mark.parametrize(
    ("given_path", "expected"),
    [("a", "a"), ("./a//b/", "a/b"), ("a b/ü\n.txt", "a b/ü\n.txt"), ("...", "..."), ("a" * 255, "a" * 255)],
)
def test_a_relative_path_comes_back_normalised(given_path: str, expected: str) -> None:
    assert check_relative(given_path) == expected


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("a/../b", "'..'"),
        ("..", "'..'"),
        ("a\x00b", "NUL"),
        ("a\udcff", "UTF-8"),
        (".", "the workspace itself"),
        ("./", "the workspace itself"),
        ("/".join("a" * 65), "64 folders"),
        ("a" * 256, "255 bytes"),
        ("é" * 128, "255 bytes"),
        ("/".join(["a" * 200] * 30), "4095 bytes"),
    ],
)
def test_a_path_that_may_not_be_named_is_refused_with_its_field(path: str, reason: str) -> None:
    with pytest.raises(PathRefused, match=reason) as caught:
        check_relative(path, "files[0].path")
    assert caught.value.field == "files[0].path"


def test_the_workspace_itself_can_be_allowed() -> None:
    assert check_relative(".", allow_root=True) == ""


@given(st.text(max_size=40))
def test_a_normalised_path_is_a_fixed_point_and_never_climbs(path: str) -> None:
    try:
        found = check_relative(path)
    except PathRefused:
        return
    assert check_relative(found) == found
    assert not found.startswith("/")
    assert {"", ".", ".."}.isdisjoint(found.split("/"))


@pytest.mark.parametrize(
    "path",
    [
        ".git",
        "a/.git/config",
        ".GIT/hooks",
        ".Git",
        "a/.git",
        ".g\u200cit/x",
        ".git./x",
        ".git /x",
        "\ufeff.git",
        ".ġit/.git",
        "GIT~1/config",
        "a/git~1",
        ".git::$INDEX_ALLOCATION/config",
        ".git:stream",
    ],
)
def test_git_is_protected_in_every_spelling(path: str) -> None:
    assert is_protected(path)


@pytest.mark.parametrize(
    "path", [".gitignore", "git", "a.git", ".github/workflows/x", "x/.gitattributes", "ü.git", "git~10", "x:.git"]
)
def test_names_that_only_resemble_git_are_free(path: str) -> None:
    assert not is_protected(path)


def test_parents_are_named_outermost_first() -> None:
    assert ancestors("a/b/c") == ("a", "a/b")
    assert ancestors("a") == ()
    assert parent_of("a/b/c") == "a/b"
    assert parent_of("a") == ""
