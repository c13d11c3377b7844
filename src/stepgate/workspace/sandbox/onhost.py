"""Commands without namespaces: held by Landlock and a stricter filter or, only where that is asked for, by nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, assert_never

from stepgate.domain.errors import SandboxUnavailable
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.layers.store import Trial
from stepgate.workspace.paths import check_relative
from stepgate.workspace.sandbox import landlock, seccomp
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.filesystem import FileSystem
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.levels import STRONGER, Level, Weakness
from stepgate.workspace.sandbox.recipe import ENVIRONMENT, Recipe, Start
from stepgate.workspace.sandbox.start import run_plainly

_DEVICES: Final = ("/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")
_NO_LANDLOCK: Final = "use a kernel of 5.13 or newer with `landlock` in its list of security modules (lsm=landlock,...)"


@dataclass(frozen=True, slots=True)
class OnHost:
    """`readable` are the files and folders of the host that Landlock leaves open, of ABI `abi`; 0 for no Landlock."""

    abi: int
    readable: tuple[str, ...]
    filter: bytes

    def start(self, command: Command, layer: Layer, environment: Mapping[str, str]) -> Start:
        """The command's own process confines itself by what is told here."""
        cwd = check_relative(command.cwd, "cwd", allow_root=True)
        places = layer.places()
        own = {"HOME": places.tmp, "TMPDIR": places.tmp}
        program: dict[str, Any] = {
            "cwd": f"{places.workspace}/{cwd}" if cwd else places.workspace,
            "env": {**environment, **own, **command.env},
            "landlock": None,
        }
        if self.abi:
            program["landlock"] = {
                "abi": self.abi,
                "read": self.readable,
                "write": (places.workspace, places.tmp),
                "devices": _DEVICES,
            }
        return Start(program, (), self.filter, bare=True)


@dataclass(frozen=True, slots=True)
class OnHostPlan:
    """One of the two levels without namespaces."""

    level: Level
    files: FileSystem
    abi: int

    @classmethod
    def of(cls, level: Level, files: FileSystem) -> "OnHostPlan":
        """With what of the files can be seen without mounts."""
        return cls(level, files.without_mounts(Launcher.shared(), owned=level is Level.UNSAFE_NONE), landlock.abi())

    @property
    def origin(self) -> str:
        """What it is made with."""
        return f"Landlock ABI {self.abi}" if self.level is Level.LANDLOCK_SECCOMP else "nothing"

    def trial(self) -> Trial:
        """Runs one command in the same way over a layer."""

        def run(layer: Layer, argv: Sequence[str]) -> str:
            launcher = Launcher.shared()
            recipe = self.recipe(launcher)
            return run_plainly(launcher, recipe.start(Command(tuple(argv)), layer), argv)

        return run

    def recipe(self, launcher: Launcher, groups: Path | None = None) -> Recipe:
        """How every command is run. Raises SandboxUnavailable where the kernel has no Landlock."""
        environment = {"PATH": ":".join(self.files.path), **ENVIRONMENT}
        return Recipe(self.level, launcher, self._way(), environment, groups)

    def _way(self) -> OnHost:
        match self.level:
            case Level.UNSAFE_NONE:
                return OnHost(0, (), b"")
            case Level.LANDLOCK_SECCOMP:
                if not self.abi:
                    raise SandboxUnavailable("this kernel offers no Landlock", fix=_NO_LANDLOCK)
                return OnHost(self.abi, self.files.readable(), seccomp.program())
            case Level.BWRAP_FULL | Level.BWRAP_NOPROC:
                raise AssertionError(f"{self.level} has namespaces")
            case _:
                assert_never(self.level)

    def weaknesses(self) -> tuple[Weakness, ...]:
        """What these levels cannot do, whatever the canaries say."""
        if self.level is Level.UNSAFE_NONE:
            return (Weakness("there is no sandbox: commands can do whatever the worker's user can", STRONGER),)
        return tuple(Weakness(reason, fix) for reason, fix in _facts(self.abi, root=Launcher.shared().root))


def _facts(abi: int, *, root: bool) -> Sequence[tuple[str, str]]:
    """What Landlock of an ABI leaves open or takes away, each with what mends it."""
    facts = [
        ("that files and processes of the host exist can be asked (stat, readlink), not what is in them", STRONGER),
        ("the workspace is not at /workspace; /tmp, /dev/shm and /proc are closed, TMPDIR is open", STRONGER),
    ]
    if abi < landlock.MOVES:
        facts.append((f"files cannot be moved from folder to folder (Landlock ABI {abi})", "use Linux 5.19 or newer"))
    if abi < landlock.TRUNCATES:
        facts.append((f"files cannot be truncated by their path (Landlock ABI {abi})", "use Linux 6.2 or newer"))
    if abi < landlock.SIGNALS:
        whose = "other commands" if root else "other processes of the worker's user, though not the worker's,"
        facts.append((f"{whose} can be sent signals (Landlock ABI {abi})", "use Linux 6.12 or newer"))
    if not root:
        facts.append(
            ("modes, owners, attributes and times of files cannot be changed by their path", "run the worker as root")
        )
    return facts
