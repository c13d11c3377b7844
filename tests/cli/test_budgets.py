"""Budgets at the command line."""

from tests.cli.conftest import Cli

PLAN = """
version: 1
goal: look
limits: {cost_usd: 0.10}
steps: [{key: think, type: summarize}]
"""


def test_a_run_tells_what_it_may_spend_and_is_given_more(cli: Cli) -> None:
    run_id = cli("run", cli.plan(PLAN), "--no-wait", "--json").json["run_id"]
    assert "budget    $0 of $0.1 (0 %)" in cli("show", run_id).out
    assert cli("budget", run_id, "--add-usd", "0.4").out.strip() == "$0 of $0.5 (0 %)"
    assert cli("budget", run_id, "--json").json["budget"]["limit"] == {"cost_usd": "0.5", "tokens": None}
    refused = cli("budget", run_id, "--add-tokens", "5")
    assert refused.code == 2
    assert "add_tokens" in refused.err


def test_budgets_that_runs_share_are_set_listed_and_removed(cli: Cli) -> None:
    assert "runs share no budget" in cli("budgets").out
    assert cli("budgets", "set", "--usd", "5").code == 2
    made = cli("budgets", "set", "--daily", "--label", "team=blue", "--usd", "5", "--json").json
    listed = cli("budgets").out
    assert "team=blue a day" in listed
    assert "$5" in listed
    assert cli("budgets", "remove", made["id"]).code == 0
    assert cli("budgets", "--json").json == {"items": []}
