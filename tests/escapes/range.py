"""Where attacks are run: in a sandbox as an approved command would be, or without one to see whether they bite."""

import ast
import asyncio
import inspect
import json
import os
import select
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

from stepgate.cli.text import plain
from stepgate.domain.errors import ChangeRefused, WorkspaceConflict
from stepgate.workspace.access import Root
from stepgate.workspace.apply import apply
from stepgate.workspace.layers.harvest import harvest
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.sandbox.command import Command
from tests.escapes import inside
from tests.escapes.attack import Attack, Kind, Sign
from tests.escapes.host import Host
from tests.workspace.sandbox.lab import Lab

_PATIENCE_S: Final = 40.0
_UNSEEN: Final = ("Cc", "Cf", "Zl", "Zp")
# Without a sandbox root's programs get mounts and a host name of their own, so that nothing of the host changes.
_CELL: Final = """
import ctypes, fcntl, os, sys
facts, text, terminal = sys.argv[1:]
os.setsid()
if terminal:
    fcntl.ioctl(int(terminal), 0x540E, 0)
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000 | 0x04000000 | 0x08000000) or libc.mount(b"none", b"/", None, 0x4000 | (1 << 18), None):
        os._exit(9)
sys.argv[1:] = [facts]
exec(compile(text, "attack", "exec"), {"__name__": "attack"})
"""


@dataclass(slots=True)
class Result:
    """`signs` of an escape with what was seen; `fault` says that the attack itself is broken."""

    signs: dict[Sign, str] = field(default_factory=dict)
    output: str = ""
    ended: str = ""

    @property
    def fault(self) -> str:
        return self.output if "Traceback (most recent call last)" in self.output else ""


@cache
def _body(module: ModuleType) -> str:
    tree = ast.parse(inspect.getsource(module))
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.ImportFrom) and node.module == inside.__name__)
    ]
    return ast.unparse(tree)


def text_of(attack: Attack) -> str:
    """The whole program: what all start with, the module the attack lies in, and its start."""
    module = inspect.getmodule(attack.program)
    assert module is not None
    return f"{_body(inside)}\n{_body(module)}\nrun({attack.program.__name__})\n"


async def in_sandbox(lab: Lab, attack: Attack, host: Host) -> Result:
    """Runs the attack through the product's own sandbox and, for protected paths, on to the workspace."""
    facts = json.dumps(host.facts(bounded=False))
    command = Command(("python3", "-I", "-S", "-c", text_of(attack), facts), stdin=b"input", limits=attack.limits)
    with Root.open(host.workspace) as root, lab.layers.open(root) as layer:
        host.written = [lab.layers.path / layer.id]
        watcher = _Watcher(attack, host)
        stop = asyncio.Event()

        def hear(_name: str, data: bytes) -> None:
            if watcher.hear(data):
                stop.set()

        finished = await lab.sandbox.run(command, layer, on_output=hear, stop=stop)
        living = _living(host.token)
        applied = attack.kind is Kind.PROTECTED and _apply(lab, layer, attack)
        output = finished.stdout + b"\n" + finished.stderr
        result = _result(watcher, output, living, own_workspace=applied, shown=plain)
        result.ended = f"killed: {finished.killed}" if finished.killed else f"exit code {finished.exit_code}"
        return result


def _apply(lab: Lab, layer: Layer, attack: Attack) -> bool:
    try:
        changes = harvest(layer, layer.root, lab.blobs, attack.limits)
    except (ChangeRefused, WorkspaceConflict):
        return False
    lab.blobs.sync()
    apply(layer.root, changes, lab.blobs)
    return True


def without_sandbox(attack: Attack, host: Host) -> Result:
    """Runs the attack as a plain child that is ended as such are; what it leaves is ended too."""
    host.written = [host.workspace]
    watcher = _Watcher(attack, host)
    stdin = os.memfd_create("input")
    terminal = str(host.terminal) if attack.kind is Kind.TERMINALS else ""
    facts = json.dumps(host.facts(bounded=True))
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CELL, facts, text_of(attack), terminal],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=host.workspace,
        close_fds=False,
    )
    os.close(stdin)
    try:
        output = _listen(process, watcher)
        living = _living(host.token)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        _end_all(host.token)
    return _result(watcher, output, living, own_workspace=True)


def _listen(process: "subprocess.Popen[bytes]", watcher: "_Watcher") -> bytes:
    """Output until the process itself ends, whoever else still holds the other end."""
    assert process.stdout is not None
    end = os.pidfd_open(process.pid)
    os.set_blocking(process.stdout.fileno(), False)
    output = b""
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while time.monotonic() < deadline:
            ready = select.select([process.stdout.fileno(), end], [], [], 1)[0]
            piece = b""
            with suppress(BlockingIOError):
                piece = os.read(process.stdout.fileno(), 1 << 16)
            output = (output + piece)[-(1 << 20) :]
            if watcher.hear(piece):
                process.kill()
            if end in ready and not piece:
                process.wait()
                return output
    finally:
        os.close(end)
    raise TimeoutError(f"the attack did not end: {output[-1000:]!r}")


class _Watcher:
    """Waits for the word that there is something to look at, and looks, once."""

    def __init__(self, attack: Attack, host: Host) -> None:
        self.attack = attack
        self.host = host
        self.seen = ""
        self._ready = False
        self._last = b""

    def hear(self, data: bytes) -> bool:
        """Whether this was the moment."""
        self._last = (self._last + data)[-200:]
        if self._ready or f"{inside.READY}\n".encode() not in self._last:
            return False
        self._ready = True
        if self.attack.look is not None:
            self.seen = self.attack.look(self.host)
        return True


def _result(
    watcher: _Watcher, output: bytes, living: list[int], *, own_workspace: bool, shown: Callable[[str], str] = str
) -> Result:
    signs = watcher.host.traces(output, own_workspace=own_workspace)
    text = output.decode(errors="replace")
    if acting := {char for char in shown(text) if unicodedata.category(char) in _UNSEEN and char not in "\t\n"}:
        signs[Sign.SHOWN] = f"{sorted(acting)[:8]}"
    if watcher.seen:
        signs[Sign.SEEN] = watcher.seen
    if living:
        signs[Sign.LIVES] = f"processes {living}"
    for word, sign in ((inside.CLAIM, Sign.CLAIM), (inside.KEPT, Sign.KEPT)):
        said = [line.removeprefix(word).strip() for line in text.splitlines() if line.startswith(f"{word} ")]
        if said:
            signs[sign] = said[0]
    return Result(signs, text)


def _living(token: str) -> list[int]:
    """Processes of the host with the token among their arguments, as every child of an attack has it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if token.encode() in _arguments(entry):
                    found.append(int(entry.name))
    return found


def _arguments(process: Path) -> bytes:
    # Of a process whose first thread has ended only the others still tell.
    found = (process / "cmdline").read_bytes()
    threads = [] if found else list((process / "task").iterdir())
    return found if len(threads) < 2 else b"".join((thread / "cmdline").read_bytes() for thread in threads)


def _end_all(token: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while left := _living(token):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} cannot be ended")
