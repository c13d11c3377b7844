"""Delivering what an isolated run did: shown, approved, applied to the folder, and taken back like any other set."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.errors import Conflict, Forbidden, PathRefused, WorkspaceConflict
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.state import Actor
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab
from tests.worker.rules import policy_file, rule
from tests.worker.test_isolated import AFTER, BEFORE, PLAN, copy_of, files, fill, finish, start


@pytest.fixture
async def done(lab: Lab) -> RunId:
    """An isolated run that has ended, its result in its copy."""
    fill(lab.workspace)
    run_id = await start(lab)
    await finish(lab, run_id)
    return run_id


async def deliver(lab: Lab, run_id: RunId) -> RunId:
    """Delivers, approving; returns the delivery's run once it has ended well."""
    state, step_id = await lab.engine.deliver(run_id, PERSON)
    await lab.approve(state.info.id, state.steps[step_id].spec.key)
    await lab.until_status(state.info.id, "completed")
    made: RunId = state.info.id
    return made


async def asked(lab: Lab, run_id: RunId, step_id: StepId) -> Any:
    """The question, once it is asked."""
    await lab.until(run_id, lambda state: state.steps[step_id].status == "awaiting_approval")
    view = await lab.stack.queries.step(run_id, step_id)
    assert view.approval is not None
    return view.approval.rendering


async def test_the_real_diff_is_approved_and_the_folder_then_holds_the_result(lab: Lab, done: RunId) -> None:
    state, step_id = await lab.engine.deliver(done, PERSON)
    rendering = await asked(lab, state.info.id, step_id)
    assert [file["path"] for file in rendering["files"]] == ["a.txt", "d/b.txt", "gone"]
    assert "-old\n+new\n" in rendering["diff"]
    assert files(lab.workspace) == BEFORE
    await lab.approve(state.info.id, "deliver")
    await lab.until_status(state.info.id, "completed")
    assert files(lab.workspace) == AFTER
    run = await lab.stack.queries.run(state.info.id)
    assert (run.workspace_mode, run.workspace_path) == ("in_place", str(lab.workspace))
    assert run.labels == {"delivers": done}
    assert (await lab.output(state.info.id, "deliver"))["run_id"] == done
    for run_id in (done, state.info.id):
        await lab.verify(run_id)


async def test_a_delivery_can_be_undone_and_made_again(lab: Lab, done: RunId) -> None:
    delivery = await deliver(lab, done)
    state, step_id = await lab.engine.undo(delivery, PERSON)
    await lab.approve(delivery, state.steps[step_id].spec.key)
    await lab.until(delivery, lambda state: state.undone_at is not None)
    assert files(lab.workspace) == BEFORE
    assert files(copy_of(lab, done)) == AFTER
    await deliver(lab, done)
    assert files(lab.workspace) == AFTER


async def test_a_rejected_delivery_changes_nothing(lab: Lab, done: RunId) -> None:
    state, _ = await lab.engine.deliver(done, PERSON)
    await lab.reject(state.info.id, "deliver", "abort")
    await lab.until_status(state.info.id, "cancelled")
    assert files(lab.workspace) == BEFORE


async def test_a_path_that_changed_in_the_folder_is_a_conflict_and_nothing_is_recorded(lab: Lab, done: RunId) -> None:
    (lab.workspace / "a.txt").write_text("mine\n")
    (lab.workspace / "gone").unlink()
    (lab.workspace / "untouched").write_text("mine\n")
    with pytest.raises(WorkspaceConflict) as refused:
        await lab.engine.deliver(done, PERSON)
    # What the person deleted as the run did is no conflict.
    assert refused.value.details["paths"] == ["a.txt"]
    assert files(lab.workspace) == {"a.txt": "mine\n", "d/b.txt": "b\n", "untouched": "mine\n"}
    (lab.workspace / "a.txt").write_text("old\n")
    await deliver(lab, done)
    assert files(lab.workspace) == AFTER | {"untouched": "mine\n"}


async def test_a_path_that_changes_after_the_question_is_never_overwritten(lab: Lab, done: RunId) -> None:
    state, step_id = await lab.engine.deliver(done, PERSON)
    await asked(lab, state.info.id, step_id)
    (lab.workspace / "a.txt").write_text("mine\n")
    await lab.approve(state.info.id, "deliver")
    # Its effect would be another, so it is asked anew, now without a diff and with the paths.
    found = await lab.until(state.info.id, lambda now: len(now.steps[step_id].approvals) == 2)
    assert found.steps[step_id].status == "awaiting_approval"
    assert (await asked(lab, state.info.id, step_id))["paths"] == ["a.txt"]
    await lab.approve(state.info.id, "deliver")
    ended = await lab.until_status(state.info.id, "failed")
    error = ended.steps[step_id].error
    assert error is not None
    assert (error["code"], error["paths"]) == ("workspace_conflict", ["a.txt"])
    assert files(lab.workspace) == BEFORE | {"a.txt": "mine\n"}


async def test_a_folder_the_person_filled_is_not_removed(lab: Lab) -> None:
    fill(lab.workspace)
    run_id = await lab.create(
        [{"key": "c", "type": "run_command", "input": {"command": "rm -r d"}}], workspace_mode="isolated"
    )
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    (lab.workspace / "d" / "mine").write_text("mine\n")
    with pytest.raises(WorkspaceConflict) as refused:
        await lab.engine.deliver(run_id, PERSON)
    assert refused.value.details["paths"] == ["d/mine"]


