"""The one rule that would let an action pass from now on: its exact words or its exact path, and why there is none."""

import hashlib
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepgate.domain import canonical
from stepgate.domain.errors import Conflict, InvalidPolicy
from stepgate.domain.policy import clarity
from stepgate.domain.policy.action import Action, Ruling
from stepgate.domain.policy.decide import Policy, decide_policy
from stepgate.domain.policy.globs import escaped
from stepgate.domain.policy.matching import Asked
from stepgate.domain.policy.model import rfc3339
from stepgate.domain.policy.reading import policy_of

PREFIX: Final = "always-"
_NAME_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Proposed:
    """`rule` as a policy file holds it; `scope` says in sentences what it would let pass; `document` is the policy
    with it.
    """

    rule: Mapping[str, Any]
    scope: tuple[str, ...]
    document: Mapping[str, Any]
    policy: Policy


def propose(
    document: Mapping[str, Any], action: Action, *, now: int, until: int, anyone: bool, why: str, workspace: str
) -> Proposed:
    """The rule for this action, added to the rules of `document`; of everybody's runs with `anyone`, else of this
    requester's. `now` and `until` are in microseconds, `workspace` is the folder that steps change, as
    commands see it.

    Raises Conflict `cannot_allow` where a rule could not tell such an action from another, or where it would not let
    this one pass: because another rule asks or denies, or the plan wants a person asked.
    """
    if action.insists or not action.known:
        raise _refused("the plan, or what the step is given, has it asked about every time")
    match = _command_match(action, workspace) if action.reach.is_command else _path_match(action)
    if not anyone:
        if set(action.others) - {action.requester}:
            raise _refused(f"{', '.join(action.others)} had a hand in it besides {action.requester}")
        match["requester"] = [action.requester]
    digest = hashlib.sha256(canonical.dumps(match)).hexdigest()
    name = PREFIX + digest[:_NAME_DIGITS]
    rule = {"name": name, "match": match, "verdict": "allow", "until": rfc3339(until), "why": why}
    # Only the very rule is renewed: one that somebody gave its name stays, and refuses the document.
    rules = [one for one in document["rules"] if not (one["verdict"] == "allow" and one["match"] == match)]
    added = {**document, "rules": [*rules, rule]}
    try:
        policy = policy_of(added)
    except InvalidPolicy as error:
        raise _refused(f"it cannot be written as a rule: {error.message}") from error
    verdict = decide_policy(policy, action, now)
    if verdict.gate is not Ruling.ALLOW:
        named = ", ".join(verdict.rules)
        raise _refused(f"{named} says {verdict.gate}, which no rule that allows can beat", rules=verdict.rules)
    return Proposed(rule, tuple(_scope(match, anyone=anyone)), added, policy)


def _command_match(action: Action, workspace: str) -> dict[str, Any]:
    reach = action.reach
    why = Asked(action).unworded
    if why is not None:
        raise _refused(why)
    argv: Sequence[str] = reach.argv or ()
    if not reach.resolved:
        raise _refused("nobody looked for its program")
    program = reach.executable or ""
    if f"{program}/".startswith(f"{workspace}/"):
        raise _refused("its program lies where steps can change it")
    for name in (posixpath.basename(argv[0]), posixpath.basename(program)):
        if clarity.is_interpreter(name):
            raise _refused(f"{name} runs a program that is a file, which may be another one next time")
    match: dict[str, Any] = {"executor": [action.executor], "argv": list(argv), "executable": [program]}
    if reach.cwd is not None:
        match["cwd"] = [reach.cwd]
    if reach.sandbox_level is not None:
        match["sandbox_level"] = [reach.sandbox_level]
    return match


def _path_match(action: Action) -> dict[str, Any]:
    reach = action.reach
    if not reach.complete or reach.cut or not reach.paths:
        raise _refused("nobody can tell beforehand which paths such a step reaches")
    return {"executor": [action.executor], "paths": [escaped(path) for path in reach.paths]}


def _scope(match: Mapping[str, Any], *, anyone: bool) -> list[str]:
    if "argv" in match:
        told = ["exactly these words, run by this program in this folder of any workspace, whatever the files hold"]
    else:
        told = [
            "whatever such a step does with exactly this path in any workspace, also if a model writes or it is deleted"
        ]
    who = "everybody" if anyone else match["requester"][0]
    told.append(f"in runs that {who} asks for")
    told.append("not where another rule asks or denies, nor where a plan says gate: ask")
    return told


def _refused(message: str, rules: Sequence[str] = ()) -> Conflict:
    return Conflict(
        f"no rule can allow this: {message}",
        code="cannot_allow",
        field="request_id",
        fix="approve it each time, or have an administrator write a rule",
        details={"rules": list(rules)} if rules else {},
    )
