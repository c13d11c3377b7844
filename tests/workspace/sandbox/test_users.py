"""What holds for root must hold for an ordinary user, and for a root that may not mount, as in many containers."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workspace.sandbox.become import UID, run_as

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="this user is no root, so the tests ran as one already")

TESTS = Path(__file__).parents[1]

WITHOUT_MOUNTS = """
import asyncio, json, sys
from pathlib import Path
from tests.workspace.sandbox.lab import make
base = Path(sys.argv[1])
lab = make(base, base / "workspace")
(lab.workspace / "secret").write_text("old")
(lab.workspace / "secret").chmod(0o600)
changes = asyncio.run(lab.change("cat secret >/dev/null; echo new > secret; python3 -c 1; touch made"))
print(json.dumps([lab.layers.probe().capture, len(lab.sandbox.degraded), changes.paths]))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in a place that anybody can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="stepgate-tests-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("tests", ["sandbox", "layers"])
def test_everything_holds_for_an_ordinary_user(tests: str, folder: Path) -> None:
    os.chown(folder, UID, UID)
    done = run_as(
        UID,
        folder,
        *("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={folder}/t"),
        *("-o", "addopts=--import-mode=importlib", "--ignore", __file__, str(TESTS / tests)),
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_a_root_that_may_not_mount_works_on_copies(folder: Path) -> None:
    done = run_as(0, folder, "-c", WITHOUT_MOUNTS, str(folder))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == ["copy", 1, ["made", "secret"]]
