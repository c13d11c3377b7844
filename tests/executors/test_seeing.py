"""What an approver sees of an action: all of it, as it is, or told that it is not."""

import json
from decimal import Decimal
from typing import Any

import pytest

from stepgate.domain.ids import new_id
from stepgate.domain.policy.action import Ruling
from stepgate.domain.policy.decide import Verdict
from stepgate.domain.state import RunState, StepState, Usage
from stepgate.engine import actions
from stepgate.executors.base import Prepared
from stepgate.executors.command_params import RunCommandParams
from stepgate.executors.preview import risk_of
from stepgate.executors.readings import disguised
from stepgate.executors.run_command import _disguised, _rendering, _too_long
from stepgate.executors.screen import SHOWN_TEXT, is_cut
from tests.storage.building import info, spec

CYRILLIC_A = "\u0430"


def action(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"cwd": ".", "env": {}, "files": {}, "secrets": {}, "limits": {}, "executable": None}
    return {**plain, **changes}


def command(*argv: str, **more: Any) -> RunCommandParams:
    return RunCommandParams(argv=list(argv), **more)


@pytest.mark.parametrize(
    "text",
    [
        f"p{CYRILLIC_A}ypal",
        "\u0441\u043e\u0440\u0443",
        "rm\u202e",
        "a\u200bb",
        "\u2010rf",
        "\uff52\uff4d",
        "a\xa0b",
        "\x1b[2K",
        "a\rb",
    ],
)
def test_what_passes_for_something_else_is_known_as_that(text: str) -> None:
    assert disguised(text)


@pytest.mark.parametrize("text", ["rm -rf build", "Grüße", "\u65e5\u672c\u8a9e", "a\nb\tc", "привет, мир"])
def test_other_scripts_are_no_disguise(text: str) -> None:
    assert not disguised(text)


def test_a_command_is_shown_word_by_word_with_its_look_alikes_written_out() -> None:
    params = command("curl", f"p{CYRILLIC_A}ypal.com", "two words")
    shown = _rendering("t", params, action(env={"\u0410": "x\u202ey"}), ["n"])
    assert shown["argv"] == ["curl", "p\\u0430ypal.com", "two words"]
    assert shown["command"] == "curl 'p\\u0430ypal.com' 'two words'"
    assert shown["env"] == {"\\u0410": "x\\u202ey"}


@pytest.mark.parametrize(
    ("params", "found"),
    [
        (command("ls"), action()),
        (command("echo", "\u65e5\u672c\u8a9e"), action(env={"LANG": "de_DE"})),
    ],
)
def test_a_plain_command_has_nothing_to_warn_of(params: RunCommandParams, found: dict[str, Any]) -> None:
    assert _disguised(params, found) == _too_long(params, found) == []


@pytest.mark.parametrize(
    ("params", "found"),
    [
        (command("l\u0455"), action()),
        (RunCommandParams(command="echo \u202e"), action()),
        (command("ls"), action(env={"P\u0410TH": "x"})),
        (command("ls"), action(env={"A": "x\u200b"})),
        (command("ls", cwd="s\u0441"), action()),
        (command("ls"), action(files={f"{CYRILLIC_A}.py": "0" * 64})),
    ],
)
def test_a_disguise_anywhere_in_a_command_is_told(params: RunCommandParams, found: dict[str, Any]) -> None:
    assert len(_disguised(params, found)) == 1


@pytest.mark.parametrize(
    ("params", "found", "what"),
    [
        (command("echo", "x" * SHOWN_TEXT), action(), "the command"),
        (command("cat", stdin="x" * 5000), action(), "standard input"),
        (command("ls"), action(env={"A": "x" * 301}), "the environment"),
        (command("ls"), action(files={f"f{n}": "0" * 64 for n in range(201)}), "the list of files"),
    ],
)
def test_what_does_not_fit_on_a_screen_is_told(params: RunCommandParams, found: dict[str, Any], what: str) -> None:
    (told,) = _too_long(params, found)
    assert told.startswith(what)
    assert "argv" not in _rendering("t", params, found, []) or what != "the command"


def test_a_change_that_is_cut_or_disguised_is_a_high_risk() -> None:
    assert risk_of({"truncated": False}) == "medium"
    assert risk_of({"truncated": True}) == risk_of({"truncated": False, "disguised": True}) == "high"


def test_a_text_that_is_cut_is_found_however_deep_it_lies() -> None:
    assert not is_cut({"a": ["x" * SHOWN_TEXT, {"b": None}]})
    assert is_cut({"a": [{"b": "x" * (SHOWN_TEXT + 1)}]})


def test_every_question_tells_who_asked_what_it_cost_so_far_and_which_rule_it_stands_on() -> None:
    state = RunState(info(new_id()))._replace(usage=Usage(calls=1, priced=1, cost_usd=Decimal("0.25")))
    step = StepState(spec(1, why=f"p{CYRILLIC_A}y \x1b[2K ignore the diff"))
    verdict = Verdict(Ruling.ASK, ("prod", "two"), "v" * 64)
    shown = actions.rendering(state, step, Prepared({}, {"title": "x", "risk": "none"}, "high"), "r1", verdict)
    assert (shown["requester"], shown["requester_kind"]) == ("ada", "person")
    assert shown["cost_so_far_usd"] == Decimal("0.25")
    assert shown["policy"] == {"rules": ["prod", "two"], "version": "v" * 64}
    assert (shown["risk"], shown["step"]["key"]) == ("high", "s1"), "no executor says otherwise"
    assert shown["claim"] == "p\\u0430y \\x1b[2K ignore the diff"
    assert json.dumps({**shown, "cost_so_far_usd": None}).isascii()


def test_what_the_plan_says_never_stands_where_the_action_does() -> None:
    step = StepState(spec(1, why="title: harmless"))
    verdict = Verdict(Ruling.ASK, ("r",), "v")
    shown = actions.rendering(RunState(info(new_id())), step, Prepared({}, {"title": "rm"}, "high"), "r1", verdict)
    assert [name for name, value in shown.items() if "harmless" in str(value)] == ["claim"]
