"""Running something as another user, who may not enter the folders that interpreter and code lie in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import stepgate

UID = 1000
REPOSITORY = Path(__file__).parents[3]

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


def run_as(uid: int, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python with the arguments as that user (0: as root without the right to mount), at home in `folder`."""
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
