import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain.errors import InvalidValue
from stepgate.domain.policy.globs import check_glob, matches

names = st.text(alphabet="ab.*", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=5).map("/".join)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a.py", "a.py"),
        ("*.py", "a.py"),
        ("src/*.py", "src/a.py"),
        ("src/**", "src/a.py"),
        ("src/**", "src/deep/er/a.py"),
        ("**", "a"),
        ("**/*.py", "a.py"),
        ("**/*.py", "x/y/a.py"),
        ("a/**/z", "a/z"),
        ("a/**/z", "a/b/c/z"),
        ("a/**/**/z", "a/z"),
        ("*", ".env"),
        ("[ab].txt", "a.txt"),
        ("**/.github/**", ".github/workflows/x.yaml"),
    ],
)
def test_a_path_fits_its_glob(pattern: str, path: str) -> None:
    assert check_glob(pattern) == pattern
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a.py", "b.py"),
        ("*.py", "x/a.py"),
        ("src/*", "src/deep/a.py"),
        ("src/**", "src"),
        ("src/**", "srcs/a"),
        ("a/**/z", "a/b/c"),
        ("*.PY", "a.py"),
        ("a", "a/b"),
        ("a/b", "a"),
    ],
)
def test_a_path_that_does_not_fit(pattern: str, path: str) -> None:
    assert not matches(pattern, path)


@pytest.mark.parametrize("pattern", ["", "/etc/passwd", "a//b", "../a", "a/../b", "./a", "src/", "a**", "x" * 501])
def test_a_glob_that_could_never_match_as_meant_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidValue):
        check_glob(pattern)


@given(paths)
def test_every_path_lies_below_the_top(path: str) -> None:
    assert matches("**", path)


@given(paths, paths)
def test_a_folder_s_glob_takes_exactly_what_lies_in_it(folder: str, path: str) -> None:
    plain = folder.replace("*", "x")
    assert matches(f"{plain}/**", f"{plain}/{path}")
    assert matches(f"{plain}/**", path) == path.startswith(f"{plain}/")


def test_no_pattern_is_slow() -> None:
    pattern, path = "/".join(["**", "*a*a*a*"] * 60), "/".join(["a" * 200 + "b"] * 200)
    began = time.process_time()
    matches(pattern, path)
    assert time.process_time() - began < 2
