"""What a person approved is what happens, once; what they refused never does."""

import hashlib
from typing import Any

import pytest

from stepgate.domain.errors import AlreadyDecided, StaleApproval
from stepgate.domain.state import ApprovalStatus
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, reading, statuses, step_of

APPEND = {"key": "c", "type": "run_command", "input": {"argv": ["sh", "-c", "echo line >> log.txt"]}}


def edit(key: str = "e", path: str = "a.txt", content: str = "new\n", **more: Any) -> dict[str, Any]:
    return {"key": key, "type": "edit_file", "input": {"path": path, "content": content}, **more}


async def test_an_approved_command_has_its_effect_exactly_once(lab: Lab) -> None:
    run_id = await lab.create([APPEND])
    asked = await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "log.txt").read_text() == "line\n"
    assert asked.approval is not None
    await lab.engine.approve(run_id, asked.id, PERSON, action_hash=asked.approval.action_hash)
    await lab.until_idle()
    assert (lab.workspace / "log.txt").read_text() == "line\n"
    types = await lab.events(run_id, "c")
    assert types == ["approval.requested", "approval.approved", "step.started", "step.computed", "step.completed"]
    await lab.verify(run_id)


async def test_nothing_happens_before_the_approval(lab: Lab) -> None:
    (lab.workspace / "a.txt").write_text("old\n")
    run_id = await lab.create([edit(needs=[]), {**APPEND, "needs": []}])
    await lab.until(run_id, lambda state: len(state.asking) == 2)
    await lab.until_idle()
    assert {path.name: path.read_text() for path in lab.workspace.iterdir()} == {"a.txt": "old\n"}
    assert await lab.events(run_id, "c") == ["approval.requested"]


async def test_the_applied_edit_is_the_diff_that_was_shown(lab: Lab) -> None:
    (lab.workspace / "a.txt").write_text("one\ntwo\n")
    run_id = await lab.create([edit(content="one\nTWO\n")])
    asked = await lab.approve(run_id, "e")
    await lab.until_status(run_id, "completed")
    view = await lab.stack.queries.step(run_id, asked.id)
    assert view.approval is not None
    assert view.approval.rendering is not None
    shown, output = view.approval.rendering, await lab.output(run_id, "e")
    assert "-two\n+TWO\n" in shown["diff"]
    assert shown["diff"] == output["diff"]
    digest = hashlib.sha256(b"one\nTWO\n").hexdigest()
    assert [entry["after"] for entry in shown["files"]] == [digest]
    assert (lab.workspace / "a.txt").read_text() == "one\nTWO\n"


async def test_a_resumed_run_executes_the_arguments_that_were_approved(lab: Lab) -> None:
    run_id = await lab.create(
        [
            {"key": "say", "type": "echo", "input": {"text": "approved"}},
            {
                "key": "c",
                "type": "run_command",
                "input": {"argv": ["sh", "-c", "echo ${{ steps.say.output.text }} > o"]},
            },
        ]
    )
    asked = await lab.until_step(run_id, "c", "awaiting_approval")
    await lab.engine.pause(run_id, PERSON)
    await lab.until_status(run_id, "paused")
    await lab.engine.resume(run_id, PERSON)
    approved = await lab.approve(run_id, "c")
    assert approved.approval == asked.approval
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "o").read_text() == "approved\n"


async def test_a_rejected_step_never_executes_and_ends_the_run_after_its_siblings(lab: Lab) -> None:
    run_id = await lab.create(
        [
            {**APPEND, "needs": []},
            {"key": "sibling", "type": "hold", "input": {"name": "s"}, "needs": []},
            {"key": "after", "type": "noop", "input": {}, "needs": ["c"]},
        ]
    )
    await lab.until(run_id, lambda state: bool(lab.kit.hold.inside))
    await lab.reject(run_id, "c", "abort")
    await lab.until_status(run_id, "cancelling")
    lab.kit.hold.open["s"].set()
    state = await lab.until_status(run_id, "cancelled")
    assert state.reason == "rejected"
    assert statuses(state) == {"c": "rejected", "sibling": "completed", "after": "cancelled"}
    await lab.until_idle()
    assert list(lab.workspace.iterdir()) == []
    assert "step.started" not in await lab.events(run_id, "c")
    await lab.verify(run_id)


