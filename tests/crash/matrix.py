"""Which deaths are tried: every point, for every kind of step, with every death and every person; or a chosen part."""

from dataclasses import dataclass
from itertools import count
from typing import Literal

from tests.crash.points import COMMAND, EDIT, POINTS, UNDO, Point
from tests.workspace.test_apply import AFTER, BEFORE
from tests.workspace.trees import File, Folder, Link, Tree

Death = Literal["killed", "stopped", "powerless"]
Saves = Literal["nothing", "aside", "in the set"]
DEATHS: tuple[Death, ...] = ("killed", "stopped", "powerless")
SAVES: tuple[Saves, ...] = ("nothing", "aside", "in the set")

"""Long, since many may die at once on a small machine."""

PROJECT: Tree = {
    "log": File(b"before\n"),
    "old": File(b""),
    "kept": File(b"kept"),
    "narrow": File(b"1", 0o644),
}
SCRIPT = "echo line >> log; mkdir -p made/deep; echo x > made/deep/x; rm old; chmod 600 narrow; ln -s log link"


@dataclass(frozen=True, slots=True)
class Kind:
    """`path` is one that its change set changes, `start` and `end` the workspace before and after."""

    name: str
    start: Tree
    end: Tree
    path: str


SCENES = {
    EDIT: Kind(EDIT, PROJECT, {**PROJECT, "log": File(b"after\n", 0o600)}, "log"),
    COMMAND: Kind(
        COMMAND,
        PROJECT,
        {
            "log": File(b"before\nline\n"),
            "kept": File(b"kept"),
            "narrow": File(b"1", 0o600),
            "made": Folder(),
            "made/deep": Folder(),
            "made/deep/x": File(b"x\n"),
            "link": Link("log"),
        },
        "log",
    ),
    UNDO: Kind(UNDO, AFTER, BEFORE, "edited"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One life and death of a worker."""

    kind: str
    point: Point
    death: Death
    saves: Saves

    def __str__(self) -> str:
        return f"{self.kind}-{self.point.name}-{self.death}-{self.saves.replace(' ', '_')}"


def full() -> list[Case]:
    return [
        Case(kind, point, death, saves)
        for point in POINTS
        for kind in point.kinds
        for death in DEATHS
        for saves in SAVES
    ]


def chosen() -> list[Case]:
    """Every point once; the kinds, deaths and saves take turns, so that each pair of them occurs several times."""
    turns = count()
    return [
        Case(point.kinds[turn % len(point.kinds)], point, DEATHS[turn % 3], SAVES[(turn // 3 + turn // 9) % 3])
        for point, turn in zip(POINTS, turns, strict=False)
    ]
