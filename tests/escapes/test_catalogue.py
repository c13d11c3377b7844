"""The list of attacks itself: large enough, each by a name of its own, and told in the documentation as it is."""

import re
from collections import Counter
from pathlib import Path

from stepgate.workspace.sandbox.levels import Level
from tests.escapes.attack import Kind
from tests.escapes.catalogue import ATTACKS

PAGE = Path(__file__).parents[2] / "docs" / "security.md"


def test_every_attack_has_a_name_and_a_program_of_its_own() -> None:
    names = Counter(attack.name for attack in ATTACKS)
    programs = Counter(attack.program for attack in ATTACKS)
    assert [name for name, count in names.items() if count > 1] == []
    assert [program for program, count in programs.items() if count > 1] == []


def test_the_page_counts_the_attacks_of_every_class_as_they_are() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    told = {kind: int(count) for kind, count in rows if kind in list(Kind)}
    assert told == Counter(attack.kind for attack in ATTACKS)
    assert f"{len(ATTACKS)} attacks" in PAGE.read_text()


def test_what_is_known_to_be_open_is_told_with_its_reason() -> None:
    page = PAGE.read_text()
    for attack in ATTACKS:
        for level, reason in attack.open_at.items():
            assert f"| `{Level(level)}` | {attack.name} | {reason} |" in page
