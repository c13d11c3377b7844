"""What the worker is given to do: runs created before the clock starts, and checked after it has stopped."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from stepgate.compose import Stack
from stepgate.domain.ids import RunId
from stepgate.domain.state import Actor
from stepgate.engine.engine import NewRun

ACTOR = Actor("bench", "person", "cli")
AT_ONCE = 16
FILE_BYTES = 4096
FILES = "files"
"""The workspace of every run that names no other."""


async def create(
    stack: Stack,
    count: int,
    steps: Callable[[int], Sequence[dict[str, Any]]],
    workspace: Path | None = None,
    *,
    start: bool = True,
    labels: Mapping[str, str] | None = None,
) -> list[RunId]:
    """`count` runs, started if not told otherwise; `steps(i)` are the steps of the i-th."""
    folder = str(workspace or stack.settings.workspace_root / FILES)

    async def one(number: int) -> RunId:
        given = list(steps(number))
        new = NewRun(goal=f"bench {number}", steps=given, start=start, workspace_path=folder, labels=labels)
        return (await stack.engine.create(new, ACTOR)).info.id

    return await in_parallel([lambda number=number: one(number) for number in range(count)])


async def in_parallel(work: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """All of it, 16 at a time, in order."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(task: Callable[[], Awaitable[Any]]) -> Any:
        async with slots:
            return await task()

    return await asyncio.gather(*(one(task) for task in work))


def noops(count: int) -> Callable[[int], Sequence[dict[str, Any]]]:
    return lambda _: [{"type": "noop", "input": {}}] * count


def reads(count: int) -> Callable[[int], Sequence[dict[str, Any]]]:
    """Each step of each run reads a file of its own."""
    return lambda run: [{"type": "read_file", "input": {"path": name(run, step)}} for step in range(count)]


def name(run: int, step: int) -> str:
    return f"{run % 100:02}/{run}-{step}.txt"


def write_files(folder: Path, runs: int, steps: int) -> None:
    line = "the quick brown fox jumps over the lazy dog; 0123456789 "
    for run in range(runs):
        (folder / f"{run % 100:02}").mkdir(exist_ok=True)
        for step in range(steps):
            text = f"{run} {step} " + line * (FILE_BYTES // len(line) + 1)
            (folder / name(run, step)).write_text(text[:FILE_BYTES], "utf-8")


async def unverified(stack: Stack, runs: Sequence[RunId]) -> list[str]:
    """Why the figure may not be used: every run that is not completed or whose journal does not hold."""

    async def one(run_id: RunId) -> str | None:
        run = await stack.queries.run(run_id)
        found = await stack.queries.verify(run_id)
        return None if run.status == "completed" and found.verified else f"{run_id}: {run.status}, {found.reason}"

    found = await in_parallel([lambda run_id=run_id: one(run_id) for run_id in runs])
    return [problem for problem in found if problem is not None]


async def step_times_ms(stack: Stack, run_id: RunId) -> list[float]:
    """The time between one step's completion and the next one's, by the journal."""
    at = await times(stack, run_id, "step.completed")
    return [(after - before) * 1000 for before, after in pairwise(at)]


async def lasted_ms(
    stack: Stack, run_id: RunId, since: str = "approval.approved", until: str = "step.completed"
) -> float:
    """From the last event of one type to the last of another, by the journal."""
    began, ended = await times(stack, run_id, since), await times(stack, run_id, until)
    return (ended[-1] - began[-1]) * 1000


async def times(stack: Stack, run_id: RunId, type_: str) -> list[float]:
    """When the events of a type happened, in seconds."""
    found: list[float] = []
    cursor: str | None = None
    while True:
        page = await stack.queries.events(run_id, cursor=cursor, limit=200)
        found += [datetime.fromisoformat(event.at).timestamp() for event in page.items if event.type == type_]
        cursor = page.next_cursor
        if cursor is None:
            return found


def middle(values: Sequence[float]) -> float:
    return median(values)
