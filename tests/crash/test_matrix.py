"""Wherever a worker dies, however, and whatever a person saves meanwhile: the effect is whole, once, or asked about."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.crash.conftest import Begin, Mortal
from tests.crash.disk import cut_power
from tests.crash.matrix import SCENES, SCRIPT, Case, Kind
from tests.crash.points import ARMED, COMMAND, EDIT, POINTS, UNDO, find
from tests.crash.watch import Watch, watching
from tests.worker.lab import Plan
from tests.workspace import trees

MINE = b"the person's\n"
DONE, REVIEW, ASKS = "completed", "needs_review", "awaiting_approval"


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_every_point_is_a_function_of_the_product(point: Any) -> None:
    find(point.target)


async def test_wherever_a_worker_dies_the_effect_is_whole_and_once_or_a_person_is_asked(
    case: Case, begin: Begin, superuser: Any, database_url: str, tmp_path: Path
) -> None:
    scene = SCENES[case.kind]
    async with watching(database_url, tmp_path, superuser) as watch:
        victim = await approved(watch, case, begin)
        (tmp_path / ARMED).touch()
        await watch.approve()
        await victim.hear("stopped")
        died = await watch.events()
        save(watch.workspace, case, scene)
        left = await bury(watch, case, victim)
        successor = await take_over(watch, case, victim, begin)
        status = await watch.settled()
        if case.death == "stopped":
            await victim.close()
        judge(case, scene, died, status, trees.read(watch.workspace), left)
        await watch.verify()
        await check_once(watch, scene, status)
        await watch.close_question(status)
        await watch.another_run_changes_the_workspace()
        await successor.close()
        assert watch.leftovers() == []


async def approved(watch: Watch, case: Case, begin: Begin) -> Mortal:
    """A worker whose step waits for its approval; nobody drives the run."""
    scene, sandbox = SCENES[case.kind], case.kind == COMMAND
    # A command that lasts ends only when its worker hears that its lease is lost.
    lease = {"lease_s": 4.0} if case.point.when == "running" else {}
    victim: Mortal = await begin(case.point.name, sandbox=sandbox, **lease)
    plan: Plan
    match case.kind:
        case "edit_file":
            trees.write(watch.workspace, scene.start)
            plan = [{"key": "s", "type": EDIT, "input": {"path": "log", "content": "after\n", "mode": "0600"}}]
        case "run_command":
            trees.write(watch.workspace, scene.start)
            plan = [{"key": "s", "type": COMMAND, "input": {"command": SCRIPT + f" # {watch.marker}"}}]
        case _:
            trees.write(watch.workspace, scene.end)
            plan = [{"key": "s", "type": "replant", "input": {}}]
    await watch.create(plan)
    if case.kind == UNDO:
        await watch.undo()
    await watch.asks_and_rests()
    shutil.copytree(watch.workspace, watch.backup, symlinks=True)
    watch.note_files()
    return victim


def save(workspace: Path, case: Case, scene: Kind) -> None:
    """As editors do it: a new file takes the name."""
    if case.saves == "nothing":
        return
    path = workspace / ("mine" if case.saves == "aside" else scene.path)
    draft = workspace.parent / "draft"
    draft.write_bytes(MINE)
    draft.replace(path)


async def bury(watch: Watch, case: Case, victim: Mortal) -> trees.Tree | None:
    """Ends the worker as the case says; returns what it left in the workspace, None where it is not over yet."""
    if case.death == "stopped":
        return None
    await victim.kill()
    if case.death == "powerless":
        cut_power(watch.folder, watch.backup, watch.kept())
    return trees.read(watch.workspace)


async def take_over(watch: Watch, case: Case, victim: Mortal, begin: Begin) -> Mortal:
    """The worker that takes over; who stood still until then wakes."""
    await watch.expire_leases()
    successor: Mortal = await begin(sandbox=case.kind == COMMAND)
    if case.death == "stopped":
        await watch.taken_over()
        victim.send(signal.SIGCONT)
    return successor


def judge(case: Case, scene: Kind, died: list[str], status: str, now: trees.Tree, left: trees.Tree | None) -> None:
    whole, untouched = contents(scene.end), contents(scene.start)
    found = contents(now)
    if case.saves == "aside":
        assert found.pop("mine")[0] == MINE
    if case.saves != "in the set":
        assert (status, found) == (DONE, whole)
        return
    mine = found.pop(scene.path)
    whole.pop(scene.path)
    untouched.pop(scene.path)
    if "step.completed" in died:
        assert (status, mine[0], found) == (DONE, MINE, whole)
    elif "step.computed" in died:
        assert (status, mine[0]) == (REVIEW, MINE)
        if left is not None:  # who stood still may have written more before he heard
            before = contents(left)
            before.pop(scene.path)
            assert found == before
    elif status == DONE:
        assert case.kind == COMMAND
        assert (mine[0], found) == (MINE + b"line\n", whole)
    else:
        assert status in (ASKS, REVIEW)
        assert (mine[0], found) == (MINE, untouched)


def contents(tree: trees.Tree) -> dict[str, tuple[Any, int]]:
    """What lies at each path and its mode; temporary names are left out."""
    shown: dict[str, tuple[Any, int]] = {}
    for path, item in tree.items():
        if ".stepgate-" in path:
            continue
        match item:
            case trees.File(data, mode):
                shown[path] = data, mode
            case trees.Folder(mode):
                shown[path] = None, mode
            case trees.Link(target):
                shown[path] = target, 0
    return shown


async def check_once(watch: Watch, scene: Kind, status: str) -> None:
    events = await watch.events()
    assert events.count("step.completed") == (1 if status == DONE else 0)
    assert events.count("step.computed") <= 1
    assert await watch.applied_sets() == (1 if status == DONE else 0)
    if status == REVIEW:
        assert await watch.review_paths() == [scene.path]
