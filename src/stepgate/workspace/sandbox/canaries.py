"""Attacks tried from inside before the first command: a sandbox that was not seen to hold is not used."""

import asyncio
import fcntl
import json
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from stepgate.domain.errors import SandboxUnavailable
from stepgate.workspace.access import Root
from stepgate.workspace.layers.folder import LayerFolder
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.command import Canary, Command, Finished, Killed
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.recipe import HOST_NAME, Recipe
from stepgate.workspace.sandbox.running import Running

_INSIDE: Final = Path(__file__).with_name("inside.py")
_LIMITS: Final = Limits(wall_s=60.0, cpu_s=10.0)
_PROOF_BYTES: Final = 32 << 20
# Shared memory, because for private memory there is another limit.
_HOG: Final = """
import mmap, sys
size = int(sys.argv[1])
memory = mmap.mmap(-1, size)
for at in range(0, size, 4096):
    memory[at] = 1
"""
_NAMESPACES: Final = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
# Somebody else's process, which is there to be attacked; it ends by itself should this one be killed.
_BYSTANDER: Final = ("/bin/sh", "-c", "exec sleep 120 </dev/null >/dev/null 2>&1")
# The daemon leaves its parent, its session and its terminal, then holds a lock that shows whether it lives.
_DAEMON: Final = """
import fcntl, os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        held = open(os.environ["TMPDIR"] + "/held", "w")
        fcntl.flock(held, fcntl.LOCK_EX)
        print("held", flush=True)
        time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs a command in a fresh layer over an empty workspace."""

    recipe: Recipe
    layers: Layers

    @contextmanager
    def layer(self) -> Iterator[Layer]:
        """A layer with nothing below."""
        folder = LayerFolder.make(self.layers.path, os.geteuid())
        try:
            empty = folder.path / "empty"
            empty.mkdir()
            with Root.open(empty) as root, self.layers.open(root) as layer:
                yield layer
        finally:
            folder.remove()

    async def run(self, command: Command, layer: Layer, stop: asyncio.Event | None = None) -> Finished:
        """As `Sandbox.run`."""
        return await Running(self.recipe, command, layer, None).run(stop)


async def sing(runner: Runner, python: str | None) -> tuple[Canary, ...]:
    """Tries every attack; a canary that could not be tried has not passed.

    Raises SandboxUnavailable when there is no Python inside to try them with.
    """
    if python is None:
        raise SandboxUnavailable("there is no python3 inside to run the canaries with")
    return (*await _from_inside(runner, python), await _survivors(runner, python))


async def _from_inside(runner: Runner, python: str) -> tuple[Canary, ...]:
    with ExitStack() as stack:
        bait = _Bait(stack, runner.layers.path.parent)
        layer = stack.enter_context(runner.layer())
        facts = {**bait.facts(), "environment": sorted({*dict(runner.recipe.environment), "PWD"})}
        source = _INSIDE.read_bytes()
        command = Command((python, "-I", "-S", "-", json.dumps(facts)), stdin=source, limits=_LIMITS)
        finished = await runner.run(command, layer)
        try:
            found = json.loads(finished.stdout)
        except ValueError:
            said = finished.stderr.decode(errors="replace").strip()
            raise SandboxUnavailable(f"the canaries did not report: {said or finished.killed}") from None
        canaries = [Canary(name, passed, detail) for name, passed, detail in found]
        heard = bait.heard()
        canaries.append(Canary("nothing heard", not heard, heard or "no listener of the host was reached"))
        return tuple(canaries)


