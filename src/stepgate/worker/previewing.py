"""Runs an action ahead of its question, so that a person sees what it did and approves exactly that.

The run is effect-free until then: it works in a layer, and its outcome is kept by its digest. Nothing of it reaches a
later step, a model or the workspace before the approval, and nothing is run again after it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from stepgate.domain.commands import Prepare
from stepgate.domain.errors import (
    BudgetExhausted,
    Conflict,
    DatabaseUnavailable,
    LeaseLost,
    NotFound,
    StaleApproval,
    StepgateError,
    WorkspaceConflict,
)
from stepgate.domain.state import StepState
from stepgate.domain.states import StepStatus
from stepgate.executors.base import Failed, Outcome, Prepared
from stepgate.executors.outcomes import Origin, change_set_of, dump, load, with_outcome, without_outcome
from stepgate.worker.outcome import output_text
from stepgate.worker.proposal import Proposal
from stepgate.worker.waits import time_limit
from stepgate.workspace.preflight import applied_state

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver

log = structlog.get_logger(__name__)

ATTEMPTS = 3
Preview = Mapping[str, Any]


async def last_preview(driver: "Driver", step: StepState) -> Preview | None:
    """What the step's latest question said of a run ahead of it; None where it said nothing of one."""
    rendering = await driver.shown(step)
    last = None if rendering is None else rendering.get("preview")
    return last if isinstance(last, Mapping) else None


async def with_preview(driver: "Driver", proposal: Proposal, last: Preview | None, *, wanted: bool) -> Proposal:
    """The action with what came of it: found again where the `last` question showed it and it still holds, else,
    where policy wants it, found out now. Call it while no change set can be applied.

    Raises StaleApproval where a file that the action names changed meanwhile.
    """
    origin = Origin.of(proposal.prepared, proposal.rev)
    if last is not None and Origin(last.get("action", ""), last.get("rev", "")) == origin:
        prepared = await _recalled(driver, proposal, origin, last)
        if prepared is not None:
            return replace(proposal, prepared=prepared)
    if not wanted:
        return proposal
    step = driver.handle.state.steps[proposal.step.id]
    if step.status in (StepStatus.PENDING, StepStatus.PREPARING):
        await driver.submit([Prepare(driver.tools.actor, step.id)])
    found = await _run(driver, proposal)
    if isinstance(found, str):
        return replace(proposal, prepared=without_outcome(proposal.prepared, origin, found))
    return replace(proposal, prepared=await keep(driver, proposal, found))


async def keep(driver: "Driver", proposal: Proposal, outcome: Outcome) -> Prepared:
    """The action with this outcome, all of it durable before anybody can be asked about it."""
    name = await asyncio.to_thread(_store, driver, outcome)
    return await _joined(driver, proposal, Origin.of(proposal.prepared, proposal.rev), name, outcome)


def _store(driver: "Driver", outcome: Outcome) -> str:
    name = driver.tools.blobs.put(dump(outcome))
    driver.tools.blobs.sync()
    return name


async def _joined(driver: "Driver", proposal: Proposal, origin: Origin, name: str, outcome: Outcome) -> Prepared:
    seen = proposal.executor.show_outcome(outcome)
    return await asyncio.to_thread(with_outcome, proposal.prepared, outcome, origin, name, seen, driver.tools.blobs)


async def _recalled(driver: "Driver", proposal: Proposal, origin: Origin, last: Preview) -> Prepared | None:
    """The action as it was shown; None where its outcome is gone, or would not be what it was any more."""
    name = last.get("outcome")
    if name is None:
        return without_outcome(proposal.prepared, origin, str(last.get("why", "")))
    try:
        outcome = load(await asyncio.to_thread(driver.tools.blobs.get, str(name)))
    except NotFound:
        return None
    change_set = change_set_of(outcome)
    if change_set is not None:
        standing, _ = await asyncio.to_thread(applied_state, driver.root, change_set)
        if standing != "before":
            return None
    return await _joined(driver, proposal, origin, str(name), outcome)


async def _run(driver: "Driver", proposal: Proposal) -> Outcome | str:
    """What came of it, or why nobody can say."""
    context = driver.context(proposal.step, proposal.prepared)
    limit = time_limit(driver, proposal.step)
    why = ""
    for _ in range(ATTEMPTS):
        clock = asyncio.timeout(limit)
        try:
            async with clock:
                outcome: Outcome = await proposal.executor.execute(context, proposal.params)
            output_text(driver, outcome.output)
        except TimeoutError:
            if not clock.expired():
                raise
            return str(Conflict(f"it took longer than its {limit:g} s"))
        except (LeaseLost, DatabaseUnavailable, StaleApproval, BudgetExhausted):
            raise
        except StepgateError as error:
            log.info("no preview", run_id=driver.handle.run_id, step=proposal.step.spec.key, reason=str(error))
            why = str(error)
            if not isinstance(error, WorkspaceConflict):
                return why
        else:
            return outcome.message if isinstance(outcome, Failed) and not outcome.own_end else outcome
    return why
