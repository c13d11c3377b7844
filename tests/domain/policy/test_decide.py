"""`deny > ask > allow`, whatever the order of the rules."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain.errors import InvalidPolicy
from stepgate.domain.policy.action import Action, Change, Reach, Ruling
from stepgate.domain.policy.decide import ALWAYS, BUILTIN
from stepgate.domain.quorum import ANYBODY, Quorum
from tests.domain.policy.rules import (
    command,
    decide_policy,
    edit,
    gate,
    open_rules,
    policy,
    review_change,
    rule,
    verdict,
)

PATHS = ["src/a.py", "docs/b.md", "secrets/key", "src/deep/c.py"]

LABELS: list[dict[str, str]] = [{"team": "core"}, {"env": "prod"}, {"team": "core", "env": "prod"}]

labels = st.sampled_from([{}, *LABELS])
matches = st.fixed_dictionaries(
    {},
    optional={
        "executor": st.sampled_from(["run_command", "edit_file", "read_file"]),
        "paths": st.sampled_from([["**"], ["src/**"], ["secrets/*", "*.md"], ["docs/*"]]),
        "labels": st.sampled_from(LABELS),
        "requester": st.sampled_from(["ada", "bob"]),
        "touches": st.sampled_from([["**"], ["src/**"], ["secrets/*", "docs/**"]]),
        "sandbox_level": st.sampled_from(["bwrap-full", "unsafe-none"]),
        "argv": st.sampled_from([["git"], ["git", "status"], ["env"], ["sh"]]),
        "executable": st.sampled_from(["/usr/bin/git", "/usr/bin/env"]),
    },
)
approvals = st.fixed_dictionaries(
    {},
    optional={
        "preview": st.booleans(),
        "expires": st.sampled_from([5, 60]),
        "count": st.integers(1, 3),
        "roles": st.sampled_from(["admin", ["approver", "operator"]]),
        "exclude_requester": st.booleans(),
        "on_expiry": st.sampled_from(["reject", "pause"]),
    },
)


@st.composite
def rule_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for index in range(draw(st.integers(0, 6))):
        said = draw(st.sampled_from(["allow", "ask", "deny"]))
        more = {"approvals": draw(approvals)} if said == "ask" else {}
        found.append({"name": f"r{index}", "match": draw(matches), "verdict": said, **more})
    return found


@st.composite
def actions(draw: st.DrawFn) -> Action:
    kind = draw(st.sampled_from(["run_command", "edit_file", "read_file"]))
    path = draw(st.sampled_from(PATHS))
    reach, change = Reach(paths=(path,), complete=True), None
    if kind == "run_command":
        words = draw(st.sampled_from([("git",), ("git", "status"), ("env", "git"), ("sh", "-c", "git status")]))
        found = draw(st.sampled_from([f"/usr/bin/{words[0]}", None]))
        level = draw(st.sampled_from(["bwrap-full", None]))
        reach = Reach(paths=(path,), argv=words, executable=found, resolved=True, sandbox_level=level)
    if draw(st.booleans()):
        change = Change(tuple(path for path in PATHS if draw(st.booleans())))
    return Action(
        kind,
        draw(st.sampled_from([Ruling.ALLOW, Ruling.ASK])),
        insists=draw(st.booleans()),
        reach=reach,
        change=change,
        labels=draw(labels),
        requester=draw(st.sampled_from(["ada", "bob"])),
        known=draw(st.booleans()),
    )


@given(rule_lists(), actions(), st.randoms(use_true_random=False))
def test_the_order_of_rules_changes_nothing(rules: list[dict[str, Any]], action: Action, random: Any) -> None:
    shuffled = random.sample(rules, len(rules))
    first, second = decide_policy(policy(*rules), action), decide_policy(policy(*shuffled), action)
    assert replace(first, version="") == replace(second, version="")
    one, two = review_change(policy(*rules), action), review_change(policy(*shuffled), action)
    assert replace(one, version="") == replace(two, version="")


@given(rule_lists(), actions())
def test_a_rule_that_denies_is_never_beaten(rules: list[dict[str, Any]], action: Action) -> None:
    for one in rules:
        alone = decide_policy(policy(one), action)
        if one["verdict"] == "deny" and alone.denied:
            assert decide_policy(policy(*rules), action).gate is Ruling.DENY


@given(rule_lists(), actions(), rule_lists())
def test_adding_rules_that_ask_or_deny_never_loosens(
    rules: list[dict[str, Any]], action: Action, more: list[dict[str, Any]]
) -> None:
    stricter = [{**one, "name": f"m-{one['name']}"} for one in more if one["verdict"] != "allow"]
    alone, together = decide_policy(policy(*rules), action), decide_policy(policy(*rules, *stricter), action)
    assert together.gate.strictness >= alone.gate.strictness
    changed, both = review_change(policy(*rules), action), review_change(policy(*rules, *stricter), action)
    assert both.gate.strictness >= changed.gate.strictness


@given(rule_lists(), actions())
def test_a_plan_that_insists_is_asked_or_denied_and_never_looser_than_without(
    rules: list[dict[str, Any]], action: Action
) -> None:
    firm = decide_policy(policy(*rules), replace(action, insists=True))
    loose = decide_policy(policy(*rules), replace(action, insists=False))
    assert firm.gate is not Ruling.ALLOW
    assert firm.gate.strictness >= loose.gate.strictness


@given(rule_lists(), actions())
def test_no_words_allow_what_is_not_understood(rules: list[dict[str, Any]], action: Action) -> None:
    """A command behind a wrapper, or whose program nobody found, is allowed only by a rule that is not about words."""
    words = action.reach.argv
    unclear = words is not None and (words[0] in ("env", "sh") or words == ("git",) or action.reach.executable is None)
    allowing = [one for one in rules if not one["match"].keys() & {"argv", "executable"}]
    action = replace(action, default=Ruling.ASK)
    if unclear and decide_policy(policy(*rules), action).gate is Ruling.ALLOW:
        assert decide_policy(policy(*allowing), action).gate is Ruling.ALLOW


@given(rule_lists(), actions())
def test_a_verdict_names_the_rules_it_stands_on(rules: list[dict[str, Any]], action: Action) -> None:
    found = decide_policy(policy(*rules), action)
    assert found.version == policy(*rules).version
    assert found.rules
    by_name = {one["name"]: one for one in rules}
    for name in found.rules:
        if name in by_name:
            assert Ruling(by_name[name]["verdict"]).strictness >= found.gate.strictness
        else:
            assert name in (ALWAYS, f"default:{action.executor}")


@given(rule_lists(), actions())
def test_an_earlier_run_needs_a_rule_that_says_so_and_none_that_says_no(
    rules: list[dict[str, Any]], action: Action
) -> None:
    found = decide_policy(policy(*rules), action)
    if found.preview:
        assert found.gate is Ruling.ASK
        said = [one.get("approvals", {}).get("preview") for one in rules if one["name"] in found.rules]
        assert True in said
        assert False not in said


def test_without_rules_the_executor_s_own_gate_holds() -> None:
    found = decide_policy(BUILTIN, command("ls"))
    assert (found.gate, found.rules, found.version) == (Ruling.ASK, ("default:run_command",), "builtin-1")
    assert decide_policy(BUILTIN, Action("read_file", Ruling.ALLOW)).gate is Ruling.ALLOW


def test_the_strictest_of_three_wins() -> None:
    allow, ask = rule("allow", "a", paths=["**"]), rule("ask", "b", paths=["src/**"])
    deny = rule("deny", "c", paths=["**/secret*"])
    assert gate(edit("docs/x"), allow, ask, deny) == "allow"
    assert gate(edit("src/x"), allow, ask, deny) == "ask"
    assert gate(edit("src/secret"), allow, ask, deny) == "deny"
    assert verdict(edit("src/secret"), allow, ask, deny).rules == ("c",)


def test_every_field_given_must_fit() -> None:
    both = rule("allow", executor="edit_file", paths=["docs/**"], labels={"team": "docs"}, requester="ada")
    fits = edit("docs/a", labels={"team": "docs", "more": "x"}, requester="ada")
    assert gate(fits, both) == "allow"
    assert gate(replace(fits, requester="bob"), both) == "ask"
    assert gate(replace(fits, others=("bob",)), both) == "ask"
    assert gate(replace(fits, others=("bob",)), both, rule("deny", "no", requester="bob")) == "deny"
    assert gate(replace(fits, labels={"team": "core"}), both) == "ask"
    assert gate(edit("src/a", labels=fits.labels, requester="ada"), both) == "ask"


def test_a_rule_that_allows_paths_must_know_all_of_them() -> None:
    allow = rule("allow", paths=["docs/**"])
    assert gate(command("cat", "docs/a", paths=("docs/a",)), allow) == "ask"
    assert gate(command("cat", "docs/a", paths=("docs/a",)), rule("deny", paths=["docs/**"])) == "deny"


def test_a_change_is_asked_about_when_it_is_known() -> None:
    rules = policy(
        rule("ask", "many", files_over=2),
        rule("deny", "keys", touches=["secrets/**"]),
        rule("ask", "gone", deletes_over=0),
    )
    before = command("ls", default=Ruling.ALLOW)
    assert decide_policy(rules, before).gate is Ruling.ALLOW
    assert {one.rule for one in open_rules(rules, before)} == {"many", "keys", "gone"}

    def review(*paths: str, deleted: int = 0) -> tuple[str, tuple[str, ...]]:
        found = review_change(rules, replace(before, change=Change(paths, deleted)))
        return found.gate.value, found.rules

    assert review("a", "b") == ("allow", ())
    assert review("a", "b", "c") == ("ask", ("many",))
    assert review("a", deleted=1) == ("ask", ("gone",))
    assert review("a", "secrets/k", "c") == ("deny", ("keys",))


def test_a_change_is_not_asked_about_twice_by_rules_about_the_action() -> None:
    rules = policy(rule("ask", "commands", executor="run_command"))
    assert review_change(rules, command("ls", change=Change(("a",)))).gate is Ruling.ALLOW


def test_a_change_can_be_allowed_by_what_it_touches() -> None:
    rules = rule("allow", executor="run_command", touches=["build/**"])
    assert gate(command("ls"), rules) == "ask"
    assert gate(command("ls", change=Change(("build/a", "build/b"))), rules) == "allow"
    assert gate(command("ls", change=Change(("build/a", "src/b"))), rules) == "ask"


@pytest.mark.parametrize(
    ("wanted", "preview"), [([True], True), ([None], False), ([True, None], True), ([True, False], False)]
)
def test_an_earlier_run_is_wanted_by_one_rule_and_refused_by_any(wanted: list[bool | None], preview: bool) -> None:
    rules = [rule("ask", f"r{index}", approvals={"preview": one}) for index, one in enumerate(wanted)]
    assert verdict(command("ls"), *rules).preview is preview


def test_the_shortest_time_to_decide_counts() -> None:
    rules = [rule("ask", f"r{time}", approvals={"expires": time}) for time in (60, 5, 30)]
    assert verdict(command("ls"), *rules).expires_ms == 5000


def test_a_rule_whose_facts_nobody_knows_asks_and_has_nothing_run() -> None:
    action = replace(command("ls", default=Ruling.ALLOW), known=False)
    assert gate(action, rule("deny", argv=["curl"])) == "ask"
    assert gate(action, rule("allow", argv=["ls"])) == "allow"
    found = verdict(action, rule("ask", argv=["curl"], approvals={"preview": True}))
    assert (found.gate, found.preview) == (Ruling.ASK, False)


def test_of_several_rules_that_ask_the_strictest_word_about_approvers_counts() -> None:
    rules = [
        rule("ask", "two", {"count": 2, "roles": ["approver", "admin"], "on_expiry": "pause"}),
        rule("ask", "other", {"roles": "admin", "exclude_requester": True, "expires": "5m", "on_expiry": "pause"}),
        rule("ask", "silent"),
        rule("allow", "free"),
    ]
    found = verdict(command("ls"), *rules)
    assert found.required == Quorum(2, (("admin",),), exclude_requester=True)
    assert (found.expires_ms, found.on_expiry) == (300_000, "pause")
    strict = verdict(command("ls"), *rules, rule("ask", "strict", {"on_expiry": "reject"}))
    assert strict.on_expiry == "reject"


def test_what_no_rule_says_is_one_approval_by_whoever_may_decide() -> None:
    for found in (decide_policy(BUILTIN, command("ls")), verdict(command("ls"), rule("ask"))):
        assert (found.required, found.on_expiry) == (ANYBODY, "reject")


def test_a_rule_in_doubt_asks_for_as_many_as_one_that_fits() -> None:
    action = replace(command("ls"), known=False)
    assert verdict(action, rule("ask", argv=["curl"], approvals={"count": 3})).required.persons == 3


@pytest.mark.parametrize(
    "approvals",
    [
        {"count": 0},
        {"count": 21},
        {"count": "2"},
        {"roles": []},
        {"roles": ["viewer"]},
        {"roles": ["king"]},
        {"on_expiry": "allow"},
        {"exclude_requester": "yes"},
    ],
)
def test_words_about_approvers_that_make_no_sense_are_refused_by_field(approvals: dict[str, Any]) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        policy(rule("ask", approvals=approvals))
    assert caught.value.problems[0].field.startswith(f"rules[0].approvals.{next(iter(approvals))}")


def test_a_rule_that_may_allow_once_the_program_is_found_is_told_and_not_yet_counted() -> None:
    rules = policy(rule("allow", "listing", argv=["ls"], executable="/usr/bin/ls"))
    unknown = Action("run_command", Ruling.ASK, reach=Reach(argv=("ls",)))
    assert decide_policy(rules, unknown).rules == ("default:run_command",)
    assert [(one.rule, one.verdict) for one in open_rules(rules, unknown)] == [("listing", Ruling.ALLOW)]
    assert open_rules(rules, replace(unknown, reach=Reach(argv=("ls",), resolved=True))) == ()
    assert open_rules(rules, replace(unknown, reach=Reach(argv=("cat",)))) == ()
