"""From a policy file to rules that count: its form, its names and its own examples all hold, or none of it does."""

import re
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import ValidationError

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidPlan, InvalidPolicy, InvalidValue, Problem
from stepgate.domain.limits import MAX_PROBLEMS
from stepgate.domain.plan_faults import model_problems, nearest
from stepgate.domain.plan_text import parse_plan_text
from stepgate.domain.policy.action import Action, Change, Reach, Ruling, Spent
from stepgate.domain.policy.decide import Policy
from stepgate.domain.policy.matching import Asked, Fit, fit
from stepgate.domain.policy.model import Example, PolicyDocument, Rule

_WORD = re.compile(r"rules\[\d+\]\.match\.argv\[\d+\]")


def read_policy(text: str | bytes, source: str, step_types: Collection[str] | None = None) -> Policy:
    """The policy in a YAML or JSON file that `source` names; raises InvalidPolicy as `policy_of` does, or by line."""
    try:
        raw = parse_plan_text(text, source)
    except InvalidPlan as error:
        raise InvalidPolicy(
            error.message.replace("a plan is a mapping", "a policy is a mapping"),
            fix="write version: 1 and rules: [...]" if error.fix and "goal" in error.fix else error.fix,
            field=source,
            details=error.details,
        ) from error
    return policy_of(raw, step_types)


def policy_of(raw: Any, step_types: Collection[str] | None = None) -> Policy:
    """The policy in a document of plain values; raises InvalidPolicy whose `problems` name each field at fault.

    `step_types` are those installed: a rule about any other would never match, and nobody would notice.
    """
    try:
        canonical.check(raw, "policy")
        document = PolicyDocument.model_validate(raw)
    except InvalidValue as error:
        raise _refused([Problem((error.field or "").removeprefix("policy."), error.message, error.fix)]) from error
    except ValidationError as error:
        raise _refused(_problems(error)) from error
    faults = [*_doubled(document), *_unknown_types(document, step_types), *_failing(document)]
    if faults:
        raise _refused(faults)
    text = canonical.dumps(document.model_dump(mode="json", exclude_defaults=True))
    return Policy(tuple(document.rules), canonical.digest(text), text.decode())


def _problems(error: ValidationError) -> list[Problem]:
    """One problem a field; a word that is none of the three kinds of word has one for each kind."""
    found: dict[str, Problem] = {}
    for problem in model_problems(error, PolicyDocument, ""):
        word = _WORD.match(problem.field)
        if word is not None and word[0] != problem.field:
            problem = Problem(word[0], "must be text, {one_of: [...]} or {glob: ...}")
        found.setdefault(problem.field, problem)
    return list(found.values())


def _refused(problems: list[Problem]) -> InvalidPolicy:
    first, more = problems[0], len(problems) - 1
    message = f"{first.field}: {first.message}" if first.field else first.message
    if more:
        message += f" (and {more} more problem{'s' if more > 1 else ''})"
    return InvalidPolicy(message, problems=tuple(problems[:MAX_PROBLEMS]))


def _doubled(document: PolicyDocument) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, rule in enumerate(document.rules):
        if rule.name in seen:
            yield Problem(f"rules[{index}].name", f"two rules are named {rule.name}", "rename one of them")
        seen.add(rule.name)


def _unknown_types(document: PolicyDocument, step_types: Collection[str] | None) -> Iterator[Problem]:
    if step_types is None:
        return
    for index, rule in enumerate(document.rules):
        for place, name in enumerate(rule.match.executor or ()):
            if name not in step_types:
                field = f"rules[{index}].match.executor[{place}]"
                yield Problem(field, f"there is no step type {name!r}", nearest(name, step_types))


def _failing(document: PolicyDocument) -> Iterator[Problem]:
    """Examples that the rule they stand at does not treat as they say."""
    for index, rule in enumerate(document.rules):
        for place, example in enumerate(rule.examples.match):
            if not _fits(rule, example):
                field = f"rules[{index}].examples.match[{place}]"
                yield Problem(field, f"the rule {rule.name} does not match this example", _why(rule, example))
        for place, example in enumerate(rule.examples.not_match):
            if _fits(rule, example):
                field = f"rules[{index}].examples.not_match[{place}]"
                fix = "narrow the rule or mend the example"
                yield Problem(field, f"the rule {rule.name} matches this example", fix)


def _fits(rule: Rule, example: Example) -> bool:
    """What an example leaves open counts against a rule that allows, and for one that asks or denies."""
    how = fit(rule, Asked(action_of(example)))
    return how is Fit.YES or (how is Fit.MAYBE and rule.verdict is not Ruling.ALLOW)


def _why(rule: Rule, example: Example) -> str:
    unclear = Asked(action_of(example)).unworded
    if rule.verdict is Ruling.ALLOW and rule.match.about_words and unclear is not None:
        return f"no rule about words allows it: {unclear}"
    return "widen the rule or mend the example"


def action_of(example: Example) -> Action:
    """The action that an example describes."""
    change = None
    if example.touches is not None or example.deletes is not None:
        deleted = example.deletes or []
        change = Change(tuple(sorted({*(example.touches or []), *deleted})), len(deleted))
    reach = Reach(
        paths=() if example.path is None else (example.path,),
        complete=example.path is not None,
        argv=None if example.argv is None else tuple(example.argv),
        shell=example.command,
        env=tuple(example.env),
        planned_env=tuple(example.env),
        stdin=example.stdin,
        cwd=example.cwd,
        executable=example.executable,
        resolved=example.executable is not None,
        sandbox_level=example.sandbox_level,
    )
    return Action(
        executor=example.executor,
        default=Ruling.ASK,
        reach=reach,
        change=change,
        labels=example.labels,
        requester=example.requester,
        spent=None if example.cost_usd is None else Spent(example.cost_usd),
    )
