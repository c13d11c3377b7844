"""Applies a set once for every injection point, each time in a copy of the workspace and killed at that point.

Run as `python crash_apply.py BASE POINTS`: BASE holds `before/`, `blobs/` and `set.json`; the copies are `BASE/<n>`.
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


def main(base: Path, points: int) -> None:
    change_set = ChangeSet.from_json(json.loads((base / "set.json").read_text()))
    for fatal in range(points):
        workspace = base / str(fatal)
        shutil.copytree(base / "before", workspace, symlinks=True)
        child = os.fork()
        if child == 0:
            die_at(fatal, workspace, change_set, BlobStore(base / "blobs"))
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f"point {fatal} was not reached: {status}")


def die_at(fatal: int, workspace: Path, change_set: ChangeSet, blobs: BlobStore) -> None:
    reached = 0

    def die(_point: str) -> None:
        nonlocal reached
        if reached == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        reached += 1

    with Root.open(workspace) as root:
        apply(root, change_set, blobs, on_point=die)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
