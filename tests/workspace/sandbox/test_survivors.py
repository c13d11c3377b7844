"""Whatever way a command ends, and whatever its processes did to escape that, none of them is left on the host."""

import asyncio
import os
import select
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stepgate.domain.ids import new_id
from stepgate.workspace.sandbox.command import Command, Finished, Killed
from stepgate.workspace.sandbox.limits import Limits
from tests.fixtures.patience import PATIENCE_S
from tests.workspace.sandbox.lab import Lab

# Each shape is a process of its own with the marker in its command line, where the host can see it.
SHAPES = """
import os, signal, sys, time
marker, shape = sys.argv[1:]
IGNORED = set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}

def become(name):
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", sys.orig_argv[4], marker, name])

def start(name):
    if os.fork() == 0:
        become(name)

def say():
    os.write(1, f"{shape}\\n".encode())

if shape == "first":
    for name in ("child", "session", "orphan", "deaf", "stopped", "silent", "hopping"):
        start(name)
    say()
elif shape == "session":
    os.setsid()
    say()
elif shape == "orphan":
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            become("child")
    os._exit(0)
elif shape == "deaf":
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    say()
elif shape == "stopped":
    say()
    os.kill(os.getpid(), signal.SIGSTOP)
elif shape == "silent":
    say()
    os.closerange(0, 1000)
elif shape == "hopping":
    say()
    while True:
        if os.fork():
            os._exit(0)
        time.sleep(0.005)
else:
    say()
time.sleep(100)
"""
SAID = 8


def on_host(marker: str) -> set[int]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in entry.read_bytes():
                found.add(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def marker() -> Iterator[str]:
    name = f"marker-{new_id()}"
    yield name
    assert on_host(name) == set()


class Tree:
    """All shapes at work in one command."""

    def __init__(self, lab: Lab, marker: str, **limits: float) -> None:
        self.marker = marker
        self.stop = asyncio.Event()
        self.begun = asyncio.Event()
        self._said = bytearray()
        self._lab = lab
        self._limits = Limits(wall_s=60).narrowed(limits)

    def hear(self, _stream: str, data: bytes) -> None:
        self._said += data
        if self._said.count(b"\n") >= SAID:
            self.begun.set()

    async def run(self) -> Finished:
        command = Command(("python3", "-I", "-S", "-c", SHAPES, self.marker, "first"), limits=self._limits)
        with self._lab.layer() as layer:
            return await self._lab.sandbox.run(command, layer, on_output=self.hear, stop=self.stop)


def watch(pids: set[int], stack: ExitStack) -> list[int]:
    """Descriptors that name the processes for good, also after their numbers are given to others."""
    found = []
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        stack.callback(os.close, descriptor)
        found.append(descriptor)
    return found


def living(descriptors: list[int]) -> int:
    return len(descriptors) - len(select.select(descriptors, [], [], 0)[0])


@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_nothing_survives_being_stopped_or_cancelled(lab: Lab, marker: str, end: str) -> None:
    tree = Tree(lab, marker)
    task = asyncio.create_task(tree.run())
    with ExitStack() as stack:
        await asyncio.wait_for(tree.begun.wait(), PATIENCE_S)
        seen = watch(on_host(marker), stack)
        # At least the first one, the two sleepers, the one with a session, the deaf, the stopped and the silent one.
        assert living(seen) >= 6
        if end == "stop":
            tree.stop.set()
            finished = await task
            assert (finished.killed, finished.exit_code) == (Killed.CANCEL, None)
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert living(seen) == 0
        assert on_host(marker) == set()


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"wall_s": 3.0}, Killed.WALL),
        ({"memory_bytes": 24 << 20}, Killed.MEMORY),
        ({"output_kill_bytes": 12}, Killed.OUTPUT),
    ],
)
async def test_nothing_survives_a_limit(lab: Lab, marker: str, limits: dict[str, float], why: Killed) -> None:
    finished = await Tree(lab, marker, **limits).run()
    assert (finished.killed, finished.exit_code) == (why, None)
    assert on_host(marker) == set()


async def test_nothing_survives_the_end_of_the_first_process(lab: Lab, marker: str) -> None:
    tree = Tree(lab, marker)
    script = SHAPES.replace("time.sleep(100)", "sys.exit(7) if shape == 'first' else time.sleep(100)")
    command = Command(("python3", "-I", "-S", "-c", script, marker, "first"), limits=Limits(wall_s=60))
    with lab.layer() as layer:
        finished = await lab.sandbox.run(command, layer, on_output=tree.hear)
    assert (finished.killed, finished.exit_code) == (None, 7)
    assert on_host(marker) == set()
