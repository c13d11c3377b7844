"""A person changes the action: what was asked is void; the new one is ruled on, asked about and alone carried out."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.errors import AlreadyDecided, Conflict, InvalidPlan, StepgateError
from stepgate.domain.state import ApprovalStatus, StepState
from stepgate.engine import audit
from stepgate.storage.steps import Steps
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, statuses, step_of
from tests.worker.rules import policy_file, rule

TOUCH = {"key": "c", "type": "run_command", "input": {"argv": ["touch", "made"]}}
BOB = PERSON._replace(id="bob")


async def asked(lab: Lab, run_id: Any, key: str = "c") -> StepState:
    return await lab.until_step(run_id, key, "awaiting_approval")


async def edit(lab: Lab, run_id: Any, step: StepState, new: Any, **more: Any) -> None:
    assert step.approval is not None
    await lab.engine.edit(run_id, step.id, BOB, action_hash=step.approval.action_hash, new_input=new, **more)


async def test_the_edited_action_and_no_other_is_carried_out(lab: Lab) -> None:
    run_id = await lab.create([TOUCH, {"key": "d", "type": "run_command", "input": {"argv": ["touch", "more"]}}])
    first = await asked(lab, run_id)
    await edit(lab, run_id, first, {"argv": ["touch", "other"]}, reason="another name")
    state = await lab.until(run_id, lambda state: len(step_of(state, "c").approvals) == 2)
    second = step_of(state, "c")
    assert first.approval is not None
    assert second.approval is not None
    assert (second.approval.revision, second.approval.action_hash != first.approval.action_hash) == (2, True)
    view = await lab.stack.queries.step(run_id, second.id)
    assert view.input == {"argv": ["touch", "other"]}
    assert view.approval is not None
    assert view.approval.rendering is not None
    assert (view.approval.rendering["command"], view.approval.rendering["edited_by"]) == ("touch other", "bob")
    await lab.approve(run_id, "c")
    await asked(lab, run_id, "d")
    assert [path.name for path in lab.workspace.iterdir()] == ["other"]
    assert await lab.events(run_id, "c") == [
        "approval.requested",
        "approval.edited",
        "approval.requested",
        "approval.approved",
        "step.started",
        "step.computed",
        "step.completed",
    ]
    await lab.verify(run_id)


async def test_a_worker_that_claims_the_run_later_has_the_new_input(open_lab: OpenLab) -> None:
    old = await open_lab()
    run_id = await old.create([TOUCH])
    step = await asked(old, run_id)
    await old.worker.stop()
    await edit(old, run_id, step, {"argv": ["touch", "other"]})
    new = await open_lab()
    await new.until(run_id, lambda state: len(step_of(state, "c").approvals) == 2)
    await new.approve(run_id, "c")
    await new.until_status(run_id, "completed")
    assert [path.name for path in new.workspace.iterdir()] == ["other"]


async def test_policy_is_asked_about_what_it_was_made_into(open_lab: OpenLab, tmp_path: Path) -> None:
    allow = rule("allow", "other", argv=["touch", "other"])
    lab = await open_lab(policy=policy_file(tmp_path, allow, rule("deny", "keys", paths=["keys/**"])))
    run_id = await lab.create([TOUCH, {**TOUCH, "key": "d"}])
    await edit(lab, run_id, await asked(lab, run_id), {"argv": ["touch", "other"]})
    step = await asked(lab, run_id, "d")
    assert (lab.workspace / "other").exists()
    with pytest.raises(Conflict) as caught:
        await edit(lab, run_id, step, {"argv": ["touch", "keys/a"]})
    assert (caught.value.reason_code, caught.value.details) == ("denied", {"rules": ["keys"]})
    assert (await lab.step(run_id, "d")).approvals == step.approvals
    # What only the worker can tell is denied there.
    (lab.workspace / "keys").mkdir()
    (lab.workspace / "keys/a").touch()
    (lab.workspace / "way").symlink_to("keys/a")
    await edit(lab, run_id, step, {"argv": ["cat", "way"]})
    state = await lab.until_status(run_id, "failed")
    assert statuses(state) == {"c": "completed", "d": "failed"}
    assert step_of(state, "d").reason == "denied"
    await lab.verify(run_id)


async def test_an_edit_of_a_change_that_was_kept_is_computed_anew(open_lab: OpenLab, tmp_path: Path) -> None:
    rules = [rule("allow", "commands", executor="run_command"), rule("ask", "gone", deletes_over=0)]
    lab = await open_lab(policy=policy_file(tmp_path, *rules))
    for name in ("a", "b"):
        (lab.workspace / name).write_text("x")
    run_id = await lab.create([{**TOUCH, "input": {"argv": ["rm", "a"]}}])
    await edit(lab, run_id, await asked(lab, run_id), {"argv": ["rm", "b"]})
    state = await lab.until(run_id, lambda state: bool(state.asking) and len(step_of(state, "c").approvals) == 4)
    view = await lab.stack.queries.step(run_id, step_of(state, "c").id)
    assert view.approval is not None
    assert view.approval.rendering is not None
    assert [file["path"] for file in view.approval.rendering["files"]] == ["b"]
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    assert [path.name for path in lab.workspace.iterdir()] == ["a"]
    await lab.verify(run_id)


async def test_a_bundle_and_a_fork_have_the_edited_input(lab: Lab) -> None:
    run_id = await lab.create([TOUCH])
    await edit(lab, run_id, await asked(lab, run_id), {"argv": ["touch", "other"]})
    await lab.until(run_id, lambda state: len(step_of(state, "c").approvals) == 2)
    await lab.approve(run_id, "c")
    state = await lab.until_status(run_id, "completed")
    bundle = json.loads(await lab.stack.audits.export(run_id))
    assert audit.verify(json.dumps(bundle).encode()).verified
    assert [one["status"] for one in bundle["approvals"]] == ["edited", "approved"]
    assert bundle["steps"][0]["input_sha256"] == step_of(state, "c").spec.input_sha256
    forked = await lab.engine.fork(run_id, "c", PERSON, start=True)
    step = await asked(lab, forked.info.id)
    assert (await lab.stack.queries.step(forked.info.id, step.id)).input == {"argv": ["touch", "other"]}


FAULTY: list[tuple[Any, str]] = [
    ({"argv": []}, "input.argv"),
    ({"argv": ["ls"], "cwd": "../x"}, "input.cwd"),
    ({"argv": ["ls"], "shell": True}, "input.shell"),
    ({"argv": ["${{ steps.later.output.x }}"]}, "input.argv[0]"),
    ({"argv": ["${{ steps.c.output.x }}"]}, "input.argv[0]"),
    ({"argv": ["\ud800"]}, "input.argv[0]"),
]


async def test_an_edit_is_held_to_what_a_plan_is(lab: Lab) -> None:
    run_id = await lab.create([TOUCH, {**TOUCH, "key": "later"}])
    step = await asked(lab, run_id)
    for new, field in FAULTY:
        with pytest.raises(InvalidPlan) as caught:
            await edit(lab, run_id, step, new)
        assert [problem.field for problem in caught.value.problems] == [field]
    assert (await lab.step(run_id, "c")).approvals == step.approvals


async def test_it_may_refer_to_what_came_before(lab: Lab) -> None:
    (lab.workspace / "name").write_text("told")
    read = {"key": "r", "type": "read_file", "input": {"path": "name"}}
    run_id = await lab.create([read, TOUCH])
    await edit(lab, run_id, await asked(lab, run_id), {"argv": ["touch", "${{ steps.r.output.text }}"]})
    await lab.until(run_id, lambda state: len(step_of(state, "c").approvals) == 2)
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "told").exists()


async def test_an_undo_is_not_edited(lab: Lab) -> None:
    run_id = await lab.create([TOUCH])
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    _, step_id = await lab.engine.undo(run_id, PERSON)
    state = await lab.until(run_id, lambda state: bool(state.asking))
    with pytest.raises(Conflict) as caught:
        await edit(lab, run_id, state.steps[step_id], {"to": None})
    assert caught.value.reason_code == "cannot_edit"


@pytest.mark.parametrize("times", [0, 2])
async def test_of_an_edit_and_a_decision_at_once_one_stands(open_lab: OpenLab, times: int) -> None:
    lab, other = await open_lab(), await open_lab(worker=False)
    run_id = await lab.create([TOUCH])
    step = await asked(lab, run_id)
    await lab.worker.stop()
    assert step.approval is not None
    hash_ = step.approval.action_hash
    racing = [
        edit(lab, run_id, step, {"argv": ["touch", "other"]}),
        other.engine.approve(run_id, step.id, PERSON, action_hash=hash_),
        lab.engine.approve(run_id, step.id, PERSON._replace(id="cyd"), action_hash=hash_),
        edit(other, run_id, step, {"argv": ["touch", "third"]}),
        other.engine.reject(run_id, step.id, PERSON, action_hash=hash_),
    ]
    results = await asyncio.gather(*racing[times:], *racing[:times], return_exceptions=True)
    lost = [one for one in results if isinstance(one, StepgateError)]
    assert all(isinstance(one, AlreadyDecided) for one in lost)
    (question,) = (await lab.step(run_id, "c")).approvals
    # A second person's approval of what stands approved is the same receipt.
    assert len(results) - len(lost) == (2 if question.status is ApprovalStatus.APPROVED else 1)
    assert {one.details["verdict"] for one in lost} == {question.status.value}
    text = await Steps(lab.stack.database).input(run_id, step.id)
    assert ("made" in text) == (question.status is not ApprovalStatus.EDITED)
    await lab.verify(run_id)
