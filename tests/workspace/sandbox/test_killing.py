import asyncio
import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stepgate.domain.errors import SandboxUnavailable
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.command import Command, Killed
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.limits import Limits
from tests.fixtures.patience import PATIENCE_S
from tests.workspace.sandbox.lab import Lab

# A daemon that left its parent, session and terminal and ignores every signal it can; the lock shows whether it lives.
DAEMON = """
import fcntl, os, signal, sys, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        held = open("/tmp/held", "w")
        fcntl.flock(held, fcntl.LOCK_EX)
        print("held", flush=True)
        time.sleep(60)
    os._exit(0)
if sys.argv[1] == "leave":
    while not os.path.exists("/tmp/held"):
        time.sleep(0.01)
    time.sleep(0.2)
    os._exit(0)
time.sleep(60)
"""


def _daemon(then: str) -> Command:
    return Command(("python3", "-I", "-S", "-c", DAEMON, then), limits=Limits(wall_s=40))


def _lives(layer: Layer) -> bool:
    held = os.open("tmp/held", os.O_RDONLY, dir_fd=layer.scratch)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(held)
    return False


async def test_a_daemon_does_not_outlive_its_command(lab: Lab) -> None:
    with lab.layer() as layer:
        finished = await lab.sandbox.run(_daemon("leave"), layer)
        assert (finished.exit_code, finished.stdout) == (0, b"held\n")
        assert not _lives(layer)


async def test_cancelling_kills_everything_before_it_returns(lab: Lab) -> None:
    with lab.layer() as layer:
        begun = asyncio.Event()
        task = asyncio.create_task(lab.sandbox.run(_daemon("stay"), layer, on_output=lambda _name, _data: begun.set()))
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        assert _lives(layer)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not _lives(layer)


async def test_cancelling_again_and_again_does_not_shorten_the_end(lab: Lab) -> None:
    with lab.layer() as layer:
        begun = asyncio.Event()
        task = asyncio.create_task(lab.sandbox.run(_daemon("stay"), layer, on_output=lambda _name, _data: begun.set()))
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
        assert not _lives(layer)


async def test_cancelling_at_once_leaves_nothing(lab: Lab) -> None:
    for turns in range(6):
        with lab.layer() as layer:
            task = asyncio.create_task(lab.sandbox.run(Command(("/bin/sleep", "60")), layer))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()


async def test_being_stopped_is_reported_with_what_was_written(lab: Lab) -> None:
    stop = asyncio.Event()
    with lab.layer() as layer:
        finished = await lab.sandbox.run(_daemon("stay"), layer, on_output=lambda _name, _data: stop.set(), stop=stop)
        assert (finished.killed, finished.exit_code, finished.stdout) == (Killed.CANCEL, None, b"held\n")
        assert not _lives(layer)


async def test_a_command_that_ends_by_itself_is_not_reported_as_stopped(lab: Lab) -> None:
    finished = await lab.run("/bin/true", stop=asyncio.Event())
    assert (finished.killed, finished.exit_code) == (None, 0)


async def test_the_sandbox_survives_the_thread_that_started_it(lab: Lab) -> None:
    def once() -> None:
        assert asyncio.run(lab.run("/bin/echo", "from a thread")).stdout == b"from a thread\n"

    for _ in range(2):
        thread = threading.Thread(target=once)
        thread.start()
        await asyncio.to_thread(thread.join)
    assert (await lab.run("/bin/true")).exit_code == 0


async def test_a_lost_launcher_is_reported_and_replaced(lab: Lab) -> None:
    launcher = Launcher.shared()
    with lab.layer() as layer:
        begun = asyncio.Event()
        task = asyncio.create_task(lab.sandbox.run(_daemon("stay"), layer, on_output=lambda _name, _data: begun.set()))
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        os.kill(launcher.pid, signal.SIGKILL)
        with pytest.raises(SandboxUnavailable):
            await asyncio.wait_for(task, PATIENCE_S)
        assert not _lives(layer)
    assert (await lab.run("/bin/echo", "again")).stdout == b"again\n"
    assert Launcher.shared() is not launcher


_WORKER = """
import asyncio, sys
from pathlib import Path
from tests.workspace.sandbox.lab import make
from tests.workspace.sandbox.test_killing import _daemon

base = Path(sys.argv[1])
lab = make(base, base / "workspace")

async def main() -> None:
    with lab.layer() as layer:
        print(layer.id, flush=True)
        await lab.sandbox.run(_daemon("stay"), layer, on_output=lambda _name, data: print(data, flush=True))

asyncio.run(main())
"""


def test_nothing_outlives_a_worker_that_is_killed(tmp_path: Path, lab: Lab) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert worker.stdout is not None
    with worker:
        layer_id = worker.stdout.readline().strip()
        assert worker.stdout.readline() == "b'held\\n'\n"
        folder = tmp_path / "state" / "layers" / layer_id
        held = (folder / "scratch/tmp/held").open()
        worker.kill()
    with held:
        # The daemon's lock becomes free when the kernel has taken it down.
        waiting = threading.Thread(target=fcntl.flock, args=(held, fcntl.LOCK_EX), daemon=True)
        waiting.start()
        waiting.join(50)
        assert not waiting.is_alive()
    layers = Layers(tmp_path / "state")
    assert layers.sweep() == 1
    assert list(layers.path.iterdir()) == []


async def test_no_descriptor_is_left_behind(lab: Lab) -> None:
    await lab.run("/bin/true")
    before = _descriptors()
    for _ in range(3):
        await lab.run("/bin/true", stdin=b"x")
        await lab.shell("sleep 60", Limits(wall_s=0.1))
    assert _descriptors() == before


def test_the_launcher_ends_with_its_process(tmp_path: Path) -> None:
    script = "from stepgate.workspace.sandbox.launch import Launcher; print(Launcher.shared().pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        launcher = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
    try:
        assert select.select([launcher], [], [], 20)[0]
    finally:
        os.close(launcher)


def _descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())
