"""The sandbox: the strongest acceptable level whose canaries hold, and the commands that run at it."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

from stepgate.domain.errors import InvalidValue, SandboxUnavailable
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.advice import advice
from stepgate.workspace.sandbox.command import Command, Finished, Killed
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.levels import DEFAULT_LEVELS, STRENGTH, Level
from stepgate.workspace.sandbox.probing import Proved, prove
from stepgate.workspace.sandbox.running import Running
from stepgate.workspace.syscalls import LINUX


class Sandbox:
    """Runs commands at a level that was proved at start-up; made by `probe` only.

    `canaries` are the attacks that were tried, `degraded` what is weaker here than it could be, each with what mends
    it, `groups` the control group in which each command's memory is limited by the kernel (None: it is watched only).
    """

    def __init__(self, proved: Proved) -> None:
        self.level = proved.recipe.level
        self.canaries = proved.canaries
        self.degraded = proved.degraded
        self.origin = proved.plan.origin
        self.groups = proved.recipe.groups
        self._plan = proved.plan
        self._files = proved.plan.files
        self._recipe = proved.recipe
        self._live: set[Running] = set()

    @classmethod
    async def probe(
        cls,
        *,
        levels: Sequence[str] = DEFAULT_LEVELS,
        readonly: Sequence[Path] = (),
        state_dir: Path,
        python_prefix: Path | None = None,
        layers: Layers | None = None,
    ) -> Self:
        """The strongest of the levels whose canaries hold, with the folders `readonly` shown at their own paths.

        `python_prefix` (default: that of this Python) comes first on PATH where it is not in /usr. One weaker than
        the strongest that was named says so in `degraded`.
        Raises SandboxUnavailable, with the way to mend it, when none holds; InvalidValue for an unknown level and for
        folders that commands may not see.
        """
        wanted = _known(levels)
        if not LINUX:
            raise SandboxUnavailable("the sandbox needs Linux", fix=advice())
        found = await prove(wanted, readonly, python_prefix, layers or Layers(state_dir))
        if isinstance(found, Proved):
            return cls(found)
        reasons = "; ".join(found) or "no level was asked for"
        raise SandboxUnavailable(f"no sandbox of level {', '.join(wanted)}: {reasons}", fix=advice())

    @property
    def limited_by(self) -> Literal["cgroup", "watchdog"]:
        """Who holds a command to its memory and processes: `cgroup` (the kernel) or `watchdog` (looking often)."""
        return "watchdog" if self.groups is None else "cgroup"

    async def run(
        self,
        command: Command,
        layer: Layer,
        *,
        on_output: Callable[[str, bytes], None] | None = None,
        stop: asyncio.Event | None = None,
        ready: "asyncio.Future[None] | None" = None,
    ) -> Finished:
        """Runs a command to its end, in which no process of it is left; `on_output` gets (stream name, bytes printed).

        The sandbox is set up at once, but nothing of the command runs before `ready`; where that fails, its error is
        raised. Setting `stop` ends it with `killed="cancel"`; cancelling the task ends it too and raises CancelledError
        once everything is gone. Raises SandboxUnavailable when the sandbox does not come up, InvalidValue (field `cwd`)
        when there is no such folder.
        """
        return await self.launch(command, layer, on_output=on_output).run(stop, ready)

    def launch(
        self, command: Command, layer: Layer, *, on_output: Callable[[str, bytes], None] | None = None
    ) -> Running:
        """A sandbox that is being set up; nothing of the command runs before `Running.run`, as in `run`."""
        launcher = Launcher.shared()
        if self._recipe.launcher is not launcher:
            self._recipe = self._plan.recipe(launcher, self.groups)
        running = Running(self._recipe, command, layer, on_output, self._live.discard)
        self._live.add(running)
        try:
            running.start()
        except BaseException:
            self._live.discard(running)
            raise
        return running

    def kill_all(self) -> None:
        """Ends every command of this sandbox at once; may be called from any thread."""
        for running in list(self._live):
            running.kill(Killed.CANCEL)

    def resolve_executable(self, argv0: str) -> str | None:
        """The program a command's first word leads to inside, by the sandbox's own PATH; None when there is none."""
        return self._files.resolve(argv0)


def _known(levels: Sequence[str]) -> tuple[Level, ...]:
    """The levels, the strongest first."""
    for level in levels:
        if level not in list(Level):
            raise InvalidValue(f"no such level: {level!r}", field="levels", fix=f"one of {', '.join(Level)}")
    return tuple(sorted({Level(level) for level in levels}, key=STRENGTH.__getitem__))
