"""A worker in a process of its own, which stands still at a named point of a step's life, for a test to kill or wake.

    python -m tests.worker.process DATABASE_URL FOLDER POINT SETTINGS

The points, in order: `shown` (what a preview came to is kept, nobody is asked yet), `begun` (the start is recorded),
`computed` (the change set is recorded), `marked` (it is about to be applied), `half` (some of it is), `applied` (all of
it is), `completed` (that is recorded); `never` is none of them.
"""

import asyncio
import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepgate.worker import applying, executing, previewing
from stepgate.workspace import apply as workspace_apply
from stepgate.workspace.locks import ApplyMarks
from tests.worker.lab import opened


def stand_still() -> None:
    """Until SIGCONT comes, or SIGKILL."""
    # To this thread: to the process, others may take it up, and this one would go on until they do.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def after(function: Callable[..., Any]) -> Callable[..., Any]:
    async def then(*args: Any) -> Any:
        result = await function(*args)
        stand_still()
        return result

    return then


def before(function: Callable[..., Any]) -> Callable[..., Any]:
    def first(*args: Any) -> Any:
        stand_still()
        return function(*args)

    return first


def half(*args: Any) -> Any:
    """Stops once, after the first path was written."""
    stopped = False

    def on_point(name: str) -> None:
        nonlocal stopped
        if not stopped and name.startswith(("folder:", "placed:")):
            stopped = True
            stand_still()

    return workspace_apply.apply(*args, on_point=on_point)


def applied(*args: Any) -> Any:
    result = workspace_apply.apply(*args)
    stand_still()
    return result


POINTS: dict[str, tuple[Any, str, Any]] = {
    "shown": (previewing, "keep", after(previewing.keep)),
    "begun": (executing._Execution, "_begin", after(executing._Execution._begin)),
    "computed": (executing, "apply_computed", before(applying.apply_computed)),
    "marked": (applying, "apply", before(workspace_apply.apply)),
    "half": (applying, "apply", half),
    "applied": (applying, "apply", applied),
    "completed": (ApplyMarks, "clear", before(ApplyMarks.clear)),
}


async def main(database_url: str, folder: str, point: str, settings: str) -> None:
    if point in POINTS:
        setattr(*POINTS[point])
    async with opened(database_url, Path(folder), **json.loads(settings)) as lab:
        sys.stdout.write(f"{lab.worker.id}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
