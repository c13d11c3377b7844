"""The way of a step through its gate: what would happen is found out, hashed, and put before a person."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stepgate.domain import canonical
from stepgate.domain.commands import Ask, Prepare
from stepgate.domain.errors import Conflict
from stepgate.domain.state import StepState
from stepgate.domain.states import StepStatus
from stepgate.engine import actions
from stepgate.executors.base import Executor, Prepared
from stepgate.executors.preview import without_preview
from stepgate.storage.attachments import Attachments
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


def is_as_approved(
    driver: "Driver",
    step: StepState,
    executor: Executor[Any],
    prepared: Prepared,
    resolved: Mapping[str, Any],
    rev: str,
) -> str | None:
    """The approved hash where the action is still exactly the approved one."""
    approval = step.approval
    if approval is None or not step.authorised:
        return None
    state = driver.handle.state
    hash_ = actions.action_hash(state, step, len(step.approvals), executor, prepared, resolved, rev)
    return hash_ if hash_ == approval.action_hash else None


async def ask(
    driver: "Driver",
    step: StepState,
    executor: Executor[Any],
    prepared: Prepared,
    resolved: Mapping[str, Any],
    rev: str,
) -> None:
    """A new revision of the question, for this action; an approval of an earlier one is void."""
    state, actor = driver.handle.state, driver.tools.actor
    hash_ = actions.action_hash(state, step, len(step.approvals) + 1, executor, prepared, resolved, rev)
    shown = canonical.dumps(actions.rendering(state, step, prepared, rev)).decode()
    approval = actions.question(state, step, prepared, hash_, shown, driver.tools.clock.now())
    await driver.submit([Ask(actor, step.id, approval)], Attachments(renderings={approval.request_id: shown}))
