"""Questions that nobody answers in time."""

import pytest

from stepgate.domain.errors import Expired
from stepgate.domain.state import ApprovalStatus
from tests.worker.lab import PERSON, Lab, step_of


async def test_an_unanswered_question_expires_by_itself_and_counts_as_rejected(lab: Lab) -> None:
    edit = {"key": "e", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}
    run_id = await lab.create([edit], limits={"approval_timeout": "1s"})
    asked = await lab.until_step(run_id, "e", "awaiting_approval")
    assert asked.approval is not None
    state = await lab.until_status(run_id, "cancelled")
    step = step_of(state, "e")
    assert (step.status, step.reason, state.reason) == ("rejected", "expired", "rejected")
    assert step.approval is not None
    assert step.approval.status is ApprovalStatus.EXPIRED
    with pytest.raises(Expired):
        await lab.engine.approve(run_id, step.id, PERSON, action_hash=step.approval.action_hash)
    assert not (lab.workspace / "a.txt").exists()
    await lab.verify(run_id)
