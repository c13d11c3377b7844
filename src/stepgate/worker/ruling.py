"""Asks policy about a step's action, with the facts that the engine has of it."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stepgate.domain import forking
from stepgate.domain.identity import in_rules
from stepgate.domain.policy.action import Action, Change, Reach, Ruling, Spent
from stepgate.domain.policy.decide import Verdict, decide_policy, review_change
from stepgate.domain.quorum import is_met, of_editor, strictest
from stepgate.domain.state import POLICY, RunState, StepState
from stepgate.executors.base import Executor, Failed
from stepgate.worker.proposal import Proposal

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver
    from stepgate.worker.tools import Tools


def foresee(driver: "Driver", step: StepState, executor: Executor[Any], params: Any) -> Verdict:
    """The verdict on what the input names, before anything is found out about it."""
    action = _action(driver, step, executor, params, executor.reach(params), None)
    return decide_policy(driver.tools.policy, action, driver.tools.clock.now())


def rule(driver: "Driver", proposal: Proposal) -> Verdict:
    """The verdict on the action as it would be now; one that could not be prepared is never simply allowed."""
    executor, params, prepared = proposal.executor, proposal.params, proposal.prepared
    reach = prepared.reach or executor.reach(params)
    action = _action(driver, proposal.step, executor, params, reach, prepared.change)
    verdict = decide_policy(driver.tools.policy, action, driver.tools.clock.now())
    if verdict.gate is Ruling.ALLOW and prepared.failure is not None:
        return Verdict(Ruling.ASK, verdict.rules, verdict.version)
    return verdict


def review(
    driver: "Driver",
    step: StepState,
    executor: Executor[Any],
    params: Any,
    proposal: Proposal | None,
    change: Change,
) -> Verdict:
    """The verdict on what an action computed, before it is applied."""
    reach = (None if proposal is None else proposal.prepared.reach) or executor.reach(params)
    action = _action(driver, step, executor, params, reach, change)
    found = review_change(driver.tools.policy, action, driver.tools.clock.now())
    if found.gate is not Ruling.ASK:
        return found
    # Whoever had to approve the action has to approve what it came to.
    before = decide_policy(driver.tools.policy, action, driver.tools.clock.now())
    return replace(found, required=strictest((found.required, before.required)))


def outlives(driver: "Driver", step: StepState, verdict: Verdict) -> bool:
    """Whether an approval that was given still counts where a person must be asked.

    What only a rule allowed does not, nor what fewer or other persons approved than it takes now.
    """
    approval = step.approval
    if approval is None or verdict.gate is not Ruling.ASK:
        return approval is not None
    requesters, editor, given = driver.handle.state.requesters(step), step.editor, approval.approvers
    if editor is not None and any(of_editor(verdict.required, one, editor.id) for one in given):
        return False
    return approval.decided_by != POLICY and is_met(verdict.required, given, requesters)


def of_today(
    tools: "Tools", state: RunState, step: StepState, executor: Executor[Any], params: Any, reach: Reach
) -> Verdict:
    """The verdict on a step that ended, were it to begin now."""
    action = _described(state, step, executor, params, reach, None)
    return decide_policy(tools.policy, action, tools.clock.now())


def denied(verdict: Verdict) -> Failed:
    """The end of a step that no person can approve."""
    named = ", ".join(verdict.rules)
    return Failed("denied", f"denied by policy: {named} (version {verdict.version[:12]})")


def _action(
    driver: "Driver", step: StepState, executor: Executor[Any], params: Any, reach: Reach, change: Change | None
) -> Action:
    return _described(driver.handle.state, step, executor, params, reach, change)


def _described(
    state: RunState, step: StepState, executor: Executor[Any], params: Any, reach: Reach, change: Change | None
) -> Action:
    spec, info = step.spec, state.info
    usage, (requester, *others) = forking.paid_with(state), state.authors(step)
    return Action(
        executor=spec.type,
        default=Ruling(spec.gate.value),
        insists=spec.insists or executor.always_asks(params),
        reach=reach,
        change=change,
        labels=info.labels,
        requester=in_rules(info.tenant, requester),
        others=tuple(in_rules(info.tenant, one) for one in others),
        spent=Spent(usage.cost_usd, usage.unknown),
    )
