"""The same tests once more as a user who is not root, where the worker that runs them is."""

import json
import os
import subprocess
import sys
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
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
os.execv(argv[0], argv)
"""


@pytest.mark.parametrize("folder", ["sandbox", "layers"])
def test_everything_holds_for_an_ordinary_user(folder: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = Path("/var/tmp") / f"stepgate-tests-{os.getpid()}-{folder}"
    base.mkdir(mode=0o700)
    os.chown(base, UID, UID)
    paths = [sys.base_prefix, sys.prefix, str(REPOSITORY), str(Path(stepgate.__file__).parents[1])]
    shown = [path for path in dict.fromkeys(paths) if not path.startswith("/usr/")]
    command = [sys.executable, "-c", BECOME, json.dumps(shown), str(UID), sys.executable, "-m", "pytest", "-q"]
    command += ["-n0", "-p", "no:cacheprovider", f"--basetemp={base}/t", "-o", "addopts=--import-mode=importlib"]
    command += ["--ignore", __file__, str(TESTS / folder)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(base), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert " passed" in done.stdout
    finally:
        subprocess.run(["rm", "-rf", str(base)], check=True)
