import dataclasses
import itertools
import os
import resource
from pathlib import Path

import pytest

from stepgate.domain.errors import InvalidValue
from stepgate.workspace.layers.folder import empty
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.usage import contents


def test_limits_can_only_be_narrowed() -> None:
    narrowed = Limits().narrowed({"wall_s": 5, "pids": 8.0})
    assert narrowed == dataclasses.replace(Limits(), wall_s=5.0, pids=8)
    assert isinstance(narrowed.wall_s, float)
    assert isinstance(narrowed.pids, int)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"wall_s": 1e9}, "limits.wall_s"),
        ({"pids": 0}, "limits.pids"),
        ({"pids": 0.5}, "limits.pids"),
        ({"pids": -1}, "limits.pids"),
        ({"cpu_s": float("nan")}, "limits.cpu_s"),
        ({"pids": True}, "limits.pids"),
        ({"colour": 1}, "limits.colour"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_by_name(wanted: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Limits().narrowed(wanted)
    assert caught.value.field == field


def test_a_limit_that_is_no_positive_number_cannot_be_made() -> None:
    with pytest.raises(InvalidValue, match="memory_bytes"):
        Limits(memory_bytes=0)


@pytest.mark.parametrize(
    ("argv", "options", "field"),
    [
        ((), {}, "argv"),
        (("",), {}, "argv"),
        (("a\0b",), {}, "argv[0]"),
        (("ok", "\udc80"), {}, "argv[1]"),
        (("ok",), {"cwd": "/etc"}, "cwd"),
        (("ok",), {"cwd": "a/../.."}, "cwd"),
        (("ok",), {"env": {"A=B": "c"}}, "env"),
        (("ok",), {"env": {"": "c"}}, "env"),
        (("ok",), {"env": {"A": "c\0"}}, "env.A"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused_by_field(
    argv: tuple[str, ...], options: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidValue) as caught:
        Command(argv, **options)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_folder_of_any_depth_is_counted_with_few_descriptors(tmp_path: Path) -> None:
    """With names beside the way down, which are counted on the way back up."""
    top = os.open(tmp_path, os.O_RDONLY)
    here = os.dup(top)
    for _ in range(300):
        for name in ("a", "m", "z"):
            os.mkdir(name, dir_fd=here)
        here, above = os.open("m", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_limit_leaving(80), before[1]))
    try:
        found = contents(top, 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        empty(top)
        os.close(top)
    assert (found.files, found.closed) == (900, False)


def _limit_leaving(free: int) -> int:
    """The limit on descriptors under which this process can open `free` more, wherever its open ones lie."""
    used = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    unused = (number for number in itertools.count() if number not in used)
    return next(itertools.islice(unused, free, None))
