"""Isolated runs: each works on its own copy of the folder, which only a delivery changes."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from stepgate.domain.errors import PathRefused
from stepgate.domain.ids import RunId
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, reading

BEFORE = {"a.txt": "old\n", "d/b.txt": "b\n", "gone": "x\n"}
PLAN = [
    {"key": "edit", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}},
    {"key": "command", "type": "run_command", "input": {"command": "cat a.txt; echo more >> d/b.txt; rm gone"}},
]
AFTER = {"a.txt": "new\n", "d/b.txt": "b\nmore\n"}


def files(folder: Path) -> Mapping[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill(folder: Path) -> None:
    for name, text in BEFORE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


async def start(lab: Lab) -> RunId:
    return await lab.create(PLAN, workspace_mode="isolated")


async def finish(lab: Lab, run_id: RunId) -> None:
    for step in PLAN:
        await lab.approve(run_id, str(step["key"]))
    await lab.until_status(run_id, "completed")


def copy_of(lab: Lab, run_id: RunId) -> Path:
    return lab.stack.copies.folder_of(run_id)


async def test_steps_change_the_copy_and_not_the_folder(lab: Lab) -> None:
    fill(lab.workspace)
    run_id = await start(lab)
    await finish(lab, run_id)
    assert files(lab.workspace) == BEFORE
    assert files(copy_of(lab, run_id)) == AFTER
    assert (await lab.output(run_id, "command"))["stdout"] == "new\n"
    run = await lab.stack.queries.run(run_id)
    assert (run.workspace_mode, run.workspace_path) == ("isolated", str(lab.workspace))
    assert run.private_copy is not None
    assert (run.private_copy.path, run.private_copy.files) == (str(copy_of(lab, run_id)), 4)
    assert run.private_copy.bytes == sum(map(len, BEFORE.values()))
    await lab.verify(run_id)


async def test_the_copy_is_of_the_moment_at_which_the_run_is_first_driven(lab: Lab) -> None:
    fill(lab.workspace)
    run_id = await lab.create(PLAN, workspace_mode="isolated", start=False)
    (lab.workspace / "later").write_text("seen\n")
    assert not copy_of(lab, run_id).exists()
    run = await lab.stack.queries.run(run_id)
    assert run.private_copy is not None
    assert (run.private_copy.files, run.private_copy.made_at) == (None, None)
    await lab.engine.start(run_id, PERSON)
    await lab.until_step(run_id, "edit", "awaiting_approval")
    (lab.workspace / "a.txt").write_text("not seen\n")
    await finish(lab, run_id)
    assert files(copy_of(lab, run_id)) == AFTER | {"later": "seen\n"}
    assert (lab.workspace / "a.txt").read_text() == "not seen\n"


async def test_many_runs_of_one_folder_go_on_at_the_same_time(lab: Lab) -> None:
    fill(lab.workspace)
    runs = [await start(lab) for _ in range(6)]
    # Each waits between its two steps, so all of them are in the middle of their work at once.
    for run_id in runs:
        await lab.approve(run_id, "edit")
    for run_id in runs:
        await lab.until_step(run_id, "command", "awaiting_approval")
        assert (copy_of(lab, run_id) / "a.txt").read_text() == "new\n"
    await asyncio.gather(*(lab.approve(run_id, "command") for run_id in runs))
    for run_id in runs:
        await lab.until_status(run_id, "completed")
        assert files(copy_of(lab, run_id)) == AFTER
        await lab.verify(run_id)
    assert files(lab.workspace) == BEFORE


async def test_a_step_in_review_in_the_folder_does_not_hold_up_isolated_runs_that_have_their_copy(lab: Lab) -> None:
    fill(lab.workspace)
    run_id = await start(lab)
    await lab.until_step(run_id, "edit", "awaiting_approval")
    with reading(lab.workspace):
        await finish(lab, run_id)
    assert files(copy_of(lab, run_id)) == AFTER


async def test_undo_acts_on_the_copy(lab: Lab) -> None:
    fill(lab.workspace)
    run_id = await start(lab)
    await finish(lab, run_id)
    state, step_id = await lab.engine.undo(run_id, PERSON)
    await lab.approve(run_id, state.steps[step_id].spec.key)
    await lab.until(run_id, lambda state: state.undone_at is not None)
    assert files(copy_of(lab, run_id)) == BEFORE
    assert files(lab.workspace) == BEFORE
    await lab.verify(run_id)


async def test_another_worker_goes_on_in_the_copy_of_the_first(lab: Lab, open_lab: OpenLab) -> None:
    fill(lab.workspace)
    run_id = await start(lab)
    await lab.approve(run_id, "edit")
    await lab.until_step(run_id, "command", "awaiting_approval")
    await lab.until_idle()
    await lab.worker.stop()
    (lab.workspace / "a.txt").write_text("meanwhile\n")
    second = await open_lab()
    await second.approve(run_id, "command")
    await second.until_status(run_id, "completed")
    assert files(copy_of(lab, run_id)) == AFTER


async def test_a_copy_that_somebody_removed_fails_the_next_step_and_is_not_made_again(lab: Lab) -> None:
    fill(lab.workspace)
    run_id = await start(lab)
    await lab.until_step(run_id, "edit", "awaiting_approval")
    await lab.until_idle()
    assert lab.stack.copies.remove(run_id)
    step = await lab.approve(run_id, "edit")
    state = await lab.until_status(run_id, "failed")
    error = state.steps[step.id].error
    assert error is not None
    assert error["code"] == "copy_gone"
    assert not copy_of(lab, run_id).exists()
    assert files(lab.workspace) == BEFORE


async def test_a_folder_over_the_bounds_fails_the_first_step_and_says_what_to_set(open_lab: OpenLab) -> None:
    lab = await open_lab(isolated_max_files=3)
    fill(lab.workspace)
    run_id = await start(lab)
    state = await lab.until_status(run_id, "failed")
    error = state.steps[state.keys["edit"]].error
    assert error is not None
    assert (error["code"], error["field"]) == ("copy_too_large", "workspace_path")
    assert list(lab.stack.copies.path.iterdir()) == [lab.stack.copies.path / "aside"]
    assert list((lab.stack.copies.path / "aside").iterdir()) == []


async def test_the_copy_waits_while_a_change_set_is_half_applied_to_the_folder(lab: Lab) -> None:
    fill(lab.workspace)
    in_place = await lab.create(
        [{"key": "e", "type": "edit_file", "input": {"path": "a.txt", "content": "in place\n"}}]
    )
    with reading(lab.workspace):
        await lab.approve(in_place, "e")
        await lab.until_step(in_place, "e", "computed")
        workspace = (await lab.state(in_place)).info.workspace_id
        change_set = (await lab.step(in_place, "e")).result
        assert change_set is not None
        lab.worker._tools.marks.begin(workspace, change_set.change_set_id or "")
        run_id = await start(lab)
        await lab.until_held(run_id)
        assert not copy_of(lab, run_id).exists()
    await lab.until_status(in_place, "completed")
    lab.worker.ring()
    await lab.until_step(run_id, "edit", "awaiting_approval")
    assert (copy_of(lab, run_id) / "a.txt").read_text() == "in place\n"


async def test_a_run_in_a_named_workspace_takes_its_mode(lab: Lab) -> None:
    fill(lab.workspace)
    await lab.engine.places.add("default", "shop", str(lab.workspace), "isolated")
    by_name = await lab.create(PLAN, workspace=None, named="shop")
    await finish(lab, by_name)
    assert files(lab.workspace) == BEFORE
    run = await lab.stack.queries.run(by_name)
    assert (run.workspace, run.workspace_mode, run.workspace_path) == ("shop", "isolated", str(lab.workspace))
    in_place = await lab.create(PLAN, workspace=None, named="shop", workspace_mode="in_place")
    await finish(lab, in_place)
    assert files(lab.workspace) == AFTER
    assert (await lab.stack.queries.run(in_place)).workspace == "shop"


async def test_a_copy_is_no_workspace_and_no_workspace_holds_the_state_folder(lab: Lab, tmp_path: Path) -> None:
    fill(lab.workspace)
    run_id = await start(lab)
    await lab.until_step(run_id, "edit", "awaiting_approval")
    lab.engine.places.root = tmp_path
    with pytest.raises(PathRefused, match="private copy"):
        await lab.create(PLAN, workspace=copy_of(lab, run_id))
    with pytest.raises(PathRefused, match="state folder"):
        await lab.create(PLAN, workspace=tmp_path, workspace_mode="isolated")
