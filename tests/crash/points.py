"""Where a worker may die: named places between taking up a step and putting down its run, found by name.

A point wraps a function of the product in the process that is to die, so that nothing of it is in the product's way.
"""

import functools
import importlib
import inspect
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from stepgate.domain import commands
from stepgate.workspace.sandbox.command import Command

EDIT, COMMAND, UNDO = "edit_file", "run_command", "undo"
KINDS = (EDIT, COMMAND, UNDO)
ARMED = "armed"
REACHED = b"reached"

DRIVER, ATTEMPT, APPLYING = "stepgate.worker.driver", "stepgate.worker.attempt", "stepgate.worker.applying"
BLOBS, LOCKS, PLACING = "stepgate.workspace.blobs", "stepgate.workspace.locks", "stepgate.workspace.placing"
LAYERS, APPLY = "stepgate.workspace.layers", "stepgate.workspace.apply"


@dataclass(frozen=True, slots=True)
class Point:
    """`target` is `module:name`; the process stands still `before` or `after` its first call once it is armed.

    With `submitting` only calls that carry such a command count; `at` is a point that `apply` itself announces.
    """

    name: str
    target: str
    when: Literal["before", "after", "at", "running"]
    kinds: tuple[str, ...] = KINDS
    submitting: type[Any] | None = None
    at: str = ""


def _applying(*names: str, kinds: tuple[str, ...] = KINDS) -> tuple[Point, ...]:
    """Points that `apply` announces; a name that ends in a colon stands for its first path."""
    return tuple(
        Point(f"apply-{name.replace(':', '-one')}", f"{APPLYING}:apply", "at", kinds, at=name) for name in names
    )


POINTS: tuple[Point, ...] = (
    Point("taken", f"{ATTEMPT}:_proceed", "before"),
    Point("turn-asked", f"{DRIVER}:Driver.hold_workspace", "before"),
    Point("turn-held", f"{DRIVER}:Driver.hold_workspace", "after"),
    Point("prepared", f"{ATTEMPT}:prepare", "after"),
    Point("starting", f"{DRIVER}:Driver.submit", "before", (COMMAND,), submitting=commands.Begin),
    Point("started", f"{DRIVER}:Driver.submit", "after", (COMMAND,), submitting=commands.Begin),
    Point("layer-made", f"{LAYERS}.store:Layers._make", "after", (COMMAND,)),
    Point("launched", "stepgate.workspace.sandbox.sandbox:Sandbox.launch", "after", (COMMAND,)),
    Point("running", "stepgate.workspace.sandbox.sandbox:Sandbox.launch", "running", (COMMAND,)),
    Point("ended", "stepgate.workspace.sandbox.running:Running.run", "after", (COMMAND,)),
    Point("blob-written", f"{BLOBS}:BlobStore._place", "before", (COMMAND,)),
    Point("blob-placed", f"{BLOBS}:BlobStore._place", "after", (COMMAND,)),
    Point("harvested", "stepgate.executors.command_launch:harvest", "after", (COMMAND,)),
    Point("layer-removing", f"{LAYERS}.folder:LayerFolder.remove", "before", (COMMAND,)),
    Point("layer-emptying", f"{LAYERS}.folder:_unlock", "after", (COMMAND,)),
    Point("layer-removed", f"{LAYERS}.folder:LayerFolder.remove", "after", (COMMAND,)),
    Point("blobs-syncing", f"{BLOBS}:BlobStore.sync", "before"),
    Point("blob-synced", f"{BLOBS}:fsync", "after", (EDIT, COMMAND)),
    Point("blobs-synced", f"{BLOBS}:BlobStore.sync", "after"),
    Point("computing", f"{DRIVER}:Driver.submit", "before", submitting=commands.Compute),
    Point("computed", f"{DRIVER}:Driver.submit", "after", submitting=commands.Compute),
    Point("locked", "stepgate.storage.claim:Claims.stands", "before"),
    Point("standing", "stepgate.storage.claim:Claims.stands", "after"),
    Point("marking", f"{LOCKS}:ApplyMarks.begin", "before"),
    Point("mark-written", f"{LOCKS}:fsync", "after"),
    Point("marked", f"{LOCKS}:ApplyMarks.begin", "after"),
    *_applying("start", "swept", "checked", "prepared:", "prepared"),
    *_applying("widened:", "removed:", "taken:", "mode:", "time:", kinds=(UNDO,)),
    *_applying("folder:", kinds=(COMMAND, UNDO)),
    Point("file-syncing", f"{PLACING}:fsync", "before"),
    Point("file-synced", f"{PLACING}:fsync", "after"),
    *_applying("exchanged:", "placed:", "cleaned"),
    Point("folder-synced", f"{APPLY}:fsync", "after"),
    *_applying("durable"),
    Point("completing", f"{DRIVER}:Driver.submit", "before", submitting=commands.Complete),
    Point("completed", f"{DRIVER}:Driver.submit", "after", submitting=commands.Complete),
    Point("clearing", f"{LOCKS}:ApplyMarks.clear", "before"),
    Point("cleared", f"{LOCKS}:ApplyMarks.clear", "after"),
    Point("turn-releasing", "stepgate.storage.workspaces:Workspaces.release", "before"),
    Point("turn-released", "stepgate.storage.workspaces:Workspaces.release", "after"),
    Point("run-releasing", "stepgate.storage.claim:Claims.release", "before"),
    Point("run-released", "stepgate.storage.claim:Claims.release", "after"),
)


