"""What a plan is told beforehand is what policy says when its steps are due."""

from typing import Any

import pytest

from stepgate.domain.errors import InvalidPlan, InvalidValue
from stepgate.domain.policy.decide import BUILTIN, Policy
from stepgate.domain.policy.reading import policy_of
from stepgate.engine.explaining import Imagined, explain
from stepgate.engine.views import Explanation
from stepgate.executors.registry import Registry

STEPS = [
    {"key": "r", "type": "read_file", "input": {"path": "a.txt"}},
    {"key": "c", "type": "run_command", "input": {"argv": ["git", "status"]}},
    {"key": "s", "type": "run_command", "input": {"command": "git status | cat"}},
    {"key": "x", "type": "run_command", "input": {"argv": ["cat", "${{ steps.r.output.text }}"]}},
    {"key": "e", "type": "edit_file", "input": {"path": "keys/id", "content": ""}},
]


def rules(*given: dict[str, Any]) -> Policy:
    return policy_of({"version": 1, "rules": list(given)})


def explained(policy: Policy, steps: Any = STEPS, **more: Any) -> Explanation:
    imagined = Imagined(steps=steps, sandbox_level="bwrap-full", requester="ada", now=0, **more)
    return explain(policy, Registry(), imagined)


def verdicts(found: Explanation) -> dict[str, str]:
    return {step.key: step.verdict.value for step in found.steps}


def test_without_rules_each_type_has_its_own_gate() -> None:
    found = explained(BUILTIN)
    assert verdicts(found) == {"r": "allow", "c": "ask", "s": "ask", "x": "ask", "e": "ask"}
    assert (found.allowed, found.asked, found.denied, found.policy_version) == (1, 4, 0, "builtin-1")
    assert [step.rules for step in found.steps][:2] == [["default:read_file"], ["default:run_command"]]


def test_every_step_names_the_rule_it_stands_on() -> None:
    policy = rules(
        {"name": "git", "match": {"argv": ["git", "status"]}, "verdict": "allow"},
        {"name": "keys", "match": {"paths": ["keys/**"]}, "verdict": "deny"},
        {
            "name": "ahead",
            "match": {"executor": "run_command", "labels": {"team": "core"}, "sandbox_level": "bwrap-full"},
            "verdict": "ask",
            "approvals": {"preview": True, "expires": "5m"},
        },
    )
    found = explained(policy)
    assert verdicts(found) == {"r": "allow", "c": "allow", "s": "ask", "x": "ask", "e": "deny"}
    by_key = {step.key: step for step in found.steps}
    assert (by_key["c"].rules, by_key["e"].rules) == (["git"], ["keys"])
    assert by_key["s"].unclear == "it is text for a shell"
    labelled = {step.key: step for step in explained(policy, labels={"team": "core"}).steps}
    assert (labelled["c"].verdict.value, labelled["c"].preview, labelled["c"].expires_s) == ("ask", True, 300)


def test_what_is_not_known_yet_is_told_with_the_rule() -> None:
    policy = rules(
        {"name": "cat", "match": {"argv": ["cat", "secret"]}, "verdict": "deny"},
        {"name": "many", "match": {"files_over": 3}, "verdict": "ask"},
    )
    found = {step.key: step for step in explained(policy).steps}
    assert found["x"].verdict.value == "ask"
    assert {(one.rule, one.verdict.value) for one in found["x"].open_rules} == {("cat", "deny"), ("many", "ask")}
    assert "references" in next(one.why for one in found["x"].open_rules if one.rule == "cat")
    assert [one.rule for one in found["c"].open_rules] == ["many"]
    assert found["r"].open_rules == [], "what changes nothing has no change to be asked about"


def test_a_plan_that_insists_and_one_with_secrets_are_asked() -> None:
    steps = [
        {"key": "a", "type": "read_file", "input": {"path": "a"}, "gate": "ask"},
        {"key": "b", "type": "run_command", "input": {"argv": ["ls"], "secrets": ["TOKEN"]}},
    ]
    found = explained(rules({"name": "all", "match": {}, "verdict": "allow"}), steps)
    assert [(step.verdict.value, step.rules) for step in found.steps] == [("ask", ["gate:ask"]), ("ask", ["gate:ask"])]


def test_a_plan_is_checked_before_it_is_explained() -> None:
    with pytest.raises(InvalidPlan):
        explained(BUILTIN, [{"type": "no_such"}])
    with pytest.raises(InvalidValue):
        explain(BUILTIN, Registry(), Imagined(now=0))
    with pytest.raises(InvalidValue):
        explain(BUILTIN, Registry(), Imagined(plan={}, steps=[], now=0))
    plan = {"goal": "g", "params": {"p": {}}, "steps": [{"type": "read_file", "input": {"path": "${{ params.p }}"}}]}
    found = explain(BUILTIN, Registry(), Imagined(plan=plan, params={"p": "a.txt"}, now=0))
    assert verdicts(found) == {"step-1": "allow"}
