"""A worker started by hand has a terminal, and so has everything it starts that does not take care."""

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import tty
from pathlib import Path
from typing import Final

_WORKER: Final = """
import asyncio, fcntl, json, os, sys, termios
from pathlib import Path
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.set_inheritable(0, True)
from stepgate.workspace.sandbox.levels import Level
from tests.escapes.attack import Kind
from tests.escapes.catalogue import ATTACKS
from tests.escapes.host import host
from tests.escapes.range import in_sandbox
from tests.escapes.victims import Victims
from tests.workspace.sandbox.lab import make
base = Path(sys.argv[1])
victims = Victims(base)
lab = make(base, base / "unused", level=Level.BWRAP_FULL)
signs = {}
for attack in ATTACKS:
    if attack.kind is Kind.TERMINALS:
        with host(base, victims) as around:
            signs[attack.name] = asyncio.run(in_sandbox(lab, attack, around)).signs
victims.close_all()
print(json.dumps([os.ttyname(os.open("/dev/tty", os.O_RDWR)), signs]))
"""


def test_nothing_comes_to_the_terminal_the_worker_was_started_from(base: Path) -> None:
    folder = base / "terminal"
    folder.mkdir()
    master, slave = pty.openpty()
    tty.setraw(slave)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _WORKER, str(folder)],
            stdin=slave,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        _name, signs = json.loads(done.stdout)
        assert len(signs) > 5
        assert {name: found for name, found in signs.items() if found} == {}
        typed = struct.unpack("i", fcntl.ioctl(slave, termios.FIONREAD, bytes(4)))[0]
        shown = select.select([master], [], [], 0)[0]
        assert (typed, shown) == (0, [])
    finally:
        os.close(master)
        os.close(slave)