class _Bait:
    """What a command must not come to: secret files, listeners, a process, and a folder not closed on exec."""

    def __init__(self, stack: ExitStack, state_dir: Path) -> None:
        self._token = secrets.token_hex(16)
        # Nothing but the sandbox may be why it is out of reach.
        open_to_all = Path(stack.enter_context(TemporaryDirectory(prefix="stepgate-canary-")))
        open_to_all.chmod(0o755)
        hidden = state_dir / f"canary-{self._token}"
        stack.callback(hidden.unlink, missing_ok=True)
        self._secrets = (hidden, open_to_all / "secret")
        for secret in self._secrets:
            secret.write_text(self._token)
            secret.chmod(0o644)
        self._socket = open_to_all / "socket"
        self._listeners = dict(_listeners(stack, self._token, self._socket))
        self._leak = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, self._leak)
        os.set_inheritable(self._leak, True)
        self._bystander = os.posix_spawn(_BYSTANDER[0], _BYSTANDER, {"PATH": os.defpath})
        stack.callback(_end, self._bystander)

    def facts(self) -> dict[str, Any]:
        return {
            "secrets": [str(secret) for secret in self._secrets],
            "token": self._token,
            "socket": str(self._socket),
            "tcp": self._listeners["tcp"].getsockname()[1],
            "udp": self._listeners["udp"].getsockname()[1],
            "worker": os.getpid(),
            "bystander": self._bystander,
            "host": "" if socket.gethostname() == HOST_NAME else socket.gethostname(),
            "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES},
        }

    def heard(self) -> str:
        """Which listeners were reached, "" for none."""
        reached = []
        for name, listener in self._listeners.items():
            try:
                if listener.type is socket.SOCK_DGRAM:
                    listener.recv(64)
                else:
                    listener.accept()[0].close()
            except BlockingIOError:
                continue
            reached.append(name)
        return ", ".join(reached)


def _listeners(stack: ExitStack, token: str, path: Path) -> Iterator[tuple[str, socket.socket]]:
    for name, family, kind, address in (
        ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, f"\0{token}"),
        ("abstract datagram", socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{token}-datagram"),
        ("path", socket.AF_UNIX, socket.SOCK_STREAM, str(path)),
    ):
        listener = stack.enter_context(socket.socket(family, kind))
        listener.bind(address)
        if kind is socket.SOCK_STREAM:
            listener.listen(4)
        listener.setblocking(False)
        yield name, listener
    path.chmod(0o666)


def _end(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


async def groups_hold(runner: Runner, python: str, home: Path) -> bool:
    """Whether the kernel itself ends a command in a control group of `home` that takes more memory than allowed."""
    limits = replace(_LIMITS, memory_bytes=_PROOF_BYTES)
    command = Command((python, "-I", "-S", "-c", _HOG, str(4 * _PROOF_BYTES)), limits=limits)
    with runner.layer() as layer:
        running = Running(replace(runner.recipe, groups=home), command, layer, None)
        try:
            finished = await running.run(None)
        except SandboxUnavailable:
            return False
    return finished.killed is Killed.MEMORY and running.counted is not None and running.counted.out_of_memory


async def _survivors(runner: Runner, python: str) -> Canary:
    """A daemon that ignores signals must be gone when its command is killed."""
    name = "survivors"
    stop = asyncio.Event()
    lived: list[bool] = []
    with runner.layer() as layer:
        command = Command((python, "-I", "-S", "-c", _DAEMON), limits=_LIMITS)

        def begun(_stream: str, _bytes: bytes) -> None:
            stop.set()
            lived.append(_is_locked(layer))

        try:
            finished = await Running(runner.recipe, command, layer, begun).run(stop)
        except SandboxUnavailable as error:
            return Canary(name, False, error.message)
        if finished.killed is not Killed.CANCEL or lived != [True]:
            return Canary(name, False, f"the daemon did not start: {finished.stderr.decode(errors='replace')}")
        if _is_locked(layer):
            return Canary(name, False, "a daemon outlived its command")
    return Canary(name, True, "a daemon died with its command")


def _is_locked(layer: Layer) -> bool:
    # In /tmp, as a lock taken through an overlay is not seen on the file below it.
    try:
        held = os.open("tmp/held", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=layer.scratch)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(held)
    return False