async def test_a_rejection_that_skips_goes_on_without_the_step(lab: Lab) -> None:
    run_id = await lab.create([APPEND, {"key": "after", "type": "noop", "input": {}}])
    await lab.reject(run_id, "c", "skip")
    state = await lab.until_status(run_id, "completed")
    assert statuses(state) == {"c": "rejected", "after": "completed"}
    assert list(lab.workspace.iterdir()) == []


async def test_the_first_decision_stands(lab: Lab) -> None:
    run_id = await lab.create([APPEND])
    asked = await lab.until_step(run_id, "c", "awaiting_approval")
    assert asked.approval is not None
    await lab.engine.reject(run_id, asked.id, PERSON, action_hash=asked.approval.action_hash)
    with pytest.raises(AlreadyDecided):
        await lab.engine.approve(run_id, asked.id, PERSON, action_hash=asked.approval.action_hash)
    await lab.until_status(run_id, "cancelled")
    assert list(lab.workspace.iterdir()) == []


@pytest.mark.parametrize(
    "step",
    [
        {"type": "run_command", "input": {"argv": ["sh", "tool.sh"]}},
        {"type": "edit_file", "input": {"path": "tool.sh", "edits": [{"find": "echo", "replace": "printf"}]}},
    ],
    ids=["command", "edit"],
)
async def test_a_file_changed_between_approval_and_start_voids_the_approval(
    open_lab: OpenLab, step: dict[str, Any]
) -> None:
    lab = await open_lab()
    tool = lab.workspace / "tool.sh"
    tool.write_text("echo good > result\n")
    run_id = await lab.create([{"key": "s", **step}])
    first = await stopped_at_gate(lab, run_id, "s")
    await lab.engine.approve(run_id, first.id, PERSON, action_hash=first.approval.action_hash)
    tool.write_text("echo evil > result\n")
    again = await open_lab()
    second = await again.until_step(run_id, "s", "awaiting_approval")
    assert second.approval is not None
    assert (second.approval.revision, second.approvals[0].status) == (2, ApprovalStatus.SUPERSEDED)
    assert second.approval.action_hash != first.approval.action_hash
    assert not (lab.workspace / "result").exists()
    assert tool.read_text() == "echo evil > result\n"
    with pytest.raises(StaleApproval):
        await again.engine.approve(run_id, second.id, PERSON, action_hash=first.approval.action_hash)
    await again.approve(run_id, "s")
    await again.until_status(run_id, "completed")
    await again.verify(run_id)


async def test_a_workspace_moved_by_another_run_voids_the_approval(open_lab: OpenLab) -> None:
    lab = await open_lab()
    waiting = await lab.create([APPEND])
    first = await stopped_at_gate(lab, waiting, "c")
    lab = await open_lab()
    other = await lab.create([edit()])
    await lab.approve(other, "e")
    await lab.until_status(other, "completed")
    await lab.engine.approve(waiting, first.id, PERSON, action_hash=first.approval.action_hash)
    second = await lab.until_step(waiting, "c", "awaiting_approval")
    assert second.approval is not None
    assert second.approval.revision == 2
    assert not (lab.workspace / "log.txt").exists()
    await lab.approve(waiting, "c")
    await lab.until_status(waiting, "completed")
    assert (lab.workspace / "log.txt").read_text() == "line\n"


async def stopped_at_gate(lab: Lab, run_id: Any, key: str) -> Any:
    """The step as it asks, when its worker is gone."""
    step = await lab.until_step(run_id, key, "awaiting_approval")
    await lab.worker.stop()
    return step


