"""Rules are asked before anything starts and again before anything is applied, whatever a plan or a person said."""

from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.errors import InvalidPolicy
from stepgate.domain.state import POLICY, Actor, ApprovalStatus
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, statuses, step_of
from tests.worker.rules import policy_file, rule

TOUCH = {"key": "c", "type": "run_command", "input": {"argv": ["touch", "made"]}}


def edit(path: str = "docs/a.txt", **more: Any) -> dict[str, Any]:
    return {"key": "e", "type": "edit_file", "input": {"path": path, "content": "new\n"}, **more}


def shell(text: str, key: str = "c", **more: Any) -> dict[str, Any]:
    return {"key": key, "type": "run_command", "input": {"command": text}, **more}


async def test_what_a_rule_allows_runs_without_a_question_and_is_recorded_with_the_rule(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    allow = rule("allow", "touch", executor="run_command", argv=["touch", "made"])
    lab = await open_lab(policy=policy_file(tmp_path, allow))
    run_id = await lab.create([TOUCH])
    state = await lab.until_status(run_id, "completed")
    assert (lab.workspace / "made").exists()
    approval = step_of(state, "c").approval
    assert approval is not None
    assert (approval.decided_by, approval.matched_rules) == (POLICY, ("touch",))
    assert len(approval.policy_version) == 64
    view = await lab.stack.queries.step(run_id, step_of(state, "c").id)
    assert view.approval is not None
    assert view.approval.matched_rules == ["touch"]
    assert view.approval.decision is not None
    assert view.approval.decision.actor.kind == "system"
    assert await lab.events(run_id, "c") == [
        "approval.requested",
        "approval.approved",
        "step.started",
        "step.computed",
        "step.completed",
    ]
    await lab.verify(run_id)


async def test_an_edit_that_a_rule_allows_is_applied(open_lab: OpenLab, tmp_path: Path) -> None:
    lab = await open_lab(policy=policy_file(tmp_path, rule("allow", paths=["docs/**"])))
    (lab.workspace / "docs").mkdir()
    run_id = await lab.create([edit(), {**edit("other.txt"), "key": "f"}])
    await lab.until_step(run_id, "f", "awaiting_approval")
    assert (lab.workspace / "docs/a.txt").read_text() == "new\n"
    assert not (lab.workspace / "other.txt").exists()


async def test_what_a_rule_denies_fails_before_it_starts_and_names_the_rule(open_lab: OpenLab, tmp_path: Path) -> None:
    deny = rule("deny", "no-touch", argv=["touch"], rest="any")
    lab = await open_lab(policy=policy_file(tmp_path, deny, rule("allow", "all", executor="run_command")))
    run_id = await lab.create([{**TOUCH, "input": {"argv": ["env", "touch", "made"]}}])
    state = await lab.until_status(run_id, "failed")
    error = step_of(state, "c").error
    assert error is not None
    assert error["code"] == "denied"
    assert "no-touch" in error["message"]
    assert list(lab.workspace.iterdir()) == []
    assert await lab.events(run_id, "c") == ["step.failed"]
    await lab.verify(run_id)


async def test_a_rule_reaches_steps_that_are_otherwise_never_asked_about(open_lab: OpenLab, tmp_path: Path) -> None:
    rules = [rule("deny", "keys", paths=["keys/**"]), rule("ask", "conf", executor="read_file", paths=["*.conf"])]
    lab = await open_lab(policy=policy_file(tmp_path, *rules))
    (lab.workspace / "keys").mkdir()
    for name in ("keys/id", "a.conf", "b.txt"):
        (lab.workspace / name).write_text("x")
    run_id = await lab.create(
        [
            {"key": "b", "type": "read_file", "input": {"path": "b.txt"}},
            {"key": "a", "type": "read_file", "input": {"path": "a.conf"}},
            {"key": "k", "type": "read_file", "input": {"path": "keys/id"}, "on_error": "continue"},
        ]
    )
    await lab.approve(run_id, "a")
    state = await lab.until_status(run_id, "completed")
    assert statuses(state) == {"b": "completed", "a": "completed", "k": "failed"}
    assert await lab.output(run_id, "k") is None
    await lab.verify(run_id)


async def test_a_plan_that_wants_a_person_is_not_loosened_by_a_rule(open_lab: OpenLab, tmp_path: Path) -> None:
    lab = await open_lab(policy=policy_file(tmp_path, rule("allow", executor=["run_command", "read_file"])))
    (lab.workspace / "a").write_text("x")
    run_id = await lab.create(
        [
            {**TOUCH, "gate": "ask", "needs": []},
            {"key": "r", "type": "read_file", "input": {"path": "a"}, "gate": "ask", "needs": []},
        ]
    )
    state = await lab.until(run_id, lambda state: len(state.asking) == 2)
    assert {step_of(state, key).approval.matched_rules for key in "cr"} == {("gate:ask",)}  # type: ignore[union-attr]


async def test_an_approval_does_not_outlive_a_newer_policy_that_denies(open_lab: OpenLab, tmp_path: Path) -> None:
    old = await open_lab(policy=policy_file(tmp_path))
    run_id = await old.create([TOUCH])
    asked = await old.until_step(run_id, "c", "awaiting_approval")
    await old.worker.stop()
    assert asked.approval is not None
    await old.engine.approve(run_id, asked.id, PERSON, action_hash=asked.approval.action_hash)
    new = await open_lab(
        policy=policy_file(tmp_path, rule("deny", "late", argv=["touch"], rest="any"), name="new.json")
    )
    state = await new.until_status(run_id, "failed")
    assert step_of(state, "c").reason == "denied"
    assert list(new.workspace.iterdir()) == []
    await new.verify(run_id)


async def test_what_a_rule_allowed_is_asked_once_a_newer_policy_asks(open_lab: OpenLab, tmp_path: Path) -> None:
    old = await open_lab(policy=policy_file(tmp_path, rule("allow", executor="run_command")))
    run_id = await old.create([shell("sleep 600")])
    await old.until_step(run_id, "c", "running")
    await old.worker.stop()
    assert (await old.step(run_id, "c")).status == "approved"
    new = await open_lab(policy=policy_file(tmp_path, rule("ask", "now", executor="run_command"), name="new.json"))
    asked = await new.until_step(run_id, "c", "awaiting_approval")
    assert asked.approval is not None
    assert asked.approval.matched_rules == ("now",)


async def test_a_person_s_approval_outlives_a_newer_policy_that_asks_as_before(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    old = await open_lab(policy=policy_file(tmp_path))
    run_id = await old.create([TOUCH])
    asked = await old.until_step(run_id, "c", "awaiting_approval")
    await old.worker.stop()
    assert asked.approval is not None
    await old.engine.approve(run_id, asked.id, PERSON, action_hash=asked.approval.action_hash)
    new = await open_lab(policy=policy_file(tmp_path, rule("ask", "now", executor="run_command"), name="new.json"))
    state = await new.until_status(run_id, "completed")
    assert len(step_of(state, "c").approvals) == 1


async def test_the_shorter_time_to_decide_counts(open_lab: OpenLab, tmp_path: Path) -> None:
    asking = rule("ask", "soon", {"expires": "10m"}, executor="run_command")
    lab = await open_lab(policy=policy_file(tmp_path, asking))
    for limit, expected in (("1h", 600), ("5m", 300)):
        run_id = await lab.create([TOUCH], limits={"approval_timeout": limit})
        approval = (await lab.until_step(run_id, "c", "awaiting_approval")).approval
        assert approval is not None
        assert approval.expires_at is not None
        assert abs(approval.expires_at - approval.requested_at - expected * 1_000_000) < 1_000_000


# What is found only once it is computed


async def parked(lab: Lab, run_id: Any) -> Any:
    """The step as it asks about what it computed."""
    step = await lab.until_step(run_id, "c", "awaiting_approval")
    view = await lab.stack.queries.step(run_id, step.id)
    assert view.approval is not None
    assert view.approval.rendering is not None
    return view.approval.rendering


async def test_a_change_that_a_rule_asks_about_is_parked_and_then_applied_as_it_is(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    rules = [rule("allow", "commands", executor="run_command"), rule("ask", "gone", deletes_over=0)]
    lab = await open_lab(policy=policy_file(tmp_path, *rules))
    (lab.workspace / "old").write_text("x\n")
    run_id = await lab.create([shell("rm old; date +%N > stamp; cat stamp")])
    shown = await parked(lab, run_id)
    assert {entry["path"]: entry["op"] for entry in shown["files"]} == {"old": "delete", "stamp": "create"}
    assert shown["policy"]["rules"] == ["gone"]
    assert (lab.workspace / "old").exists()
    await lab.until_idle()
    await lab.approve(run_id, "c")
    state = await lab.until_status(run_id, "completed")
    assert not (lab.workspace / "old").exists()
    assert (lab.workspace / "stamp").read_text() == shown["preview"]["stdout"]
    types = await lab.events(run_id, "c")
    assert (types.count("step.started"), types.count("step.computed"), types.count("step.completed")) == (1, 1, 1)
    assert [one.status for one in step_of(state, "c").approvals] == [ApprovalStatus.SUPERSEDED, ApprovalStatus.APPROVED]
    assert step_of(state, "c").attempt == 1
    await lab.verify(run_id)


async def test_a_parked_change_that_is_rejected_leaves_nothing(open_lab: OpenLab, tmp_path: Path) -> None:
    rules = [rule("allow", "commands", executor="run_command"), rule("ask", "many", files_over=1)]
    lab = await open_lab(policy=policy_file(tmp_path, *rules))
    run_id = await lab.create([shell("touch a b")])
    await lab.reject(run_id, "c", "skip")
    await lab.until_status(run_id, "completed")
    assert list(lab.workspace.iterdir()) == []
    small = await lab.create([shell("touch a")])
    await lab.until_status(small, "completed")
    assert (lab.workspace / "a").exists()


async def test_a_person_who_approved_the_command_is_still_asked_about_its_change(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    lab = await open_lab(policy=policy_file(tmp_path, rule("ask", "keys", touches=["keys/**"])))
    run_id = await lab.create([shell("mkdir keys; touch keys/a; echo line >> log")])
    first = await lab.approve(run_id, "c")
    await lab.until(run_id, lambda state: len(step_of(state, "c").approvals) == 2)
    second = await lab.approve(run_id, "c")
    assert first.approval is not None
    assert second.approval is not None
    assert (first.approval.matched_rules, second.approval.matched_rules) == (("default:run_command",), ("keys",))
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "log").read_text() == "line\n"
    await lab.verify(run_id)


async def test_a_change_that_a_rule_denies_is_discarded(open_lab: OpenLab, tmp_path: Path) -> None:
    rules = [rule("allow", "commands", executor="run_command"), rule("deny", "keys", touches=["keys/**"])]
    lab = await open_lab(policy=policy_file(tmp_path, *rules))
    run_id = await lab.create([shell("mkdir keys; touch keys/a other")])
    state = await lab.until_status(run_id, "failed")
    error = step_of(state, "c").error
    assert error is not None
    assert (error["code"], "keys" in error["message"]) == ("denied", True)
    assert list(lab.workspace.iterdir()) == []
    await lab.verify(run_id)


async def test_a_parked_change_over_a_file_that_changed_meanwhile_is_made_again(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    rules = [rule("allow", "commands", executor="run_command"), rule("ask", "gone", deletes_over=0)]
    lab = await open_lab(policy=policy_file(tmp_path, *rules))
    (lab.workspace / "old").write_text("x\n")
    (lab.workspace / "log").write_text("")
    run_id = await lab.create([shell("cat old >> log; rm old")])
    shown = await parked(lab, run_id)
    assert "+x" in shown["diff"]
    (lab.workspace / "old").write_text("mine\n")
    await lab.approve(run_id, "c")
    await lab.until(run_id, lambda state: len(step_of(state, "c").approvals) > 2 and bool(state.asking))
    assert (lab.workspace / "old").read_text() == "mine\n"
    shown = await parked(lab, run_id)
    assert "+mine" in shown["diff"]
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "log").read_text() == "mine\n"
    await lab.verify(run_id)


# The file


@pytest.mark.parametrize("worker", [True])
async def test_a_bad_file_refuses_start_up_with_the_field(open_lab: OpenLab, tmp_path: Path, worker: bool) -> None:
    path = policy_file(tmp_path, rule("maybe"))
    with pytest.raises(InvalidPolicy) as caught:
        await open_lab(policy=path, worker=worker)
    assert [problem.field for problem in caught.value.problems] == [f"{path}: rules[0].verdict"]


async def test_a_file_where_a_workspace_can_be_is_refused(open_lab: OpenLab, tmp_path: Path) -> None:
    inside = tmp_path / "spaces" / "project"
    inside.mkdir(parents=True)
    (tmp_path / "link.json").symlink_to(policy_file(inside))
    for path in (inside / "policy.json", tmp_path / "link.json"):
        with pytest.raises(InvalidPolicy) as caught:
            await open_lab(policy=path)
        assert caught.value.field == "STEPGATE_POLICY"


async def test_a_file_that_is_set_must_be_there_and_the_one_of_the_state_folder_may(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        await open_lab(policy=tmp_path / "none.yaml")
    assert caught.value.field == "STEPGATE_POLICY"
    named = tmp_path / "state" / "stepgate.policy.yaml"
    named.symlink_to("none.yaml")
    with pytest.raises(InvalidPolicy, match="cannot be read"):
        await open_lab()
    named.unlink()
    policy_file(tmp_path / "state", rule("deny", "all", executor="run_command"), name="stepgate.policy.yaml")
    lab = await open_lab()
    run_id = await lab.create([TOUCH])
    assert step_of(await lab.until_status(run_id, "failed"), "c").reason == "denied"


async def test_what_a_requester_may_nobody_else_does_in_their_run(open_lab: OpenLab, tmp_path: Path) -> None:
    rules = [
        rule("allow", "trusted", executor="run_command", argv=["touch", "made"], requester=PERSON.id),
        rule("deny", "watched", executor="edit_file", requester="eve"),
    ]
    lab = await open_lab(policy=policy_file(tmp_path, *rules))
    eve = Actor("eve", "agent", "api")
    run_id = await lab.create([{"key": "look", "type": "noop", "input": {}}], start=False)
    await lab.engine.add_steps(run_id, [{**TOUCH, "needs": []}], eve)
    await lab.engine.add_steps(run_id, [edit(needs=[], on_error="continue")], eve)
    await lab.engine.start(run_id, PERSON)
    asked = await lab.until_step(run_id, "c", "awaiting_approval")
    denied = await lab.until_step(run_id, "e", "failed")
    assert asked.approval is not None
    assert asked.approval.matched_rules == ("default:run_command",)
    assert denied.error is not None
    assert denied.error["code"] == "denied"
    assert not (lab.workspace / "made").exists()
