"""Another program that keeps exchanging the folder `d` and the link `link` of a workspace, as an attacker would."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SCRIPT = """
import os, sys, time
base, end = sys.argv[1], time.monotonic() + 20
os.chdir(base)
print("ready", flush=True)
while time.monotonic() < end and os.path.exists("go"):
    os.rename("d", "real"); os.rename("link", "d")
    os.rename("d", "link"); os.rename("real", "d")
"""


@contextmanager
def swapping(workspace: Path) -> Iterator[None]:
    (workspace / "go").touch()
    with subprocess.Popen([sys.executable, "-c", _SCRIPT, workspace], stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == b"ready\n"
            yield
        finally:
            (workspace / "go").unlink()