def install(name: str, folder: Path) -> None:
    """Makes this process stand still at the point, once, after the file `armed` was made in the folder."""
    point = next(point for point in POINTS if point.name == name)
    owner, attribute = find(point.target)
    setattr(owner, attribute, _wrapped(point, getattr(owner, attribute), _stop_once(folder / ARMED)))


def find(target: str) -> tuple[Any, str]:
    """What holds the function, and its name there; raises AttributeError where it is no more."""
    module, _, path = target.partition(":")
    *owners, attribute = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    getattr(owner, attribute)
    return owner, attribute


def _stop_once(armed: Path) -> Callable[[], None]:
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped and armed.exists():
            stopped = True
            # To this thread: to the process, others may take it up, and this one would go on until they do.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    return stop


def _wrapped(point: Point, function: Callable[..., Any], stop: Callable[[], None]) -> Callable[..., Any]:
    match point.when:
        case "before":
            return _before(function, stop, point.submitting)
        case "after":
            if point.submitting is not None or inspect.iscoroutinefunction(function):
                return _after_awaited(function, stop, point.submitting)
            return _after(function, stop)
        case "at":
            return _announced(function, stop, point.at)
        case "running":
            return _running(function, stop)


def _counts(args: tuple[Any, ...], submitting: type[Any] | None) -> bool:
    return submitting is None or any(isinstance(command, submitting) for command in args[1])


def _before(function: Callable[..., Any], stop: Callable[[], None], submitting: type[Any] | None) -> Callable[..., Any]:
    def first(*args: Any, **more: Any) -> Any:
        if _counts(args, submitting):
            stop()
        return function(*args, **more)

    return first


def _after(function: Callable[..., Any], stop: Callable[[], None]) -> Callable[..., Any]:
    def then(*args: Any, **more: Any) -> Any:
        result = function(*args, **more)
        stop()
        return result

    return then


def _after_awaited(
    function: Callable[..., Any], stop: Callable[[], None], submitting: type[Any] | None
) -> Callable[..., Any]:
    async def then(*args: Any, **more: Any) -> Any:
        result = await function(*args, **more)
        if _counts(args, submitting):
            stop()
        return result

    return then


def _announced(apply: Callable[..., Any], stop: Callable[[], None], wanted: str) -> Callable[..., Any]:
    def on_point(name: str) -> None:
        if name == wanted or (wanted.endswith(":") and name.startswith(wanted)):
            stop()

    return functools.partial(apply, on_point=on_point)


def _running(launch: Callable[..., Any], stop: Callable[[], None]) -> Callable[..., Any]:
    """The command has done its work and says so, but does not end."""

    def on_output(_stream: str, data: bytes) -> None:
        if REACHED in data:
            stop()

    def lasting(sandbox: Any, command: Command, layer: Any, **more: Any) -> Any:
        script = f"{command.argv[-1]}\necho {REACHED.decode()}; sleep 600"
        longer = replace(command, argv=(*command.argv[:-1], script))
        return launch(sandbox, longer, layer, **(more | {"on_output": on_output}))

    return lasting
