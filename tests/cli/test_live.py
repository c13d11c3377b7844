"""What running commands print, as it is seen at a terminal and by `show --follow`."""

import json
import time

import pytest

from tests.cli.conftest import Cli
from tests.fixtures.patience import PATIENCE_S

PRINTS = """
version: 1
goal: Print and wait
steps:
  - key: talks
    type: run_command
    input: {command: 'printf "first\\n\\033[2Jhel"; sleep 1; echo lo; echo more; sleep 300'}
    timeout: 10m
"""


@pytest.fixture
def cli(cli: Cli) -> Cli:
    """Whose commands may take their time, as the machine may be busy."""
    return cli.having(STEPGATE_COMMAND_TIMEOUT_S="600")


def test_a_terminal_shows_the_last_lines_of_a_running_command(cli: Cli) -> None:
    with cli.at_terminal("run", cli.plan(PRINTS), "--yes") as terminal:
        terminal.expect("     \\x1b[2Jhello")
        terminal.expect("     more")
        assert "\x1b[2J" not in terminal.screen.decode(errors="replace")
        terminal.press("\x03")
        assert terminal.end() == 130


def running(cli: Cli) -> str:
    """The id of the only run, once its command runs."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        for run in cli("runs", "--json").json["items"]:
            if any(step["status"] == "running" for step in cli("show", run["id"], "--json").json["steps"]):
                return str(run["id"])
        assert time.monotonic() < deadline


def test_show_follow_prints_every_line_as_it_comes_and_the_run_when_it_has_ended(cli: Cli) -> None:
    with cli.start("run", cli.plan(PRINTS), "--yes") as driving:
        run_id = running(cli)
        with cli.start("show", run_id, "--follow") as watching:
            assert watching.stdout is not None
            seen: list[str] = []
            while "talks | more" not in (line := watching.stdout.readline()):
                assert line, seen
                seen.append(line)
            assert any("talks | first" in line for line in seen)
            assert any("talks | \\x1b[2Jhello" in line for line in seen)
            assert cli("cancel", run_id).code == 0
            rest, errors = watching.communicate(timeout=PATIENCE_S)
            assert watching.returncode == 0, errors
            assert "cancelled" in rest
        driving.communicate(timeout=PATIENCE_S)


def test_following_a_run_that_has_ended_shows_it(cli: Cli) -> None:
    plan = cli.plan(
        '{"version": 1, "goal": "x", "steps": [{"type": "run_command", "input": {"argv": ["echo", "hi"]}}]}'
    )
    done = cli("run", plan, "--yes", "--json")
    shown = cli("show", done.json["run_id"], "--follow", "--json")
    assert (shown.code, json.loads(shown.out)["status"]) == (0, "completed"), shown
