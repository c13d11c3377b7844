"""The sandbox: bubblewrap with an allow-listed file system, a system call filter, limits and a watch."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepgate.domain.errors import InvalidValue, SandboxUnavailable
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.sandbox import seccomp
from stepgate.workspace.sandbox.command import Canary, Command, Finished, Level
from stepgate.workspace.sandbox.filesystem import INSIDE_ID, FileSystem
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.locate import Bubblewrap, candidates
from stepgate.workspace.sandbox.running import Recipe, Running

_NAMESPACES: Final = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--uid", str(INSIDE_ID), "--gid", str(INSIDE_ID), "--hostname", "sandbox", "--disable-userns"),
    *("--cap-drop", "ALL", "--die-with-parent", "--new-session"),
)


def recipe(launcher: Launcher, bwrap: Bubblewrap, files: FileSystem) -> Recipe:
    """How every command is run at the level `bwrap-full`."""
    environment = {
        "PATH": ":".join(files.path),
        "HOME": "/tmp",  # noqa: S108
        "TMPDIR": "/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        # Byte code would show up in every change set.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    options = (*_NAMESPACES, *files.arguments)
    return Recipe(Level.BWRAP_FULL, launcher, bwrap.path, options, tuple(environment.items()), seccomp.program())
