"""A sandbox is set up while its start is being recorded; the command begins when that is so, and only then."""

import asyncio
import os
import random
import select
import signal
import sys
from pathlib import Path

import pytest

from stepgate.domain.errors import LeaseLost
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.sandbox.command import Command, Finished
from stepgate.workspace.sandbox.launch import Launcher
from tests.fixtures.patience import PATIENCE_S
from tests.worker.lab import until_processes
from tests.workspace.sandbox.lab import Lab

MARK = Command(("/bin/sh", "-c", "echo begun; touch /workspace/mark"))


async def until_up(lab: Lab) -> None:
    """The sandbox's first process is there and waits."""
    async with asyncio.timeout(PATIENCE_S):
        while not lab.sandbox._live:  # noqa: ASYNC110
            await asyncio.sleep(0)
        (running,) = lab.sandbox._live
        await asyncio.shield(running._first)


def start(lab: Lab, layer: Layer, ready: "asyncio.Future[None]") -> "asyncio.Task[Finished]":
    return asyncio.create_task(lab.sandbox.run(MARK, layer, ready=ready))


async def test_nothing_of_the_command_runs_before_its_start_is_recorded(lab: Lab) -> None:
    ready = asyncio.get_running_loop().create_future()
    with lab.layer() as layer:
        running = start(lab, layer, ready)
        await until_up(lab)
        await lab.run("/bin/true")  # time enough for a command to begin
        assert layer.untouched()
        assert not running.done()
        ready.set_result(None)
        finished = await running
        assert (finished.exit_code, finished.stdout) == (0, b"begun\n")
        assert not layer.untouched()


async def test_a_start_that_cannot_be_recorded_lets_nothing_begin(lab: Lab) -> None:
    ready = asyncio.get_running_loop().create_future()
    with lab.layer() as layer:
        running = start(lab, layer, ready)
        await until_up(lab)
        ready.set_exception(LeaseLost("another worker drives the run now"))
        with pytest.raises(LeaseLost):
            await running
        assert layer.untouched()


async def test_a_command_given_up_before_its_start_is_recorded_never_begins(lab: Lab) -> None:
    ready = asyncio.get_running_loop().create_future()
    with lab.layer() as layer:
        running = start(lab, layer, ready)
        await until_up(lab)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        ready.set_result(None)
        assert layer.untouched()


def supervisors() -> list[int]:
    launcher = Launcher.shared().pid
    return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


async def test_the_next_command_needs_no_new_supervisor(lab: Lab) -> None:
    await lab.run("/bin/true")
    before = supervisors()
    for _ in range(3):
        assert (await lab.shell("echo $$")).exit_code == 0
    assert supervisors() == before


async def test_a_supervisor_that_was_killed_is_replaced(lab: Lab) -> None:
    await lab.run("/bin/true")
    for pid in supervisors():
        process = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(ended, process)
        finally:
            os.close(process)
    assert (await lab.run("/bin/true")).exit_code == 0


def ended(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    assert poll.poll(20_000)


async def test_descriptors_of_one_command_do_not_reach_the_next(lab: Lab) -> None:
    """Its supervisor held them; the listing itself is the fourth."""
    await lab.run("/bin/true", stdin=b"x" * 100_000)
    finished = await lab.run("/bin/ls", "/proc/self/fd")
    assert finished.stdout.split() == [b"0", b"1", b"2", b"3"]


DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from stepgate.workspace.access import Root
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.sandbox import Sandbox

async def main():
    state, workspace, marker = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    layers = Layers(state)
    sandbox = await Sandbox.probe(levels=("bwrap-full", "bwrap-noproc"), state_dir=state, layers=layers)
    with Root.open(workspace) as root, layers.open(root) as layer:
        for _ in range(4):
            running = sandbox.launch(Command(("/bin/sh", "-c", f"touch mark; sleep {marker}")), layer)
            await running._first
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_worker_killed_before_the_release_takes_its_sandboxes_along_and_nothing_begins(
    lab: Lab, tmp_path: Path
) -> None:
    workspace, marker = tmp_path / "space", f"9{random.randrange(10**6)}.5"
    workspace.mkdir()
    program = [sys.executable, "-c", DIES, str(tmp_path / "state"), str(workspace), marker]
    worker = await asyncio.create_subprocess_exec(*program)
    assert await worker.wait() == -signal.SIGKILL
    await until_processes(marker, 0)
    (layer,) = (tmp_path / "state" / "layers").iterdir()
    assert list((layer / "upper").iterdir()) == []
