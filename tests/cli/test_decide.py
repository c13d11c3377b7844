"""Decisions by command: bound to the action, first one wins, and what the run does afterwards."""

from operator import itemgetter

import pytest

from tests.cli.conftest import WRITE, Cli

TWO = """
version: 1
goal: Write two notes
steps:
  - {key: first, type: edit_file, input: {path: a.txt, content: "a\\n"}}
  - {key: second, type: edit_file, input: {path: b.txt, content: "b\\n"}}
"""


def stopped_at_gate(cli: Cli, plan: str = WRITE) -> str:
    stopped = cli("run", cli.plan(plan), "--json")
    assert stopped.code == 2, stopped
    run_id: str = stopped.json["run_id"]
    return run_id


def question(cli: Cli, run_id: str, step: int = 0) -> str:
    hash_: str = cli("show", run_id, "--json").json["steps"][step]["approval"]["action_hash"]
    return hash_


def test_an_approval_by_hash_lets_exactly_that_action_happen(cli: Cli) -> None:
    run_id = stopped_at_gate(cli)
    shown = cli("show", run_id)
    assert shown.code == 0
    assert "waits for" in shown.out
    assert "+new" in shown.out
    hash_ = question(cli, run_id)
    assert hash_ in shown.out
    stale = cli("approve", run_id, "write", "--hash", "0" * 64)
    assert stale.code == 2, stale
    assert "Traceback" not in stale.err
    no_hash = cli("approve", run_id, "write", "--hash", "nonsense")
    assert no_hash.code == 2
    assert not (cli.cwd / "note.txt").exists()
    approved = cli("approve", run_id, "write", "--hash", hash_, "--reason", "fine", "--json")
    assert approved.code == 0, approved
    assert approved.json["status"] == "completed"
    decision = cli("show", run_id, "--json").json["steps"][0]["approval"]["decision"]
    assert decision["reason"] == "fine"
    assert decision["actor"] == {"id": "local", "kind": "person", "channel": "cli"}
    assert decision["implied"] is False
    again = cli("approve", run_id, "write")
    assert again.code == 0, again
    other = cli("reject", run_id, "write")
    assert other.code == 2, other
    assert "already" in other.err.lower() or "approved" in other.err


def test_an_approval_needs_a_hash_a_terminal_or_yes(cli: Cli) -> None:
    run_id = stopped_at_gate(cli)
    refused = cli("approve", run_id, "1")
    assert refused.code == 2
    assert "error: --hash: " in refused.err
    assert not (cli.cwd / "note.txt").exists()
    approved = cli("approve", run_id, "1", "--yes")
    assert approved.code == 0, approved
    assert "+new" in approved.out


def test_after_an_approval_the_next_gate_waits_with_4(cli: Cli) -> None:
    run_id = stopped_at_gate(cli, TWO)
    approved = cli("approve", run_id, "first", "--yes", "--json")
    assert approved.code == 4, approved
    assert approved.json["status"] == "awaiting_approval"
    assert (cli.cwd / "a.txt").exists()
    assert not (cli.cwd / "b.txt").exists()
    skipped = cli("skip", run_id, "second", "--reason", "not needed", "--json")
    assert skipped.code == 0, skipped
    assert skipped.json["steps"][1]["status"] == "skipped"


def test_a_rejection_ends_the_run_with_3_or_skips(cli: Cli) -> None:
    run_id = stopped_at_gate(cli, TWO)
    bad = cli("reject", run_id, "first", "--then", "explode")
    assert bad.code == 2
    assert "error: then: " in bad.err
    went_on = cli("reject", run_id, "first", "--then", "skip", "--json")
    assert went_on.code == 4, went_on
    ended = cli("reject", run_id, "second", "--reason", "no", "--json")
    assert ended.code == 3, ended
    assert ended.json["status"] == "cancelled"
    assert ended.json["reason"] == "rejected"
    assert not (cli.cwd / "a.txt").exists()


def test_a_decision_can_be_recorded_only(cli: Cli) -> None:
    run_id = stopped_at_gate(cli)
    recorded = cli("approve", run_id, "write", "--yes", "--no-wait", "--json")
    assert recorded.code == 0, recorded
    assert recorded.json["step_status"] == "approved"
    assert not (cli.cwd / "note.txt").exists()
    assert cli("run", "--continue", run_id).code == 0
    assert (cli.cwd / "note.txt").exists()


def test_a_cancelled_run_stays_so(cli: Cli) -> None:
    run_id = stopped_at_gate(cli)
    cancelled = cli("cancel", run_id, "--json")
    assert cancelled.code == 0, cancelled
    assert cancelled.json["status"] == "cancelled"
    assert cli("run", "--continue", run_id).code == 3
    late = cli("approve", run_id, "write", "--yes")
    assert late.code == 2
    assert "fix: " in late.err


def test_an_undo_shows_the_net_change_and_takes_it_back(cli: Cli) -> None:
    (cli.cwd / "a.txt").write_text("before\n")
    done = cli("run", cli.plan(TWO), "--yes", "--json")
    run_id = done.json["run_id"]
    unasked = cli("undo", run_id)
    assert unasked.code == 2
    assert "no terminal" in unasked.err
    assert len(cli("show", run_id, "--json").json["steps"]) == 2, "nothing was added"
    partly = cli("undo", run_id, "--to", "first", "--yes", "--json")
    assert partly.code == 0, partly
    assert "deleted file" in partly.err
    assert not (cli.cwd / "b.txt").exists()
    assert (cli.cwd / "a.txt").read_text() == "a\n"
    recorded = cli("undo", run_id, "--no-wait", "--json")
    assert recorded.code == 0, recorded
    went_on = cli("run", "--continue", run_id, "--yes", "--json")
    assert went_on.code == 0, went_on
    assert (cli.cwd / "a.txt").read_text() == "before\n"
    assert cli("verify", run_id).code == 0


