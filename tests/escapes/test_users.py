"""What cannot leave the sandbox of a worker that is root must not leave that of an ordinary user's worker either."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepgate.workspace.sandbox.levels import Level
from tests.escapes.attack import Kind
from tests.workspace.sandbox.become import UID, run_as

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="this user is no root, so the attacks ran as one already")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="stepgate-tests-") as name:
        os.chown(name, UID, UID)
        yield Path(name)


@pytest.mark.parametrize("level", [Level.BWRAP_FULL, Level.LANDLOCK_SECCOMP])
def test_no_attack_leaves_the_sandbox_of_an_ordinary_user(level: Level, folder: Path) -> None:
    """All but those on resources: what a command may use is held in the same way whoever the worker is."""
    wanted = f"{level} and not {Kind.RESOURCES}:"
    done = run_as(
        UID,
        folder,
        *("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={folder}/t"),
        *("-o", "addopts=--import-mode=importlib", "-k", wanted, str(Path(__file__).with_name("test_attacks.py"))),
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
