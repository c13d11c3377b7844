"""Questions that take several persons, from the policy file to the applied change."""

from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.errors import Forbidden
from stepgate.domain.quorum import Authority, Quorum
from stepgate.domain.state import Actor
from tests.worker.conftest import OpenLab
from tests.worker.lab import Lab, step_of
from tests.worker.rules import policy_file, rule

TOUCH = {"key": "c", "type": "run_command", "input": {"argv": ["touch", "made"]}}
ADMIN, APPROVER = Authority(("admin",)), Authority(("approver",))


async def approve(lab: Lab, run_id: Any, who: str, authority: Authority = APPROVER) -> None:
    step = await lab.until_step(run_id, "c", "awaiting_approval")
    assert step.approval is not None
    actor = Actor(who, "person", "api")
    await lab.engine.approve(run_id, step.id, actor, action_hash=step.approval.action_hash, authority=authority)


async def test_a_step_starts_when_as_many_persons_approved_as_its_rules_want(open_lab: OpenLab, tmp_path: Path) -> None:
    rules = [
        rule("ask", "two", {"count": 2, "exclude_requester": True}, executor="run_command"),
        rule("ask", "admins", {"roles": ["admin"], "expires": "10m", "on_expiry": "pause"}, argv=["touch"], rest="any"),
    ]
    lab = await open_lab(policy=policy_file(tmp_path, *rules))
    run_id = await lab.create([TOUCH])
    asked = await lab.until_step(run_id, "c", "awaiting_approval")
    assert asked.approval is not None
    assert asked.approval.required == Quorum(2, (("admin",),), exclude_requester=True)
    assert (asked.approval.matched_rules, asked.approval.on_expiry) == (("admins", "two"), "pause")
    for who, authority in (("ada", ADMIN), ("bob", APPROVER)):
        with pytest.raises(Forbidden):
            await approve(lab, run_id, who, authority)
    await approve(lab, run_id, "bob", ADMIN)
    await approve(lab, run_id, "bob", ADMIN)
    await lab.until_idle()
    assert not (lab.workspace / "made").exists()
    view = await lab.stack.queries.step(run_id, asked.id)
    assert view.approval is not None
    assert [one.actor.id for one in view.approval.approvals] == ["bob"]
    assert (view.approval.required.count, view.approval.decision) == (2, None)
    await approve(lab, run_id, "carol", ADMIN)
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "made").exists()
    types = await lab.events(run_id, "c")
    assert types[:3] == ["approval.requested", "approval.counted", "approval.approved"]
    await lab.verify(run_id)


async def test_an_approval_is_not_enough_any_more_once_a_newer_policy_wants_another_person(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    old = await open_lab(policy=policy_file(tmp_path))
    run_id = await old.create([TOUCH])
    await old.until_step(run_id, "c", "awaiting_approval")
    await old.worker.stop()
    await approve(old, run_id, "bob")
    both = rule("ask", "two", {"count": 2}, executor="run_command")
    new = await open_lab(policy=policy_file(tmp_path, both, name="new.json"))
    state = await new.until(run_id, lambda state: len(step_of(state, "c").approvals) == 2)
    asked = step_of(state, "c").approval
    assert asked is not None
    assert (asked.required.persons, asked.voices) == (2, ())
    await approve(new, run_id, "bob")
    await approve(new, run_id, "carol")
    await new.until_status(run_id, "completed")
    await new.verify(run_id)


async def test_whoever_must_approve_a_command_must_approve_what_it_came_to(open_lab: OpenLab, tmp_path: Path) -> None:
    rules = [
        rule("ask", "two", {"count": 2}, executor="run_command"),
        rule("ask", "gone", {"roles": ["admin"]}, files_over=0),
    ]
    lab = await open_lab(policy=policy_file(tmp_path, *rules))
    run_id = await lab.create([TOUCH])
    for who in ("bob", "carol"):
        await approve(lab, run_id, who)
    state = await lab.until(run_id, lambda state: len(step_of(state, "c").approvals) == 2)
    asked = step_of(state, "c").approval
    assert asked is not None
    assert (asked.matched_rules, asked.required) == (("gone",), Quorum(2, (("admin",),)))
    for who in ("bob", "carol"):
        await approve(lab, run_id, who, ADMIN)
    state = await lab.until_status(run_id, "completed")
    assert len(step_of(state, "c").approvals) == 2
    await lab.verify(run_id)