def test_what_cannot_be_undone_is_refused(cli: Cli) -> None:
    run_id = stopped_at_gate(cli)
    early = cli("undo", run_id, "--yes")
    assert early.code == 2, early
    assert cli("cancel", run_id).code == 0
    unknown = cli("undo", run_id, "--to", "nowhere", "--yes")
    assert unknown.code == 2
    assert "nowhere" in unknown.err


def test_an_undo_over_a_persons_change_writes_nothing_and_says_which_file(cli: Cli) -> None:
    run_id = cli("run", cli.plan(WRITE), "--yes", "--json").json["run_id"]
    (cli.cwd / "note.txt").write_text("mine\n")
    undone = cli("undo", run_id, "--yes")
    assert undone.code == 2, undone
    assert "note.txt" in undone.err
    assert (cli.cwd / "note.txt").read_text() == "mine\n"


@pytest.mark.parametrize("verb", ["approve", "reject", "skip"])
def test_a_step_that_is_not_there_is_named(cli: Cli, verb: str) -> None:
    run_id = stopped_at_gate(cli)
    refused = cli(verb, run_id, "nowhere")
    assert refused.code == 2
    assert "nowhere" in refused.err
    assert cli(verb, "0" * 36, "write").code == 2


def test_a_diff_is_of_the_run_or_of_a_step(cli: Cli) -> None:
    run_id = cli("run", cli.plan(TWO), "--yes", "--json").json["run_id"]
    whole = cli("diff", run_id)
    assert "+a" in whole.out
    assert "+b" in whole.out
    one = cli("diff", run_id, "second")
    assert "+a\n" not in one.out
    assert "+b" in one.out
    raw = cli("diff", run_id, "--raw").out
    assert raw == cli("diff", run_id, "--json").json["diff"]
    nothing = cli("diff", stopped_at_gate(cli, WRITE))
    assert nothing.code == 0
    assert "nothing was changed" in nothing.out


def test_an_edited_action_is_asked_about_in_its_turn(cli: Cli) -> None:
    run_id = stopped_at_gate(cli)
    assert "--set" in cli("edit", run_id, "write").err
    edited = cli("edit", run_id, "write", "--set", "content=mine", "--reason", "my words", "--json")
    assert edited.code == 4, edited
    (cli.cwd / "new.yaml").write_text("path: note.txt\ncontent: whole\n")
    assert cli("edit", run_id, "write", "--input", "new.yaml", "--no-wait").code == 0
    assert cli("run", "--continue", run_id, "--yes").code == 0
    assert (cli.cwd / "note.txt").read_text() == "whole"


SIDE_BY_SIDE = """
version: 1
goal: Write two notes
steps:
  - {key: first, type: edit_file, input: {path: a.txt, content: "a\\n"}, needs: []}
  - {key: second, type: edit_file, input: {path: b.txt, content: "b\\n"}, needs: []}
"""


def test_several_questions_are_answered_each_once_it_was_shown_or_by_its_hash(cli: Cli) -> None:
    stopped_at_gate(cli, SIDE_BY_SIDE)
    listed = sorted(cli("approvals", "--json").json["items"], key=itemgetter("step_key"))
    ids = [one["request_id"] for one in listed]
    for words in ((*ids, "--yes"), ids):
        refused = cli("approvals", "approve", *words)
        assert (refused.code, "APPROVAL=HASH" in refused.err) == (2, True)
    with cli.at_terminal("approvals", "approve", *ids) as terminal:
        assert "+a" in terminal.expect("approve / leave / view?")
        terminal.type("approve")
        assert "+b" in terminal.expect("approve / leave / view?")
        terminal.type("leave")
        terminal.expect("1 left as they are")
        assert terminal.end() == 0
    named = [f"{one['request_id']}={one['action_hash']}" for one in listed]
    done = cli("approvals", "reject", *named, "--then", "skip", "--yes", "--json")
    assert (done.code, [item["status"] for item in done.json["items"]]) == (2, [409, 200])
    assert "nothing waits" in cli("approvals").out


def test_a_rule_is_shown_and_added_only_for_an_action_that_was_looked_at(cli: Cli) -> None:
    stopped_at_gate(cli)
    (asked,) = cli("approvals", "--json").json["items"]
    id_ = asked["request_id"]
    assert cli("approvals", "always", id_, "--yes").code == 2
    with cli.at_terminal("approvals", "always", id_) as terminal:
        shown = terminal.expect("add this rule (yes / no)?")
        assert all(told in shown for told in ("verdict: allow", "- note.txt", "in runs that local asks for"))
        terminal.type("no")
        assert terminal.end() == 3
    added = cli("approvals", "always", f"{id_}={asked['action_hash']}", "--yes", "--json")
    assert added.code == 0, added
    again = cli("run", cli.plan(WRITE), "--json")
    assert again.code == 0, again
