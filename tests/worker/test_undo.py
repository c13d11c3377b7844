"""Taking back what a run did: one more change, shown, approved and undoable like any other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.errors import Conflict, IllegalTransition, WorkspaceConflict
from stepgate.domain.ids import RunId
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, step_of

PLAN = [
    {"key": "one", "type": "edit_file", "input": {"path": "a.txt", "content": "first\n"}},
    {"key": "two", "type": "run_command", "input": {"command": "echo more >> a.txt; mkdir d; echo x > d/new; rm gone"}},
    {"key": "three", "type": "edit_file", "input": {"path": "a.txt", "content": "third\n"}},
]
BEFORE = {"a.txt": "old\n", "gone": "was here\n"}
AFTER_ONE = {"a.txt": "first\n", "gone": "was here\n"}
AFTER_ALL = {"a.txt": "third\n", "d/new": "x\n"}


def files(folder: Path) -> Mapping[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
async def done(lab: Lab) -> RunId:
    return await changed(lab)


async def changed(lab: Lab) -> RunId:
    """A run that has changed its workspace in three steps."""
    for name, text in BEFORE.items():
        (lab.workspace / name).write_text(text)
    run_id = await lab.create(PLAN)
    for step in PLAN:
        await lab.approve(run_id, str(step["key"]))
    await lab.until_status(run_id, "completed")
    assert files(lab.workspace) == AFTER_ALL
    return run_id


async def undo(lab: Lab, run_id: RunId, to: str | None = None) -> Any:
    """Undoes, approving; returns the step when it has come to its end."""
    _, step_id = await lab.engine.undo(run_id, PERSON, to)
    key = (await lab.state(run_id)).steps[step_id].spec.key
    await lab.approve(run_id, key)
    state = await lab.until(run_id, lambda state: state.steps[step_id].completed_at is not None)
    return state.steps[step_id]


async def test_undo_restores_everything_and_the_run_keeps_its_status(lab: Lab, done: RunId) -> None:
    before = (await lab.state(done)).workspace_rev
    step = await undo(lab, done)
    assert step.status == "completed"
    assert files(lab.workspace) == BEFORE
    assert not (lab.workspace / "d").exists()
    state = await lab.state(done)
    assert (state.status, state.undone_at is not None) == ("completed", True)
    assert state.workspace_rev != before
    assert (await lab.events(done))[-1] == "run.undone"
    await lab.verify(done)


async def test_undo_to_a_step_keeps_what_it_left(lab: Lab, done: RunId) -> None:
    await undo(lab, done, to="one")
    assert files(lab.workspace) == AFTER_ONE
    await lab.verify(done)


async def test_an_undo_can_be_undone(lab: Lab, done: RunId) -> None:
    first = await undo(lab, done)
    assert files(lab.workspace) == BEFORE
    second = await undo(lab, done, to="three")
    assert second.spec.key != first.spec.key
    assert files(lab.workspace) == AFTER_ALL
    await undo(lab, done)
    assert files(lab.workspace) == BEFORE
    await lab.verify(done)


async def test_a_cancelled_run_can_be_undone(lab: Lab) -> None:
    (lab.workspace / "a.txt").write_text("old\n")
    run_id = await lab.create([PLAN[0], {"key": "h", "type": "hold", "input": {"name": "h"}}])
    await lab.approve(run_id, "one")
    await lab.until_step(run_id, "h", "running")
    with pytest.raises(IllegalTransition):
        await lab.engine.undo(run_id, PERSON)
    await lab.engine.cancel(run_id, PERSON)
    await lab.until_status(run_id, "cancelled")
    await undo(lab, run_id)
    assert files(lab.workspace) == {"a.txt": "old\n"}
    assert (await lab.state(run_id)).status == "cancelled"


async def test_an_undo_that_would_overwrite_a_person_s_edit_is_refused_with_the_paths(lab: Lab, done: RunId) -> None:
    (lab.workspace / "a.txt").write_text("mine\n")
    (lab.workspace / "d" / "mine").write_text("mine\n")
    head = (await lab.state(done)).last_at
    for to in (None, "one"):
        with pytest.raises(WorkspaceConflict) as caught:
            await lab.engine.undo(done, PERSON, to)
        assert caught.value.details["paths"] == ["a.txt"]
    (lab.workspace / "a.txt").write_text("third\n")
    with pytest.raises(WorkspaceConflict) as caught:
        await lab.engine.undo(done, PERSON)
    assert caught.value.details["paths"] == ["d/mine"]
    assert (await lab.state(done)).last_at == head
    assert files(lab.workspace) == AFTER_ALL | {"d/mine": "mine\n"}
    await undo(lab, done, to="two")
    assert files(lab.workspace) == {"a.txt": "first\nmore\n", "d/new": "x\n", "d/mine": "mine\n"}


async def test_an_edit_after_an_undo_was_asked_for_fails_it_with_the_paths(open_lab: OpenLab) -> None:
    lab = await open_lab()
    done = await changed(lab)
    await lab.worker.stop()
    _, step_id = await lab.engine.undo(done, PERSON)
    (lab.workspace / "a.txt").write_text("mine\n")
    lab = await open_lab()
    state = await lab.until(done, lambda state: state.steps[step_id].status == "awaiting_approval")
    view = await lab.stack.queries.step(done, step_id)
    assert view.approval is not None
    assert view.approval.rendering is not None
    assert view.approval.rendering["paths"] == ["a.txt"]
    assert view.approval.rendering["no_preview"]
    await lab.approve(done, state.steps[step_id].spec.key)
    state = await lab.until(done, lambda state: state.steps[step_id].completed_at is not None)
    step = state.steps[step_id]
    assert step.error is not None
    assert (step.status, step.error["code"], step.error["paths"]) == ("failed", "workspace_conflict", ["a.txt"])
    assert files(lab.workspace) == AFTER_ALL | {"a.txt": "mine\n"}
    assert (state.status, state.undone_at) == ("completed", None)
    (lab.workspace / "a.txt").write_text("third\n")
    await undo(lab, done)
    assert files(lab.workspace) == BEFORE
    await lab.verify(done)


async def test_a_rejected_undo_changes_nothing_and_another_may_be_asked_for(lab: Lab, done: RunId) -> None:
    state, step_id = await lab.engine.undo(done, PERSON)
    with pytest.raises(Conflict):
        await lab.engine.undo(done, PERSON)
    await lab.reject(done, state.steps[step_id].spec.key, "abort")
    state = await lab.until(done, lambda state: state.steps[step_id].status == "rejected")
    assert (state.status, state.undone_at) == ("completed", None)
    assert files(lab.workspace) == AFTER_ALL
    await undo(lab, done)
    assert files(lab.workspace) == BEFORE


async def test_a_run_that_changed_nothing_has_nothing_to_undo(lab: Lab) -> None:
    run_id = await lab.create([{"key": "n", "type": "noop", "input": {}}])
    await lab.until_status(run_id, "completed")
    step = await undo(lab, run_id)
    assert step.status == "completed"
    assert step_of(await lab.state(run_id), "n").status == "completed"


def editing(path: str, content: str) -> dict[str, Any]:
    return {"key": "e", "type": "edit_file", "input": {"path": path, "content": content}}


async def test_an_undo_stops_at_what_a_later_run_changed_and_goes_around_it_where_it_may(lab: Lab, done: RunId) -> None:
    later = await lab.create([editing("d/new", "later\n")])
    await lab.approve(later, "e")
    await lab.until_status(later, "completed")
    with pytest.raises(WorkspaceConflict) as caught:
        await lab.engine.undo(done, PERSON)
    assert caught.value.details["paths"] == ["d/new"]
    await undo(lab, done, to="two")
    assert files(lab.workspace) == {"a.txt": "first\nmore\n", "d/new": "later\n"}
    await undo(lab, later)
    await undo(lab, done)
    assert files(lab.workspace) == BEFORE
    for run_id in (done, later):
        await lab.verify(run_id)


async def test_what_is_too_large_to_be_kept_is_named_before_the_approval_and_not_undone(open_lab: OpenLab) -> None:
    lab = await open_lab(undo_max_bytes=10)
    (lab.workspace / "big").write_text("more than ten bytes\n")
    (lab.workspace / "small").write_text("small\n")
    command = {"key": "c", "type": "run_command", "input": {"command": "rm big; mv small moved"}}
    edits = [editing("big", "twenty and some bytes\n"), editing("small", "tiny\n") | {"key": "s"}]
    run_id = await lab.create([*edits, command])
    asked = await lab.until_step(run_id, "e", "awaiting_approval")
    view = await lab.stack.queries.step(run_id, asked.id)
    assert view.approval is not None
    assert view.approval.rendering is not None
    assert view.approval.rendering["cannot_undo"] == ["big"]
    for key in ("e", "s"):
        await lab.approve(run_id, key)
    asked = await lab.until_step(run_id, "c", "awaiting_approval")
    view = await lab.stack.queries.step(run_id, asked.id)
    assert view.approval is not None
    assert view.approval.rendering is not None
    assert view.approval.rendering["undo_max_bytes"] == 10
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    assert (await lab.output(run_id, "e"))["cannot_undo"] == ["big"]
    # What an earlier step left is stored, however large.
    assert "cannot_undo" not in await lab.output(run_id, "c")
    diff = await lab.stack.queries.diff(run_id)
    assert diff.cannot_undo == ["big"]
    assert "# cannot be undone" in diff.diff
    with pytest.raises(Conflict) as caught:
        await lab.engine.undo(run_id, PERSON)
    assert (caught.value.reason_code, caught.value.details["paths"]) == ("cannot_undo", ["big"])
    await undo(lab, run_id, to="e")
    assert files(lab.workspace) == {"big": "twenty and some bytes\n", "small": "small\n"}
    await lab.verify(run_id)
