"""A person at the terminal: sees the action, answers, changes their mind, interrupts."""

import os
import signal
from pathlib import Path

from tests.cli.conftest import WRITE, Cli
from tests.cli.terminals import Terminal

CHOICES = "approve / reject / skip / view? "
SLEEP = """
version: 1
goal: Sleep
steps:
  - {key: nap, type: run_command, input: {argv: [sleep, "20"]}}
"""


def run_id_of(cli: Cli) -> str:
    run_id: str = cli("runs", "--json").json["items"][0]["id"]
    return run_id


def test_the_action_is_shown_viewed_and_approved(cli: Cli) -> None:
    with cli.at_terminal("run", cli.plan(WRITE)) as terminal:
        shown = terminal.expect(CHOICES)
        assert "write: edit_file" in shown
        assert "+new" in shown
        assert "hash" not in shown
        terminal.type("what?")
        terminal.expect("type one of a (approve)")
        terminal.expect(CHOICES)
        terminal.type("view")
        assert "hash" in terminal.expect(CHOICES)
        assert not (cli.cwd / "note.txt").exists()
        terminal.type("a")
        terminal.expect("journal verified: ")
        assert terminal.end() == 0
        assert "\x1b[32m" in terminal.screen.decode(), "what is new is green"
    assert (cli.cwd / "note.txt").read_text() == "new\n"
    decision = cli("show", run_id_of(cli), "--json").json["steps"][0]["approval"]["decision"]
    assert decision["verdict"] == "approved"
    assert decision["implied"] is False


def test_a_rejection_takes_a_reason_and_ends_with_3(cli: Cli) -> None:
    with cli.at_terminal("run", cli.plan(WRITE)) as terminal:
        terminal.expect(CHOICES)
        terminal.type("r")
        terminal.expect("why (may be empty)? ")
        terminal.type("the wrong file")
        assert terminal.end() == 3
    step = cli("show", run_id_of(cli), "--json").json["steps"][0]
    assert step["approval"]["decision"]["reason"] == "the wrong file"


def test_a_skipped_step_is_left_out(cli: Cli) -> None:
    (cli.cwd / "note.txt").write_text("old")
    with cli.at_terminal("run", cli.plan(WRITE)) as terminal:
        terminal.expect(CHOICES)
        terminal.type("s")
        terminal.expect("why")
        terminal.type("")
        assert terminal.end() == 0
    assert (cli.cwd / "note.txt").read_text() == "old"


def test_ctrl_d_leaves_the_question_open(cli: Cli) -> None:
    with cli.at_terminal("run", cli.plan(WRITE)) as terminal:
        terminal.expect(CHOICES)
        terminal.press("\x04")
        terminal.expect("approve write")
        assert terminal.end() == 4
    with cli.at_terminal("approve", run_id_of(cli), "write") as terminal:
        assert "+new" in terminal.expect("approve / view? ")
        terminal.type("a")
        assert terminal.end() == 0


def test_what_was_typed_ahead_answers_no_question(cli: Cli) -> None:
    with cli.at_terminal("run", cli.plan(WRITE)) as terminal:
        terminal.type("a")
        terminal.expect(CHOICES)
        terminal.type("r")
        terminal.expect("why")
        terminal.type("")
        assert terminal.end() == 3


def test_with_json_the_question_goes_to_the_terminal_and_the_object_to_the_file(cli: Cli) -> None:
    out = cli.cwd / "out.json"
    shell = Cli(cli.cwd, cli.environment, ("/bin/sh", "-c", f'"$0" "$@" > {out}', *cli.argv))
    with shell.at_terminal("run", cli.plan(WRITE), "--json") as terminal:
        terminal.expect(CHOICES)
        terminal.type("a")
        assert terminal.end() == 0
        assert '"run_id"' not in terminal.text
    assert '"status": "completed"' in out.read_text()


def test_an_undo_shows_the_net_change_and_asks(cli: Cli) -> None:
    run_id = cli("run", cli.plan(WRITE), "--yes", "--json").json["run_id"]
    with cli.at_terminal("undo", run_id) as terminal:
        assert "-new" in terminal.expect("approve / reject / view? ")
        terminal.type("r")
        terminal.expect("why")
        terminal.type("")
        assert terminal.end() == 3
    assert (cli.cwd / "note.txt").exists()
    with cli.at_terminal("undo", run_id) as terminal:
        terminal.expect("approve / reject / view? ")
        terminal.type("a")
        assert terminal.end() == 0
    assert not (cli.cwd / "note.txt").exists()


def while_it_naps(cli: Cli) -> Terminal:
    terminal = cli.at_terminal("run", cli.plan(SLEEP))
    terminal.expect(CHOICES)
    terminal.type("a")
    terminal.expect("run_command  running")
    return terminal


def test_ctrl_c_hands_the_run_back_and_says_how_to_go_on(cli: Cli) -> None:
    with while_it_naps(cli) as terminal:
        terminal.press("\x03")
        assert terminal.end() == 130
        assert "handed back" in terminal.text
        command = terminal.text.split("fix: go on: ")[1].strip()
    run_id = run_id_of(cli)
    assert command.endswith(f"run --continue {run_id}")
    assert cli("show", run_id, "--json").json["steps"][0]["status"] == "approved"
    assert cli("verify", run_id).code == 0
    assert cli("cancel", run_id).code == 0


def test_ctrl_c_at_a_question_leaves_it_open(cli: Cli) -> None:
    with cli.at_terminal("run", cli.plan(WRITE)) as terminal:
        terminal.expect(CHOICES)
        terminal.press("\x03")
        assert terminal.end() == 130
    assert cli("show", run_id_of(cli), "--json").json["status"] == "awaiting_approval"


def test_a_second_ctrl_c_ends_it_at_once(cli: Cli) -> None:
    with while_it_naps(cli) as terminal:
        os.kill(terminal.process.pid, signal.SIGSTOP)
        # Both wait in its queue; the second signal of one kind would be lost, so the other kind is used.
        os.kill(terminal.process.pid, signal.SIGINT)
        os.kill(terminal.process.pid, signal.SIGTERM)
        os.kill(terminal.process.pid, signal.SIGCONT)
        assert terminal.end() == 130
        assert "handed back" not in terminal.text


def test_a_request_to_end_hands_the_run_back_too(cli: Cli) -> None:
    with while_it_naps(cli) as terminal:
        os.kill(terminal.process.pid, signal.SIGTERM)
        assert terminal.end() == 130
        assert "handed back" in terminal.text


def test_a_hostile_name_does_not_reach_the_screen(cli: Cli) -> None:
    plan = cli.plan("""
version: 1
goal: x
steps:
  - {key: a, type: edit_file, why: "\\e[2J[red]", input: {path: "n\\u202eame.txt", content: "\\e]0;x\\a"}}
""")
    with cli.at_terminal("run", plan) as terminal:
        terminal.expect(CHOICES)
        assert b"\x1b[2J" not in terminal.screen
        assert b"\x1b]0;" not in terminal.screen
        assert "\u202e".encode() not in terminal.screen
        assert "[red]" in terminal.text
        terminal.type("r")
        terminal.expect("why")
        terminal.type("")
        assert terminal.end() == 3


def test_nothing_is_left_behind_in_the_project(cli: Cli) -> None:
    with cli.at_terminal("run", cli.plan(WRITE)) as terminal:
        terminal.expect(CHOICES)
        terminal.press("\x03")
        terminal.end()
    assert sorted(path.name for path in Path(cli.cwd).iterdir()) == ["plan.yaml"]