async def test_only_a_run_that_has_ended_and_changed_something_is_delivered(lab: Lab) -> None:
    fill(lab.workspace)
    run_id = await start(lab)
    await lab.until_step(run_id, "edit", "awaiting_approval")
    with pytest.raises(Conflict) as refused:
        await lab.engine.deliver(run_id, PERSON)
    assert refused.value.reason_code == "run_not_ended"
    await lab.engine.cancel(run_id, PERSON)
    await lab.until_status(run_id, "cancelled")
    with pytest.raises(Conflict) as refused:
        await lab.engine.deliver(run_id, PERSON)
    assert refused.value.reason_code == "nothing_to_deliver"


async def test_what_an_undone_run_left_is_nothing_to_deliver(lab: Lab, done: RunId) -> None:
    state, step_id = await lab.engine.undo(done, PERSON)
    with pytest.raises(Conflict) as refused:
        await lab.engine.deliver(done, PERSON)
    assert refused.value.reason_code == "run_not_ended"
    await lab.approve(done, state.steps[step_id].spec.key)
    await lab.until(done, lambda state: state.undone_at is not None)
    with pytest.raises(Conflict) as refused:
        await lab.engine.deliver(done, PERSON)
    assert refused.value.reason_code == "nothing_to_deliver"


async def test_a_result_that_is_there_already_is_said_to_be(lab: Lab, done: RunId) -> None:
    await deliver(lab, done)
    with pytest.raises(Conflict, match="holds the result already"):
        await lab.engine.deliver(done, PERSON)


async def test_a_run_in_the_folder_itself_has_nothing_to_apply_but_a_patch(lab: Lab) -> None:
    fill(lab.workspace)
    run_id = await lab.create(PLAN)
    await finish(lab, run_id)
    with pytest.raises(Conflict) as refused:
        await lab.engine.deliver(run_id, PERSON)
    assert refused.value.reason_code == "nothing_to_apply"
    patch = await lab.engine.delivery.patch(run_id)
    assert "-old\n+new\n" in patch.text


async def test_of_two_runs_that_changed_one_file_the_second_is_a_conflict(lab: Lab, done: RunId) -> None:
    other = await lab.create(
        [{"key": "e", "type": "edit_file", "input": {"path": "a.txt", "content": "other\n"}}],
        workspace_mode="isolated",
    )
    await lab.approve(other, "e")
    await lab.until_status(other, "completed")
    await deliver(lab, done)
    with pytest.raises(WorkspaceConflict) as refused:
        await lab.engine.deliver(other, PERSON)
    assert refused.value.details["paths"] == ["a.txt"]


async def test_a_discarded_copy_leaves_the_result_deliverable_and_nothing_to_undo(lab: Lab, done: RunId) -> None:
    assert await lab.engine.delivery.discard(done)
    assert not copy_of(lab, done).exists()
    assert not await lab.engine.delivery.discard(done)
    run = await lab.stack.queries.run(done)
    assert run.private_copy is not None
    assert run.private_copy.discarded_at is not None
    with pytest.raises(Conflict) as refused:
        await lab.engine.undo(done, PERSON)
    assert refused.value.reason_code == "copy_discarded"
    await deliver(lab, done)
    assert files(lab.workspace) == AFTER


async def test_only_the_copy_of_a_run_that_has_ended_is_discarded(lab: Lab) -> None:
    fill(lab.workspace)
    run_id = await start(lab)
    await lab.until_step(run_id, "edit", "awaiting_approval")
    with pytest.raises(Conflict) as refused:
        await lab.engine.delivery.discard(run_id)
    assert refused.value.reason_code == "run_not_ended"
    assert copy_of(lab, run_id).exists()


async def test_a_folder_outside_the_root_of_now_is_not_written(lab: Lab, done: RunId, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    lab.engine.places.root = elsewhere
    with pytest.raises(PathRefused):
        await lab.engine.deliver(done, PERSON)


async def test_many_runs_of_several_folders_are_delivered_at_the_same_time(open_lab: OpenLab) -> None:
    lab = await open_lab()
    folders = [lab.workspace.parent / name for name in ("one", "two", "three")]
    runs = []
    for folder in folders:
        folder.mkdir()
        fill(folder)
        runs.append(await lab.create(PLAN, workspace=folder, workspace_mode="isolated"))
    await asyncio.gather(*(finish(lab, run_id) for run_id in runs))
    deliveries = await asyncio.gather(*(deliver(lab, run_id) for run_id in runs))
    for folder in folders:
        assert files(folder) == AFTER
    for run_id in (*runs, *deliveries):
        await lab.verify(run_id)


async def test_where_another_person_must_approve_it_is_not_who_asked_for_the_changes(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    four_eyes = rule("ask", approvals={"exclude_requester": True}, executor="deliver")
    lab = await open_lab(policy=policy_file(tmp_path, four_eyes))
    fill(lab.workspace)
    run_id = await start(lab)
    await finish(lab, run_id)
    bob, eve = Actor("bob", "person", "api"), Actor("eve", "person", "api")
    state, step_id = await lab.engine.deliver(run_id, bob)
    made = state.info.id
    shown = await asked(lab, made, step_id)
    assert (shown["requester"], shown["also_asked_by"]) == ("bob", PERSON.id)
    question = (await lab.until_step(made, "deliver", "awaiting_approval")).approval
    assert question is not None
    for who in (PERSON, bob):
        with pytest.raises(Forbidden):
            await lab.engine.approve(made, step_id, who, action_hash=question.action_hash)
    assert files(lab.workspace) == BEFORE
    await lab.engine.approve(made, step_id, eve, action_hash=question.action_hash)
    await lab.until_status(made, "completed")
    assert files(lab.workspace) == AFTER
    await lab.verify(made)
