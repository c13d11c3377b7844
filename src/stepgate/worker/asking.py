"""The way of a step through its gate: what would happen is found out, hashed, and put before a person."""

import asyncio
from typing import TYPE_CHECKING, Any

from stepgate.domain import canonical
from stepgate.domain.commands import Ask, Grant, Prepare
from stepgate.domain.errors import Conflict
from stepgate.domain.policy.decide import Verdict
from stepgate.domain.state import Approval, StepState
from stepgate.domain.states import StepStatus
from stepgate.engine import actions
from stepgate.executors.base import Executor, Prepared
from stepgate.executors.preview import without_preview
from stepgate.storage.attachments import Attachments
from stepgate.worker.proposal import Proposal
from stepgate.worker.waits import time_limit

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver


async def prepare(driver: "Driver", step: StepState, executor: Executor[Any], params: Any) -> Prepared:
    """The action as it would be now; where its time is over, the gate asks without a preview."""
    if step.status in (StepStatus.PENDING, StepStatus.PREPARING) and executor.prepares_long(params):
        await driver.submit([Prepare(driver.tools.actor, step.id)])
    limit = time_limit(driver, step)
    clock = asyncio.timeout(limit)
    try:
        async with clock:
            prepared: Prepared = await executor.prepare(driver.context(step), params)
            return prepared
    except TimeoutError:
        if not clock.expired():
            raise
    late = Conflict(f"it took longer than its {limit:g} s", code="timeout")
    return without_preview(f"{executor.type} {step.spec.key}", params, late)


def is_as_approved(driver: "Driver", proposal: Proposal) -> str | None:
    """The approved hash where the action is still exactly the approved one."""
    step = proposal.step
    approval = step.approval
    if approval is None or not step.authorised:
        return None
    hash_ = _hash(driver, proposal, len(step.approvals))
    return hash_ if hash_ == approval.action_hash else None


async def ask(driver: "Driver", proposal: Proposal, verdict: Verdict, reason: str = "interrupted") -> None:
    """A new revision of the question, for this action; an approval of an earlier one is void."""
    approval, attachments = _question(driver, proposal, verdict)
    await driver.submit([Ask(driver.tools.actor, proposal.step.id, approval, reason)], attachments)


async def grant(driver: "Driver", proposal: Proposal, verdict: Verdict) -> None:
    """The same, answered at once: a rule allows it."""
    approval, attachments = _question(driver, proposal, verdict)
    await driver.submit([Grant(driver.tools.actor, proposal.step.id, approval)], attachments)


def _question(driver: "Driver", proposal: Proposal, verdict: Verdict) -> tuple[Approval, Attachments]:
    state, step, prepared = driver.handle.state, proposal.step, proposal.prepared
    hash_ = _hash(driver, proposal, len(step.approvals) + 1)
    shown = canonical.dumps(actions.rendering(state, step, prepared, proposal.rev, verdict)).decode()
    approval = actions.question(state, step, prepared, hash_, shown, driver.tools.clock.now(), verdict)
    return approval, Attachments(renderings={approval.request_id: shown})


def _hash(driver: "Driver", proposal: Proposal, revision: int) -> str:
    state, resolved = driver.handle.state, proposal.resolved
    return actions.action_hash(
        state, proposal.step, revision, proposal.executor, proposal.prepared, resolved, proposal.rev
    )
