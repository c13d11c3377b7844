"""A server that forks workers, so that each of many costs no start of an interpreter; they stand still where told.

    python -m tests.crash.worker

Each line of its input is `{folder, database_url, point, sandbox, settings}` and starts one worker, whose output goes to
`folder/<number>.log`; each line of its output is `{pid, event}` with `started`, `stopped` or `ended`.
"""

import asyncio
import functools
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from stepgate.domain.state import Effect, Gate
from stepgate.executors.base import Context, Done, Executor, Outcome, Params
from stepgate.executors.registry import BUILTIN, Registry
from stepgate.workspace.sandbox import probing
from tests.crash import disk, points
from tests.worker.lab import opened
from tests.worker.steps import Kit
from tests.workspace import trees
from tests.workspace.test_apply import AFTER, BEFORE

MARKER = "CLOSED"


class Nothing(Params):
    """Takes nothing."""


class Replant(Executor[Nothing]):
    """Turns one tree of every kind of file into another, with nobody asked: what is to be undone."""

    type = "replant"
    effect = Effect.WORKSPACE
    gate = Gate.ALLOW
    summary = "Changes a tree."
    params = Nothing

    async def execute(self, context: Context, params: Nothing) -> Outcome:
        return Done({}, trees.between(BEFORE, AFTER, context.blobs))


class Append(Executor[Nothing]):
    """One more change with nobody asked, which needs the workspace's lock, turn and mark to be free."""

    type = "append"
    effect = Effect.WORKSPACE
    gate = Gate.ALLOW
    summary = "Adds a file."
    params = Nothing

    async def execute(self, context: Context, params: Nothing) -> Outcome:
        return Done({}, trees.between({}, {"appended": trees.File()}, context.blobs))


class CrashKit(Kit):
    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry([*BUILTIN, Replant(), Append()])


async def work(order: dict[str, Any]) -> None:
    """A worker until SIGTERM."""
    folder = Path(order["folder"])
    disk.record(folder)
    # Start-up is not what dies here, and canaries are most of its cost.
    instead = {"sing": _no_canaries, "groups_hold": _no_groups} | ({} if order["sandbox"] else {"candidates": tuple})
    for name, function in instead.items():
        assert hasattr(probing, name)
        setattr(probing, name, function)
    if order["point"] is not None:
        points.install(order["point"], folder)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with opened(order["database_url"], folder, kit=CrashKit(), **order["settings"]):
        tell("working")
        await ended.wait()
    tell("closed")


async def _no_canaries(*_: Any) -> tuple[()]:
    return ()


async def _no_groups(*_: Any) -> bool:
    return False


def tell(event: str, pid: int | None = None) -> None:
    line = json.dumps({"pid": pid or os.getpid(), "event": event}) + "\n"
    os.write(OUTPUT, line.encode())


OUTPUT = 1


def fork(order: dict[str, Any], number: int) -> None:
    pid = os.fork()
    if pid:
        return
    global OUTPUT
    OUTPUT = os.dup(1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(Path(order["folder"]) / f"{number}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    asyncio.run(work(order))
    sys.exit()


def main() -> None:
    """Until its input ends; then the workers that are left are killed."""
    signals, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    buffer, number = b"", 0
    while True:
        ready, _, _ = select.select([0, signals], [], [])
        if signals in ready:
            os.read(signals, 1024)
            for pid, event in iter(functools.partial(_changed), None):
                tell(event, pid)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                number += 1
                fork(json.loads(line), number)


def _changed() -> tuple[int, str] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
    except ChildProcessError:
        return None
    if pid == 0:
        return None
    return pid, "stopped" if os.WIFSTOPPED(status) else "ended"


if __name__ == "__main__":
    main()
