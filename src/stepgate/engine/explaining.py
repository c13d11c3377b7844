"""What policy would say of a whole plan, told before anything of it runs, by the same function that will say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stepgate.domain import references
from stepgate.domain.errors import InvalidValue
from stepgate.domain.plan import PlannedStep
from stepgate.domain.policy.action import Action, Reach, Ruling
from stepgate.domain.policy.decide import Open, Policy, decide_policy, open_rules
from stepgate.domain.policy.matching import Asked, Fit
from stepgate.domain.state import Effect, Gate
from stepgate.engine import planning, views
from stepgate.executors.registry import Registry
from stepgate.workspace.sandbox.levels import Level


@dataclass(frozen=True, slots=True)
class Imagined:
    """A run that nobody makes: one of `plan` and `steps`, as it came in; `sandbox_level` where it is known.

    `now` is the time of the database, in microseconds: some rules are over.
    """

    plan: Any = None
    steps: Any = None
    params: Mapping[str, Any] | None = None
    labels: Any = None
    requester: str = ""
    sandbox_level: str | None = None
    now: int = field(kw_only=True)


def explain(policy: Policy, registry: Registry, imagined: Imagined) -> views.Explanation:
    """The verdict on every step; raises InvalidPlan or InvalidValue naming what is wrong with the plan."""
    if (imagined.plan is None) == (imagined.steps is None):
        raise InvalidValue("send a plan or steps, and not both", field="plan", fix="name one of them")
    if imagined.plan is not None:
        planned = planning.plan_of(imagined.plan, registry, imagined.params).steps
    else:
        planned = planning.steps_of(imagined.steps, registry)
    labels = planning.check_labels(imagined.labels)
    steps = explain_steps(policy, registry, planned, labels, imagined)
    count = [step.verdict for step in steps].count
    return views.Explanation(
        policy_version=policy.version,
        sandbox_level=imagined.sandbox_level,
        allowed=count(Ruling.ALLOW),
        asked=count(Ruling.ASK),
        denied=count(Ruling.DENY),
        steps=steps,
    )


def explain_steps(
    policy: Policy, registry: Registry, planned: Sequence[PlannedStep], labels: Mapping[str, str], imagined: Imagined
) -> list[views.ExplainedStep]:
    """The verdict on each of these steps, which are valid already."""
    return [
        _explained(policy, registry, step, number, labels, imagined) for number, step in enumerate(planned, start=1)
    ]


def _explained(
    policy: Policy,
    registry: Registry,
    step: PlannedStep,
    number: int,
    labels: Mapping[str, str],
    imagined: Imagined,
) -> views.ExplainedStep:
    action = _action(registry, step, labels, imagined)
    changes = registry.get(step.type).effect is Effect.WORKSPACE
    verdict = decide_policy(policy, action, imagined.now)
    asked = verdict.gate is Ruling.ASK
    return views.ExplainedStep(
        key=step.key,
        number=number,
        step_type=step.type,
        verdict=verdict.gate,
        rules=list(verdict.rules),
        preview=verdict.preview and _previews(registry, step, imagined),
        expires_s=None if verdict.expires_ms is None else verdict.expires_ms / 1000,
        on_expiry=verdict.on_expiry if asked else None,
        required=views.Required.of(verdict.required) if asked else None,
        unclear=Asked(action).unworded,
        open_rules=[
            views.OpenRule(rule=one.rule, verdict=one.verdict, why=_why(one, action))
            for one in open_rules(policy, action, imagined.now)
            if changes or not (one.fit is Fit.LATER and one.about_change)
        ],
    )


def _action(registry: Registry, step: PlannedStep, labels: Mapping[str, str], imagined: Imagined) -> Action:
    executor = registry.get(step.type)
    known = not references.has_references(step.input)
    reach, insists = Reach(), step.gate == "ask"
    if known:
        params = executor.params.model_validate(step.input)
        reach, insists = executor.reach(params), insists or executor.always_asks(params)
    if executor.sandboxed:
        reach = replace(reach, sandbox_level=imagined.sandbox_level)
    default = Ruling.ASK if executor.gate is Gate.ASK or step.gate == "ask" else Ruling.ALLOW
    return Action(
        executor=step.type,
        default=default,
        insists=insists,
        reach=reach,
        labels=labels,
        requester=imagined.requester,
        known=known,
    )


def _previews(registry: Registry, step: PlannedStep, imagined: Imagined) -> bool:
    """Nothing runs ahead of its question where there is no sandbox to hold it."""
    executor = registry.get(step.type)
    if not executor.sandboxed or imagined.sandbox_level == Level.UNSAFE_NONE:
        return False
    if references.has_references(step.input):
        return True
    return executor.previews(executor.params.model_validate(step.input))


def _why(one: Open, action: Action) -> str:
    if one.fit is Fit.LATER and one.about_change:
        return "what it changes is known only once it is computed"
    if one.fit is Fit.LATER:
        return "what the run will have cost by then is not known"
    if not action.known:
        return "its input holds references, which are resolved when it is its turn"
    if action.reach.is_command and action.reach.sandbox_level is None:
        return "the sandbox it will run in, or the program found there, is not known here"
    return "the program is looked for when it is its turn"
