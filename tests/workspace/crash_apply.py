"""Applies a set once for every injection point, each time in a copy of the workspace and killed at that point.

Run as `python crash_apply.py BASE POINTS`: BASE holds `before/`, `blobs/` and `set.json`; the copies are `BASE/<n>`.
With three arguments more, `FROM PATH POINT`, it is killed once, at POINT, and in `BASE/saved`: there a person saves
PATH when FROM is reached.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from stepgate.workspace.access import Root
from stepgate.workspace.apply import apply
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.placing import OnPoint


def main(base: Path, points: int, *saved: str) -> None:
    if saved:
        crash(base, "saved", save_and_die(base / "saved", *saved))
        return
    for fatal in range(points):
        crash(base, str(fatal), die_at(fatal))


def crash(base: Path, name: str, on_point: OnPoint) -> None:
    workspace = base / name
    change_set = ChangeSet.from_json(json.loads((base / "set.json").read_text()))
    shutil.copytree(base / "before", workspace, symlinks=True)
    child = os.fork()
    if child == 0:
        with Root.open(workspace) as root:
            apply(root, change_set, BlobStore(base / "blobs"), on_point=on_point)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        sys.exit(f"{name}: the point was not reached: {status}")


def die_at(fatal: int) -> OnPoint:
    reached = 0

    def die(_point: str) -> None:
        nonlocal reached
        if reached == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        reached += 1

    return die


def save_and_die(workspace: Path, save_from: str, path: str, fatal: str) -> OnPoint:
    """As editors do it: a new file takes the name."""

    def act(point: str) -> None:
        if point == save_from:
            (workspace / "draft").write_bytes(b"the person's")
            (workspace / "draft").replace(workspace / path)
        if point == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
