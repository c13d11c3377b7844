"""Confining a command by bubblewrap: namespaces of its own and an allow-listed file system."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepgate.workspace.layers.layer import WORKSPACE, Layer
from stepgate.workspace.paths import check_relative
from stepgate.workspace.sandbox import seccomp
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.etc import INSIDE_ID
from stepgate.workspace.sandbox.filesystem import FileSystem
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.levels import Level, Weakness
from stepgate.workspace.sandbox.locate import Bubblewrap
from stepgate.workspace.sandbox.recipe import ENVIRONMENT, HOST_NAME, Recipe, Start

_NAMESPACES: Final = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--uid", str(INSIDE_ID), "--gid", str(INSIDE_ID), "--hostname", HOST_NAME),
    *("--cap-drop", "ALL", "--die-with-parent", "--new-session"),
)
_FRESH_PROC: Final = ("--proc", "/proc")
# It writes to /proc/sys, which a host that hides parts of its /proc has read-only; the filter refuses the same.
_NO_MORE_NAMESPACES: Final = ("--disable-userns",)
_WITH_PROC: Final = "let the host show all of /proc (Docker: `systempaths=unconfined`) and name bwrap-full"
_EMPTY_PROC: Final = ("--dir", "/proc")


@dataclass(frozen=True, slots=True)
class InNamespaces:
    """`options` come before the layer's mounts, `shown` after them."""

    bwrap: str
    options: tuple[str, ...]
    shown: tuple[str, ...]
    filter: bytes

    def start(self, command: Command, layer: Layer, environment: Mapping[str, str]) -> Start:
        """bubblewrap with its arguments, up to but without the command's own."""
        cwd = check_relative(command.cwd, "cwd", allow_root=True)
        given = [part for name, value in {**environment, **command.env}.items() for part in ("--setenv", name, value)]
        arguments = (
            *("--clearenv", *given),
            *self.options,
            *layer.mounts(),
            *self.shown,
            *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", f"{WORKSPACE}/{cwd}" if cwd else WORKSPACE),
        )
        return Start({"bwrap": self.bwrap}, arguments, self.filter)


@dataclass(frozen=True, slots=True)
class BubblewrapPlan:
    """One bubblewrap at one of the two levels that it makes possible."""

    level: Level
    bwrap: Bubblewrap
    files: FileSystem

    @property
    def origin(self) -> str:
        """What it is made with."""
        return self.bwrap.origin

    def trial(self) -> None:
        """Layers are tried by bubblewrap."""

    def weaknesses(self) -> tuple[Weakness, ...]:
        """What this level cannot do, whatever the canaries say."""
        if self.level is Level.BWRAP_FULL:
            return ()
        return (Weakness("/proc is empty for commands: what reads it (ps, some runtimes) finds nothing", _WITH_PROC),)

    def recipe(self, launcher: Launcher, groups: Path | None = None) -> Recipe:
        """How every command is run. Raises NotReachable, and SandboxUnavailable on an unknown architecture."""
        full = self.level is Level.BWRAP_FULL
        options = (
            *_NAMESPACES,
            *(_NO_MORE_NAMESPACES if full else ()),
            *self.files.arguments(launcher),
            *(_FRESH_PROC if full else _EMPTY_PROC),
        )
        way = InNamespaces(
            self.bwrap.reached(launcher), options, self.files.shown_arguments(launcher), seccomp.program()
        )
        return Recipe(self.level, launcher, way, {"PATH": ":".join(self.files.path), **ENVIRONMENT}, groups)
