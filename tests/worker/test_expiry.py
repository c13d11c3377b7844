"""Questions that nobody answers in time."""

from pathlib import Path

import pytest

from stepgate.domain.errors import Expired
from stepgate.domain.state import ApprovalStatus
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, step_of
from tests.worker.rules import policy_file, rule


async def test_an_unanswered_question_expires_by_itself_and_counts_as_rejected(lab: Lab) -> None:
    edit = {"key": "e", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}
    run_id = await lab.create([edit], limits={"approval_timeout": "1s"})
    state = await lab.until_status(run_id, "cancelled")
    step = step_of(state, "e")
    assert (step.status, step.reason, state.reason) == ("rejected", "expired", "rejected")
    assert step.approval is not None
    assert step.approval.status is ApprovalStatus.EXPIRED
    with pytest.raises(Expired):
        await lab.engine.approve(run_id, step.id, PERSON, action_hash=step.approval.action_hash)
    assert not (lab.workspace / "a.txt").exists()
    assert (await lab.events(run_id, "e")).count("approval.reminded") in (1, 2)
    await lab.verify(run_id)


async def test_a_run_whose_question_expired_is_paused_where_a_rule_says_so_and_asks_anew_when_resumed(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    asking = rule("ask", "soon", {"expires": "1s", "on_expiry": "pause"}, executor="edit_file")
    lab = await open_lab(policy=policy_file(tmp_path, asking))
    run_id = await lab.create([{"key": "e", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}])
    state = await lab.until_status(run_id, "paused")
    assert (state.reason, step_of(state, "e").status) == ("approval_expired", "awaiting_approval")
    view = await lab.stack.queries.step(run_id, step_of(state, "e").id)
    assert view.approval is not None
    assert (view.approval.status, view.approval.on_expiry) == ("expired", "pause")
    await lab.worker.stop()
    lab = await open_lab(policy=policy_file(tmp_path, rule("ask", "patient"), name="patient.json"))
    await lab.engine.resume(run_id, PERSON)
    await lab.approve(run_id, "e")
    state = await lab.until_status(run_id, "completed")
    assert [one.status for one in step_of(state, "e").approvals] == [ApprovalStatus.EXPIRED, ApprovalStatus.APPROVED]
    await lab.verify(run_id)
