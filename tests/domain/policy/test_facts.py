"""What a rule can be about beside words and paths: time, cost so far, the folder; and doubt about each."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidPolicy
from stepgate.domain.policy.action import Action, Change, Ruling, Spent
from stepgate.domain.policy.model import rfc3339
from stepgate.domain.policy.reading import policy_of
from tests.domain.policy.rules import NOW, command, decide_policy, edit, gate, open_rules, policy, review_change, rule

UNTIL = rfc3339(NOW)


def test_a_rule_counts_until_its_time_is_over() -> None:
    allow = {**rule("allow", argv=["ls"]), "until": UNTIL}
    rules = policy(allow)
    assert decide_policy(rules, command("ls"), NOW - 1).gate is Ruling.ALLOW
    assert decide_policy(rules, command("ls"), NOW).gate is Ruling.ASK
    deny = policy({**rule("deny", touches=["a"]), "until": UNTIL})
    change = command("ls", change=Change(("a",)))
    assert review_change(deny, change, NOW - 1).gate is Ruling.DENY
    assert review_change(deny, change, NOW).gate is Ruling.ALLOW


@pytest.mark.parametrize(
    "until", ["2027-01-01", "2027-01-01T00:00:00", "0001-01-01T00:00:00+01:00", "soon", 1_800_000_000, None]
)
def test_the_end_of_a_rule_is_a_time_with_an_offset(until: Any) -> None:
    raw = {"version": 1, "rules": [{**rule("allow"), "until": until}]}
    if until is None:
        assert policy_of(raw).rules[0].until is None
        return
    with pytest.raises(InvalidPolicy) as caught:
        policy_of(raw)
    assert [problem.field for problem in caught.value.problems] == ["rules[0].until"]


def test_what_is_kept_of_a_policy_is_read_again_as_the_same() -> None:
    asking = rule("ask", "a", {"expires": "90m", "count": 2, "roles": ["admin"]}, cost_over="1.50", cwd="src")
    ending = {**rule("allow", "b", argv=["ls"]), "until": "2027-01-31T13:00:00+01:00"}
    examples = {"match": [{"executor": "run_command", "argv": ["ls"], "cwd": "src", "cost_usd": "2"}]}
    first = policy({**asking, "examples": examples}, ending)
    again = policy_of(canonical.loads(first.text))
    assert (again.version, again.rules) == (first.version, first.rules)
    assert first.rules[0].approvals is not None
    assert first.rules[0].approvals.expires == 90 * 60_000
    assert '"until":"2027-01-31T12:00:00Z"' in first.text


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        (Spent(Decimal("1.51"), 0), "deny"),
        (Spent(Decimal("1.50"), 0), "allow"),
        (Spent(Decimal("1.51"), 3), "deny"),
        (Spent(Decimal("0.10"), 1), "ask"),
        (Spent(), "allow"),
        (None, "allow"),
    ],
)
def test_cost_so_far_is_compared_exactly_and_an_unknown_one_is_never_simply_allowed(
    spent: Spent | None, expected: str
) -> None:
    rules = [rule("allow", "all", executor="read_file"), rule("deny", "dear", cost_over="1.50")]
    action = Action("read_file", Ruling.ALLOW, spent=spent)
    assert gate(action, *rules) == expected
    assert gate(action, *rules[1:]) == expected
    assert bool(open_rules(policy(*rules), action)) is (spent is None or expected == "ask")


def test_a_change_is_asked_about_where_nobody_knows_what_the_run_cost() -> None:
    rules = policy(rule("deny", "keys", touches=["keys/**"], cost_over="1"))
    for spent, expected in ((Spent(Decimal(2)), "deny"), (Spent(Decimal(0), 1), "ask"), (Spent(), "allow")):
        action = command("ls", change=Change(("keys/a",)), spent=spent)
        assert review_change(rules, action).gate.value == expected


@pytest.mark.parametrize("amount", [1.5, 1, "1,50", "-1", "1e3", "", "NaN"])
def test_an_amount_is_decimal_text(amount: Any) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        policy(rule("ask", cost_over=amount))
    assert [problem.field for problem in caught.value.problems] == ["rules[0].match.cost_over"]


def test_no_rule_allows_because_of_what_was_spent() -> None:
    with pytest.raises(InvalidPolicy) as caught:
        policy(rule("allow", cost_over="1"))
    assert "no reason to allow" in caught.value.message


def test_a_folder_is_that_of_the_command_and_a_shell_may_leave_it() -> None:
    def at(cwd: str | None, *argv: str, text: str | None = None) -> Action:
        action = command(*argv, text=text)
        return replace(action, reach=replace(action.reach, cwd=cwd))

    allow = rule("allow", argv=["ls"], cwd=["src", "."])
    assert [gate(at(cwd, "ls"), allow) for cwd in ("src", ".", "src/a", None)] == ["allow", "allow", "ask", "ask"]
    free = rule("allow", "free", executor="run_command")
    deny = rule("deny", cwd="src")
    assert [gate(at(cwd, "ls"), free, deny) for cwd in ("src", ".", None)] == ["deny", "allow", "ask"]
    assert gate(at(".", text="cd src; ls"), free, deny) == "ask"
    assert gate(edit("src/a"), deny, rule("allow", "edits", paths="**")) == "allow"
