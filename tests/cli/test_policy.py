"""Rules on the command line: checked, explained, in force, and seen where somebody is asked."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.cli.conftest import ROOT, Cli

STEPS = {
    "goal": "try it",
    "steps": [
        {"key": "c", "type": "run_command", "input": {"command": "echo said; echo line > made"}},
        {"key": "e", "type": "edit_file", "input": {"path": "keys/id", "content": "x"}, "on_error": "continue"},
    ],
}
PLAN = json.dumps(STEPS)
AHEAD = {
    "name": "ahead",
    "match": {"executor": "run_command"},
    "verdict": "ask",
    "approvals": {"preview": True},
}
KEYS = {"name": "keys", "match": {"paths": ["keys/**"]}, "verdict": "deny"}


def ruled(cli: Cli, folder: Path, *rules: dict[str, Any]) -> Cli:
    path = folder / "rules.json"
    path.write_text(json.dumps({"version": 1, "rules": list(rules)}))
    return cli.having(STEPGATE_POLICY=str(path))


def test_the_example_is_good(cli: Cli) -> None:
    told = cli("policy", "check", str(ROOT / "stepgate.policy.example.yaml"), "--json")
    assert told.code == 0, told
    assert (told.json["rules"], told.json["examples"] > 5, len(told.json["version"])) == (5, True, 64)


def test_a_fault_is_told_with_its_line_and_field(cli: Cli) -> None:
    (cli.cwd / "bad.yaml").write_text("version: 1\nrules:\n- name: a\n  match: {path: x}\n  verdict: deny\n")
    told = cli("policy", "check", "bad.yaml")
    assert told.code == 2
    assert "bad.yaml:4: rules[0].match.path: no such field" in told.err
    assert cli("policy", "check", "none.yaml").code == 2


def test_a_plan_is_explained_without_a_database(anywhere: Cli, tmp_path: Path) -> None:
    lone = ruled(anywhere, tmp_path, AHEAD, KEYS).having(DATABASE_URL="postgresql://127.0.0.1:1/none")
    told = lone("policy", "explain", lone.plan(PLAN), "--json")
    assert told.code == 3, told
    steps = told.json["steps"]
    assert [(step["verdict"], step["rules"], step["preview"]) for step in steps] == [
        ("ask", ["ahead"], True),
        ("deny", ["keys"], False),
    ]
    shown = lone("policy", "explain", lone.plan(PLAN))
    assert "0 allowed, 1 asked, 1 denied" in shown.out


def test_a_preview_is_shown_and_its_approval_applies_it(cli: Cli, tmp_path_factory: Any) -> None:
    under = ruled(cli, tmp_path_factory.mktemp("rules"), AHEAD, KEYS)
    told = under("run", under.plan(PLAN), "--yes")
    assert told.code == 0, told
    assert "exit code 0" in told.out
    assert "said" in told.out
    assert "approving applies exactly this; nothing runs again" in told.out
    assert "ahead (policy " in told.out
    assert "denied by policy: keys" in told.out + told.err
    assert (cli.cwd / "made").read_text() == "line\n"


def test_a_bad_policy_refuses_the_worker_and_leaves_the_rest_usable(cli: Cli, tmp_path_factory: Any) -> None:
    under = ruled(cli, tmp_path_factory.mktemp("rules"), {**KEYS, "verdict": "perhaps"})
    told = under("run", under.plan(PLAN), "--yes", "--json")
    assert told.code == 2, told
    assert "rules[0].verdict" in told.json["error"]["errors"][0]["field"]
    assert under("runs").code == 0
    inside = cli.having(STEPGATE_POLICY=cli.plan(json.dumps({"version": 1, "rules": []})))
    told = inside("worker")
    assert told.code == 2
    assert "STEPGATE_POLICY" in told.err


def test_rules_are_sent_listed_and_shown(cli: Cli) -> None:
    (cli.cwd / "rules.json").write_text(json.dumps({"version": 1, "name": "team rules", "rules": [KEYS]}))
    applied = cli("policy", "apply", "rules.json", "--json")
    assert applied.code == 0, applied
    version = applied.json["version"]
    listed = cli("policy", "list").out
    assert all(told in listed for told in (version[:12], "team rules", "in force"))
    shown = cli("policy", "show")
    assert yaml.safe_load(shown.out)["rules"] == [{**KEYS, "match": {"paths": ["keys/**"]}}]
    (cli.cwd / "more.json").write_text(json.dumps({"version": 1, "rules": []}))
    refused = cli("policy", "apply", "more.json", "--replaces", "builtin-1")
    assert (refused.code, "other rules became current" in refused.err) == (2, True), refused
