"""Several approvals from the command line: each by a key, none asked for twice, and given to others for a time."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import WRITE, Cli
from tests.cli.test_server import running

TWO = {"name": "two", "match": {"executor": "edit_file"}, "verdict": "ask", "approvals": {"count": 2}}


@pytest.fixture
def served(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    path = tmp_path_factory.mktemp("rules") / "rules.json"
    path.write_text(json.dumps({"version": 1, "rules": [TWO]}))
    ruled = cli.having(STEPGATE_POLICY=str(path))
    with running(ruled.start("serve", "--port", "0"), "worker") as said:
        yield ruled.having(STEPGATE_URL=said[0].rpartition(" ")[2], DATABASE_URL=None)


def person(cli: Cli, name: str, *roles: str) -> Cli:
    """The command line of somebody with a key."""
    words = [word for role in roles for word in ("--role", role)]
    return cli.having(STEPGATE_KEY=cli("keys", "create", name, *words, "--json").json["key"])


def test_each_person_approves_once_and_may_leave_it_to_another(served: Cli) -> None:
    ada, bob = person(served, "ada", "operator", "approver"), person(served, "bob", "approver")
    begun = ada("run", ada.plan(WRITE), "--yes", "--json")
    assert begun.code == 4, begun
    run_id = begun.json["run_id"]
    shown = ada("show", run_id)
    assert "approvals: 1 of 2" in shown.out
    assert "2 persons" in shown.out
    assert "1 of 2: ada" in shown.out
    assert "1 of 2" in ada("approvals").out
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    given = ada("delegations", "add", "bob", "--until", until, "--json").json
    assert (given["delegator"], given["delegate"], given["stands"]) == ("ada", "bob", True)
    again = bob("approve", run_id, "write", "--on-behalf-of", "ada", "--yes", "--no-wait", "--json")
    assert again.json["step_status"] == "awaiting_approval", "ada has approved already"
    assert "stands" in bob("delegations", "list").out
    assert bob("delegations", "remove", given["id"]).code == 0
    done = bob("approve", run_id, "write", "--yes", "--json")
    assert (done.code, done.json["status"]) == (0, "completed"), done
    assert (served.cwd / "note.txt").exists()
