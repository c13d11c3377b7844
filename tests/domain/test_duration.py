from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain.duration import milliseconds
from stepgate.domain.errors import InvalidValue


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (30, 30_000),
        (0.5, 500),
        ("500ms", 500),
        ("30s", 30_000),
        ("1.5s", 1500),
        ("5m", 300_000),
        ("1h", 3_600_000),
        (0, 0),
    ],
)
def test_durations_are_whole_milliseconds(written: Any, expected: int) -> None:
    assert milliseconds(written) == expected


@pytest.mark.parametrize(
    "written",
    [
        "30",
        "",
        "5 m",
        "-1s",
        "1d",
        "m",
        "١s",
        "9" * 30 + "s",
        -1,
        True,
        None,
        [],
        float("nan"),
        float("inf"),
        10**40,
        "1s\n",
    ],
)
def test_anything_else_is_refused(written: Any) -> None:
    with pytest.raises(InvalidValue):
        milliseconds(written)


@given(st.integers(0, 10**9))
def test_seconds_and_text_agree(seconds: int) -> None:
    assert milliseconds(seconds) == milliseconds(f"{seconds}s") == milliseconds(f"{seconds * 1000}ms")
