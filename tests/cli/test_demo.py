"""The demo, as a newcomer meets it."""

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Cli
from tests.fixtures.database import CLUSTER_VARIABLE
from tests.fixtures.embedded import eventually, is_silent

CHOICES = "approve / reject / skip / view? "


@pytest.fixture
def newcomer(anywhere: Cli, empty_database_url: str) -> Cli:
    """A database that nobody has migrated."""
    return anywhere.having(DATABASE_URL=empty_database_url)


def test_it_mends_the_sample_and_proves_it(newcomer: Cli) -> None:
    done = newcomer("demo", "--yes")
    assert done.code == 0, done
    for wanted in (
        "offline-extractive-v1: no model router is configured",
        "canaries held",
        "command  python3 -B -m unittest -v",
        "bwrap-full, network: none",
        "risk  medium",
        "FAILED (failures=4)",
        "+    return amount.quantize(CENT, ROUND_HALF_UP)",
        "approved by --yes",
        "exit code 0",
        "total: $0, 2 model calls",
        "cost source",
        "journal verified: ",
    ):
        assert wanted in done.out, wanted
    assert done.err == ""


def test_its_undo_command_works_when_it_is_copied(newcomer: Cli, tmp_path: Path) -> None:
    done = newcomer("demo", "--yes", "--json")
    assert done.code == 0, done
    told = done.json
    assert told["status"] == "completed"
    assert told["verified"] is True
    assert told["events"] > 20
    assert told["model"] == "offline-extractive-v1"
    assert [step["key"] for step in told["steps"]] == [
        "rules",
        "module",
        "tests-before",
        "analyze",
        "fix",
        "tests-after",
        "summary",
    ]
    workspace = Path(told["workspace_path"])
    assert workspace.is_relative_to(newcomer.state_dir)
    original = (ROOT / "workspace" / "invoice.py").read_text()
    assert (workspace / "invoice.py").read_text() != original
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # What a person's shell has: their own variables, not those that were set for one command.
    environment = dict(newcomer.environment)
    del environment["STEPGATE_STATE_DIR"]
    undone = subprocess.run(
        ["/bin/sh", "-c", told["undo_command"] + " --yes"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert (workspace / "invoice.py").read_text() == original
    assert (ROOT / "workspace" / "invoice.py").read_text() == original


def test_without_a_terminal_and_without_yes_nothing_is_made(anywhere: Cli) -> None:
    for words in (("demo",), ("demo", "--json"), ("demo", "--keep", "kept")):
        refused = anywhere(*words)
        assert refused.code == 2, refused
        assert "no terminal to ask on" in refused.err
        assert "--yes" in refused.err
    assert not anywhere.state_dir.exists()
    assert list(anywhere.cwd.iterdir()) == []


def test_at_a_terminal_it_stops_at_each_gate(newcomer: Cli) -> None:
    with newcomer.at_terminal("demo", "--keep", "kept") as terminal:
        assert "tests-before: run_command" in terminal.expect(CHOICES)
        terminal.type("a")
        assert "fix: edit_file" in terminal.expect(CHOICES)
        terminal.type("a")
        assert "tests-after: run_command" in terminal.expect(CHOICES)
        terminal.type("a")
        terminal.expect("journal verified: ")
        assert terminal.end() == 0
    assert "ROUND_HALF_UP" in (newcomer.cwd / "kept" / "invoice.py").read_text()


def test_a_copy_is_kept_where_it_is_wanted_but_never_over_something(newcomer: Cli) -> None:
    (newcomer.cwd / "full").mkdir()
    (newcomer.cwd / "full" / "mine").write_text("mine")
    (newcomer.cwd / "file").write_text("mine")
    for target in ("full", "file"):
        refused = newcomer("demo", "--yes", "--keep", target)
        assert refused.code == 2, refused
        assert "error: --keep: " in refused.err
    assert [path.name for path in (newcomer.cwd / "full").iterdir()] == ["mine"]


def test_it_runs_with_a_database_of_its_own_and_never_on_a_server(anywhere: Cli) -> None:
    # As root the server runs as somebody else, who cannot enter pytest's folders.
    state = Path(os.environ[CLUSTER_VARIABLE]) / f"demo-{uuid.uuid4().hex[:8]}"
    alone = anywhere.having(STEPGATE_URL="http://127.0.0.1:9", STEPGATE_STATE_DIR=str(state))
    done = alone("demo", "--yes")
    assert done.code == 0, done
    assert "embedded" in done.out
    assert "STEPGATE_URL is not used" in done.out
    undo = next(line for line in done.out.splitlines() if line.startswith("undo it"))
    assert f"STEPGATE_STATE_DIR={state} STEPGATE_URL= " in undo
    assert eventually(lambda: is_silent(state)), "nothing is left running"