async def test_what_was_approved_and_computed_is_kept_though_the_run_fails(lab: Lab) -> None:
    """An approval is consumed, the tool executed, then the run fails: the effect and the answer are not lost."""
    with reading(lab.workspace):
        run_id = await lab.create(
            [
                edit(needs=[]),
                {"key": "gate", "type": "hold", "input": {"name": "g"}, "needs": []},
                {"key": "bad", "type": "refusing", "input": {}, "needs": ["gate"]},
            ]
        )
        await lab.approve(run_id, "e")
        await lab.until_step(run_id, "e", "computed")
        lab.kit.hold.open["g"].set()
        await lab.until_status(run_id, "failing")
    state = await lab.until_status(run_id, "failed")
    assert statuses(state) == {"e": "completed", "gate": "completed", "bad": "failed"}
    assert (lab.workspace / "a.txt").read_text() == "new\n"
    assert (await lab.output(run_id, "e"))["files"][0]["path"] == "a.txt"
    await lab.verify(run_id)


async def test_an_approval_given_while_no_worker_runs_is_carried_out_by_the_next(open_lab: OpenLab) -> None:
    lab = await open_lab()
    run_id = await lab.create([APPEND])
    asked = await stopped_at_gate(lab, run_id, "c")
    await lab.engine.approve(run_id, asked.id, PERSON, action_hash=asked.approval.action_hash)
    assert not (lab.workspace / "log.txt").exists()
    await open_lab()
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "log.txt").read_text() == "line\n"


async def test_an_approval_in_another_process_wakes_the_worker_by_the_doorbell(open_lab: OpenLab) -> None:
    """The worker looks once an hour, and its lease is renewed as rarely: nothing but the ring can wake it in time."""
    working, elsewhere = await open_lab(), await open_lab(worker=False)
    run_id = await working.create([APPEND])
    await working.until_step(run_id, "c", "awaiting_approval")
    await working.until_idle()
    await elsewhere.approve(run_id, "c")
    await elsewhere.until_status(run_id, "completed")


async def test_without_the_doorbell_the_next_look_finds_the_approval(open_lab: OpenLab) -> None:
    working, elsewhere = await open_lab(worker_check_interval=0.2), await open_lab(worker=False)
    run_id = await working.create([APPEND])
    await working.until_step(run_id, "c", "awaiting_approval")
    await working.until_idle()
    await working.stack.doorbell.stop()
    await elsewhere.stack.doorbell.stop()
    await elsewhere.approve(run_id, "c")
    await elsewhere.until_status(run_id, "completed")


async def test_without_the_doorbell_the_heartbeat_tells_of_a_cancelled_run_in_hand(open_lab: OpenLab) -> None:
    working, elsewhere = await open_lab(lease_s=1.0), await open_lab(worker=False)
    run_id = await working.create([{"key": "h", "type": "hold", "input": {"name": "h"}}])
    await working.until(run_id, lambda state: bool(working.kit.hold.inside))
    await working.stack.doorbell.stop()
    await elsewhere.stack.doorbell.stop()
    await elsewhere.engine.cancel(run_id, PERSON)
    await elsewhere.until_status(run_id, "cancelled")
    assert working.kit.hold.stopped == ["h"]


async def test_an_answer_that_comes_before_anybody_waits_for_it_is_not_lost(open_lab: OpenLab) -> None:
    """Approved in the very moment the question is recorded, while the worker is still giving the run back."""
    lab = await open_lab()
    for number in range(20):
        run_id = await lab.create([edit(path=f"{number}.txt")])
        await lab.approve(run_id, "e")
        await lab.until_status(run_id, "completed")


async def test_a_plan_can_only_tighten_a_gate(lab: Lab) -> None:
    run_id = await lab.create([{"key": "r", "type": "noop", "input": {}, "gate": "ask"}])
    await lab.approve(run_id, "r")
    await lab.until_status(run_id, "completed")


async def test_execute_runs_one_step_and_its_later_approval_needs_no_second_one(lab: Lab) -> None:
    run_id = await lab.create([edit("one", "1"), edit("two", "2")], start=False)
    await lab.engine.execute(run_id, PERSON)
    await lab.approve(run_id, "one")
    await lab.until_step(run_id, "one", "completed")
    await lab.until_idle()
    assert statuses(await lab.state(run_id)) == {"one": "completed", "two": "pending"}
    await lab.engine.execute(run_id, PERSON)
    await lab.approve(run_id, "two")
    state = await lab.until_status(run_id, "completed")
    assert step_of(state, "two").granted
    assert sorted(path.name for path in lab.workspace.iterdir()) == ["1", "2"]
