"""The rule that would let an action pass: exactly that, never more, and never against a rule that asks or denies."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgate.domain.errors import Conflict
from stepgate.domain.policy.action import Action, Reach, Ruling, Spent
from stepgate.domain.policy.always import Proposed, propose
from tests.domain.policy.rules import NOW, command, decide_policy, edit, policy, rule
from tests.domain.policy.test_decide import rule_lists

EMPTY: dict[str, Any] = {"version": 1, "rules": []}
HOUR = 3_600_000_000


def ls(*argv: str, **more: Any) -> Action:
    action = command(*(argv or ("ls", "-la", "docs")), requester="ada", **more)
    return replace(action, reach=replace(action.reach, cwd="."))


def proposed(action: Action, *rules: dict[str, Any], anyone: bool = False) -> Proposed:
    document = {**EMPTY, "rules": list(rules)}
    return propose(document, action, now=NOW, until=NOW + HOUR, anyone=anyone, why="asked for", workspace="/workspace")


def refused(action: Action, *rules: dict[str, Any]) -> str:
    with pytest.raises(Conflict) as caught:
        proposed(action, *rules)
    assert caught.value.reason_code == "cannot_allow"
    return caught.value.message


def test_the_rule_is_of_exactly_this_command_by_this_requester() -> None:
    found = proposed(ls())
    assert found.rule["match"] == {
        "executor": ["run_command"],
        "argv": ["ls", "-la", "docs"],
        "executable": ["/usr/bin/ls"],
        "cwd": ["."],
        "sandbox_level": ["bwrap-full"],
        "requester": ["ada"],
    }
    assert found.rule["verdict"] == "allow"
    allowed = found.policy
    assert decide_policy(allowed, ls(), NOW).gate is Ruling.ALLOW
    assert decide_policy(allowed, ls(), NOW + HOUR).gate is Ruling.ASK
    other = ls()
    for changed in (
        ls("ls", "-la"),
        ls("ls", "-la", "docs", "x"),
        ls("ls", "-la", "./docs"),
        replace(other, requester="bob"),
        replace(other, reach=replace(other.reach, cwd="src")),
        replace(other, reach=replace(other.reach, executable="/usr/local/bin/ls")),
        replace(other, reach=replace(other.reach, sandbox_level="unsafe-none")),
        replace(other, reach=replace(other.reach, env=("LD_PRELOAD",))),
        replace(other, reach=replace(other.reach, planned_env=("HOME",))),
        replace(other, reach=replace(other.reach, stdin=True)),
    ):
        assert decide_policy(allowed, changed, NOW).gate is Ruling.ASK
    anybody = proposed(ls(), anyone=True).policy
    assert decide_policy(anybody, replace(other, requester="bob"), NOW).gate is Ruling.ALLOW


@pytest.mark.parametrize("path", ["docs/a.md", "docs/[x]*?.md", "a b/ü.md"])
def test_the_rule_of_a_path_fits_that_path_alone(path: str) -> None:
    found = proposed(edit(path, requester="ada"))
    assert decide_policy(found.policy, edit(path, requester="ada"), NOW).gate is Ruling.ALLOW
    for other in (f"{path}x", path.replace("a", "b"), path.replace("*", "y"), "docs/xyz.md"):
        if other != path:
            assert decide_policy(found.policy, edit(other, requester="ada"), NOW).gate is Ruling.ASK


@pytest.mark.parametrize(
    "action",
    [
        ls("env", "ls"),
        ls("sh", "-c", "ls"),
        ls("xargs", "ls"),
        ls("git", "-c", "alias.x=!id", "x"),
        ls("python3", "tool.py"),
        ls("node", "tool.js"),
        ls("make"),
        ls("./run", executable="/workspace/run"),
        ls("ls", executable=None),
        ls("ls", env=("HOME",)),
        ls("cat", stdin=True),
        command(text="ls", requester="ada"),
        ls("ls", insists=True),
        ls("ls", others=("bob",)),
        Action("undo", Ruling.ASK, reach=Reach()),
        Action("read_file", Ruling.ASK, reach=Reach(paths=("a",), complete=True), known=False),
    ],
    ids=lambda action: str(action.reach.argv or action.reach.shell or action.executor),
)
def test_what_no_matcher_understands_is_never_allowed_for_good(action: Action) -> None:
    refused(action)


@pytest.mark.parametrize(
    "standing",
    [
        rule("deny", "no", argv=["ls"], rest="any"),
        rule("ask", "look", executor="run_command"),
        rule("ask", "dear", cost_over="0"),
    ],
    ids=lambda standing: str(standing["name"]),
)
def test_it_beats_no_rule_that_asks_or_denies(standing: dict[str, Any]) -> None:
    message = refused(ls(spent=Spent(Decimal(1))), standing)
    assert standing["name"] in message


def test_the_same_rule_again_takes_the_place_of_the_earlier_one_and_of_no_other() -> None:
    allowed = proposed(ls())
    assert len(proposed(ls(), *allowed.document["rules"]).document["rules"]) == 1
    impostor = {**rule("deny", argv=["rm"]), "name": allowed.rule["name"]}
    assert "two rules are named" in refused(ls(), impostor)


def told(action: Action) -> tuple[Any, ...]:
    """All that the rule may tell actions apart by."""
    reach = action.reach
    if not reach.is_command:
        return (action.executor, reach.paths, action.requester)
    return (action.executor, reach.argv, reach.executable, reach.sandbox_level, reach.cwd, action.requester)


@st.composite
def plain_actions(draw: st.DrawFn) -> Action:
    """Actions that differ in one thing or another, most of which a rule can be made of."""
    kind = draw(st.sampled_from(["run_command", "edit_file", "read_file"]))
    reach = Reach(paths=(draw(st.sampled_from(["a", "b", "[a]"])),), complete=True)
    if kind == "run_command":
        argv = draw(st.sampled_from([("ls",), ("ls", "a"), ("ls", "b"), ("cat", "a")]))
        reach = Reach(
            argv=argv,
            executable=draw(st.sampled_from(["/usr/bin/ls", "/usr/bin/cat"])),
            resolved=True,
            sandbox_level=draw(st.sampled_from(["bwrap-full", "bwrap-noproc"])),
            cwd=draw(st.sampled_from([".", "a"])),
        )
    return Action(kind, Ruling.ASK, reach=reach, requester=draw(st.sampled_from(["ada", "bob"])))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Action, Action]:
    """Two actions that mostly differ in one thing."""
    one, other = draw(plain_actions()), draw(plain_actions())
    if draw(st.sampled_from([True, True, False])):
        name = draw(st.sampled_from(["argv", "executable", "sandbox_level", "cwd", "paths"]))
        if one.reach.is_command == other.reach.is_command:
            fields: dict[str, Any] = {name: getattr(other.reach, name)}
            other = replace(one, reach=replace(one.reach, **fields))
    return one, other


few_rules = rule_lists().map(lambda rules: rules[:1])


@settings(max_examples=250)
@given(few_rules, pairs())
def test_it_changes_nothing_for_any_other_action_and_for_its_own_only_what_nobody_ruled_on(
    rules: list[dict[str, Any]], pair: tuple[Action, Action]
) -> None:
    action, other = pair
    try:
        found = proposed(action, *rules)
    except Conflict:
        return
    for one in (action, other):
        before, after = decide_policy(policy(*rules), one, NOW), decide_policy(found.policy, one, NOW)
        if before.gate is not after.gate:
            assert (before.gate, after.gate) == (Ruling.ASK, Ruling.ALLOW)
            assert before.rules == (f"default:{one.executor}",)
            assert told(one) == told(action)
