"""The sandbox: bubblewrap with an allow-listed file system, a system call filter, limits and a watch."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from stepgate.domain.errors import InvalidValue, SandboxUnavailable, StepgateError
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox import seccomp
from stepgate.workspace.sandbox.advice import advice
from stepgate.workspace.sandbox.canaries import Runner, groups_hold, sing
from stepgate.workspace.sandbox.cgroup import find_home
from stepgate.workspace.sandbox.command import Canary, Command, Finished, Killed, Level
from stepgate.workspace.sandbox.etc import INSIDE_ID
from stepgate.workspace.sandbox.filesystem import FileSystem
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.locate import Bubblewrap, candidates
from stepgate.workspace.sandbox.running import Recipe, Running
from stepgate.workspace.syscalls import LINUX

_NAMESPACES: Final = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--uid", str(INSIDE_ID), "--gid", str(INSIDE_ID), "--hostname", "sandbox", "--disable-userns"),
    *("--cap-drop", "ALL", "--die-with-parent", "--new-session"),
)
_ENVIRONMENT: Final = {
    "HOME": "/tmp",  # noqa: S108
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    # Byte code would show up in every change set.
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a recipe is made from, again when the launcher with its mounts was lost."""

    bwrap: Bubblewrap
    files: FileSystem
    groups: Path | None = None

    def recipe(self, launcher: Launcher) -> Recipe:
        """How every command is run at the level `bwrap-full`. Raises NotReachable."""
        environment = {"PATH": ":".join(self.files.path), **_ENVIRONMENT}
        options = (*_NAMESPACES, *self.files.arguments(launcher))
        shown = self.files.shown_arguments(launcher)
        bwrap = self.bwrap.reached(launcher)
        program = seccomp.program()
        return Recipe(Level.BWRAP_FULL, launcher, bwrap, options, shown, environment, program, self.groups)


class Sandbox:
    """Runs commands at a level that was proved at start-up; made by `probe` only.

    `canaries` are the attacks that were tried, `degraded` what is weaker here than it could be, `groups` the control
    group in which each command's memory is limited by the kernel (None: it is watched only).
    """

    def __init__(
        self, blueprint: Blueprint, recipe: Recipe, canaries: tuple[Canary, ...], degraded: tuple[str, ...]
    ) -> None:
        self.level = recipe.level
        self.canaries = canaries
        self.degraded = degraded
        self.bubblewrap = blueprint.bwrap.origin
        self.groups = blueprint.groups
        self._blueprint = blueprint
        self._recipe = recipe
        self._live: set[Running] = set()

    @classmethod
    async def probe(
        cls,
        *,
        levels: Sequence[str] = (Level.BWRAP_FULL,),
        readonly: Sequence[Path] = (),
        state_dir: Path,
        python_prefix: Path | None = None,
        layers: Layers | None = None,
    ) -> Self:
        """The first of the levels whose canaries all hold, with the folders `readonly` shown at their own paths.

        `python_prefix` (default: that of this Python) comes first on PATH where it is not in /usr.
        Raises SandboxUnavailable, with the way to mend it, when none holds; InvalidValue for an unknown level and for
        folders that commands may not see.
        """
        for level in levels:
            if level not in list(Level):
                raise InvalidValue(f"no such level: {level!r}", field="levels", fix=f"one of {', '.join(Level)}")
        if not LINUX:
            raise SandboxUnavailable("the sandbox needs Linux", fix=advice())
        layers = layers or Layers(state_dir)
        refused: list[str] = ["no level was asked for"] if not levels else []
        if levels:
            try:
                files = FileSystem.build(Launcher.shared(), layers.path.parent, python_prefix, readonly)
                for bwrap in candidates():
                    found = await cls._try(Blueprint(bwrap, files), layers)
                    if isinstance(found, cls):
                        return found
                    refused.append(f"{bwrap.origin}: {found}")
            except InvalidValue:
                raise
            except (OSError, StepgateError) as error:
                refused.append(str(error))
        reasons = "; ".join(refused) or "no bubblewrap of version 0.11 or newer was found"
        raise SandboxUnavailable(f"no sandbox of level {', '.join(levels)}: {reasons}", fix=advice())

    @classmethod
    async def _try(cls, blueprint: Blueprint, layers: Layers) -> "Self | str":
        try:
            recipe = blueprint.recipe(Launcher.shared())
            python = blueprint.files.resolve("python3")
            canaries = await sing(Runner(recipe, layers), python)
            home = find_home()
            if home is not None and python is not None and await groups_hold(Runner(recipe, layers), python, home):
                blueprint = replace(blueprint, groups=home)
                recipe = replace(recipe, groups=home)
            probed = layers.probe()
        except (OSError, StepgateError) as error:
            return str(error)
        broken = [f"{canary.name} ({canary.detail})" for canary in canaries if not canary.passed]
        if broken:
            return f"canaries did not hold: {', '.join(broken)}"
        return cls(blueprint, recipe, canaries, (*blueprint.files.missing, *probed.reasons))

    async def run(
        self,
        command: Command,
        layer: Layer,
        *,
        on_output: Callable[[str, bytes], None] | None = None,
        stop: asyncio.Event | None = None,
    ) -> Finished:
        """Runs a command to its end, in which no process of it is left; `on_output` gets (stream name, bytes kept).

        Setting `stop` ends it with `killed="cancel"`; cancelling the task ends it too and raises CancelledError once
        everything is gone. Raises SandboxUnavailable when the sandbox does not come up, InvalidValue (field `cwd`)
        when there is no such folder.
        """
        launcher = Launcher.shared()
        if self._recipe.launcher is not launcher:
            self._recipe = self._blueprint.recipe(launcher)
        running = Running(self._recipe, command, layer, on_output)
        self._live.add(running)
        try:
            return await running.run(stop)
        finally:
            self._live.discard(running)

    def kill_all(self) -> None:
        """Ends every command of this sandbox at once; may be called from any thread."""
        for running in list(self._live):
            running.kill(Killed.CANCEL)

    def resolve_executable(self, argv0: str) -> str | None:
        """The program a command's first word leads to inside, by the sandbox's own PATH; None when there is none."""
        return self._blueprint.files.resolve(argv0)
