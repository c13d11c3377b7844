"""Finding the strongest acceptable level that works here, by trying every way to it and believing only the canaries."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, assert_never

from stepgate.domain.errors import InvalidValue, StepgateError
from stepgate.workspace.layers.store import Layers, Trial
from stepgate.workspace.sandbox.advice import advice
from stepgate.workspace.sandbox.bubblewrap import BubblewrapPlan
from stepgate.workspace.sandbox.canaries import Runner, groups_hold, sing
from stepgate.workspace.sandbox.cgroup import find_home
from stepgate.workspace.sandbox.command import Canary
from stepgate.workspace.sandbox.filesystem import FileSystem
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.levels import REQUIRED, STRONGER, Level, Weakness
from stepgate.workspace.sandbox.locate import candidates
from stepgate.workspace.sandbox.onhost import OnHostPlan
from stepgate.workspace.sandbox.recipe import Recipe


class Plan(Protocol):
    """One way to one level; it makes its recipe again when the launcher with its mounts was lost."""

    @property
    def level(self) -> Level: ...

    @property
    def files(self) -> FileSystem:
        """What commands see."""

    @property
    def origin(self) -> str:
        """What confines them."""

    def trial(self) -> Trial | None:
        """How layers are tried; None for by bubblewrap."""

    def weaknesses(self) -> Sequence[Weakness]:
        """What this way cannot do, whatever the canaries say."""

    def recipe(self, launcher: Launcher, groups: Path | None = None) -> Recipe:
        """How every command is run. Raises SandboxUnavailable."""


@dataclass(frozen=True, slots=True)
class Proved:
    """A plan whose canaries held."""

    plan: Plan
    recipe: Recipe
    canaries: tuple[Canary, ...]
    degraded: tuple[Weakness, ...]


async def prove(
    levels: Sequence[Level], readonly: Sequence[Path], python_prefix: Path | None, layers: Layers
) -> Proved | list[str]:
    """The first of the levels, which come strongest first, that holds; else why each does not.

    Raises InvalidValue for read-only folders that commands may not see.
    """
    refused: list[str] = []
    for level in levels:
        try:
            files = FileSystem.build(Launcher.shared(), layers.path.parent, python_prefix, readonly)
            plans = list(_plans(level, files))
        except InvalidValue:
            raise
        except (OSError, StepgateError) as error:
            refused.append(f"{level}: {error}")
            continue
        if not plans:
            refused.append(f"{level}: no bubblewrap of version 0.11 or newer was found")
        for plan in plans:
            found = await _try(plan, layers)
            if isinstance(found, Proved):
                return replace(found, degraded=(*_downgrade(level, refused), *found.degraded))
            refused.append(f"{level} with {plan.origin}: {found}")
    layers.use(None)
    return refused


def _plans(level: Level, files: FileSystem) -> Iterator[Plan]:
    match level:
        case Level.BWRAP_FULL | Level.BWRAP_NOPROC:
            for bwrap in candidates():
                yield BubblewrapPlan(level, bwrap, files)
        case Level.LANDLOCK_SECCOMP | Level.UNSAFE_NONE:
            yield OnHostPlan.of(level, files)
        case _:
            assert_never(level)


def _downgrade(level: Level, refused: Sequence[str]) -> tuple[Weakness, ...]:
    if not refused:
        return ()
    return (
        Weakness(f"{level} is in use because nothing stronger works here: {'; '.join(refused)}", advice(weaker=False)),
    )


async def _try(plan: Plan, layers: Layers) -> Proved | str:
    try:
        recipe = plan.recipe(Launcher.shared())
        layers.use(plan.trial())
        runner = Runner(recipe, layers)
        python = plan.files.resolve("python3")
        canaries = await sing(runner, python)
        home = find_home()
        if home is not None and python is not None and await groups_hold(runner, python, home):
            recipe = replace(recipe, groups=home)
        probed = layers.probe()
    except (OSError, StepgateError) as error:
        return str(error)
    failed = [canary for canary in canaries if not canary.passed]
    broken = [f"{canary.name} ({canary.detail})" for canary in failed if canary.name in REQUIRED[plan.level]]
    if broken:
        return f"canaries did not hold: {', '.join(broken)}"
    return Proved(plan, recipe, canaries, tuple(_weaknesses(plan, failed, probed.reasons)))


def _weaknesses(plan: Plan, failed: Sequence[Canary], passed_over: Sequence[str]) -> Iterator[Weakness]:
    yield from plan.weaknesses()
    yield from (Weakness(f"{canary.name}: {canary.detail}", STRONGER) for canary in failed)
    yield from (Weakness(missing) for missing in plan.files.missing)
    yield from (Weakness(f"layers are private copies, as {reason}") for reason in passed_over)
