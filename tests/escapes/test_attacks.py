"""Nothing leaves the sandbox: every attack, at every level that this host can have."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from stepgate.workspace.sandbox.levels import Level
from tests.escapes.attack import Attack
from tests.escapes.catalogue import ATTACKS
from tests.escapes.conftest import Control, Labs
from tests.escapes.host import host
from tests.escapes.range import Result, in_sandbox
from tests.escapes.victims import Victims


@pytest.mark.parametrize("level", [level for level in Level if level is not Level.UNSAFE_NONE])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.kind}:{attack.name}".replace(" ", "-"))
def test_an_attack_does_not_leave_the_sandbox(
    attack: Attack,
    level: Level,
    labs: Labs,
    control: Control,
    base: Path,
    victims: Victims,
    record_property: Callable[[str, object], None],
) -> None:
    lab = labs(level)
    teeth = _teeth(attack, control)
    with host(base, victims, attack.plant) as around:
        result = asyncio.run(in_sandbox(lab, attack, around))
    verdict = _verdict(attack, level, teeth=teeth, escaped=bool(result.signs))
    record_property("attack", (str(level), str(attack.kind), verdict))
    assert not result.fault, result.fault
    assert verdict != "escaped", (result.signs, result.ended, result.output[-2000:])
    assert not (level in attack.open_at and teeth and verdict != "open"), "it is said to be open, and is not"


def _teeth(attack: Attack, control: Control) -> bool:
    if attack.harmful:
        return False
    result: Result = control(attack)
    assert not result.fault, result.fault
    return attack.sign in result.signs


def _verdict(attack: Attack, level: Level, *, teeth: bool, escaped: bool) -> str:
    if escaped:
        return "open" if level in attack.open_at else "escaped"
    if attack.harmful:
        return "blocked, not tried without"
    return "blocked" if teeth else "toothless"
