"""What holds for root must hold for an ordinary user, and for a root that may not mount, as in many containers."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import stepgate

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="this user is no root, so the tests ran as one already")

UID = 1000
TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parents[1]

# Shows the interpreter and the code to a user who may not enter the folders they lie in, then becomes that user.
BECOME = """
import ctypes, json, os, sys
paths, uid, argv = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
CAP_SYS_ADMIN, PR_CAPBSET_DROP = 21, 24
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, flags, data=None):
    if libc.mount(source.encode(), target.encode(), kind, flags, data):
        raise OSError(ctypes.get_errno(), f"mount {target}")
BIND, REC, PRIVATE = 4096, 16384, 1 << 18
if libc.unshare(0x20000):
    raise OSError(ctypes.get_errno(), "unshare")
mount("none", "/", None, REC | PRIVATE)
closed = set()
for path in paths:
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts)):
        above = "/" + "/".join(parts[:depth])
        if not os.stat(above).st_mode & 1:
            closed.add(above)
            break
mount("stage", "/mnt", b"tmpfs", 0, b"mode=755")
for number, path in enumerate(paths):
    os.mkdir(f"/mnt/{number}")
    mount(path, f"/mnt/{number}", None, BIND | REC)
for folder in closed:
    mount("open", folder, b"tmpfs", 0, b"mode=755")
for number, path in enumerate(paths):
    os.makedirs(path, exist_ok=True)
    mount(f"/mnt/{number}", path, None, BIND | REC)
if libc.prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0):
    raise OSError(ctypes.get_errno(), "prctl")
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
os.chdir(os.environ["FOLDER"])
os.execv(argv[0], argv)
"""


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


def _as(uid: int, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    paths = [sys.base_prefix, sys.prefix, str(REPOSITORY), str(Path(stepgate.__file__).parents[1])]
    shown = [path for path in dict.fromkeys(paths) if not path.startswith("/usr/")]
    environment = {
        "FOLDER": str(REPOSITORY),
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "src"))),
    }
    command = [sys.executable, "-c", BECOME, json.dumps(shown), str(uid), sys.executable, *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in a place that anybody can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="stepgate-tests-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("tests", ["sandbox", "layers"])
def test_everything_holds_for_an_ordinary_user(tests: str, folder: Path) -> None:
    os.chown(folder, UID, UID)
    done = _as(
        UID,
        folder,
        *("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={folder}/t"),
        *("-o", "addopts=--import-mode=importlib", "--ignore", __file__, str(TESTS / tests)),
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_a_root_that_may_not_mount_works_on_copies(folder: Path) -> None:
    done = _as(0, folder, "-c", WITHOUT_MOUNTS, str(folder))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == ["copy", 1, ["made", "secret"]]
