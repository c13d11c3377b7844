"""What is missing in the environment: exit 5, 6 for the sandbox, and always a way out."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import asyncpg
import pytest

from tests.cli.conftest import READ, Cli

COMMAND = """
version: 1
goal: Run something
steps:
  - {key: go, type: run_command, input: {argv: ["true"]}}
"""


def test_a_database_that_is_down(anywhere: Cli) -> None:
    down = anywhere.having(DATABASE_URL="postgresql://nobody@127.0.0.1:9/none")
    for words in (("runs",), ("run", anywhere.plan(READ)), ("migrate",), ("serve", "--port", "0"), ("demo", "--yes")):
        refused = down(*words)
        assert refused.code == 5, refused
        assert "127.0.0.1:9" in refused.err
        assert "fix: " in refused.err
        assert "Traceback" not in refused.err
    assert down("runs", "--json").json["exit_code"] == 5
    assert list(anywhere.cwd.iterdir()) == [anywhere.cwd / "plan.yaml"]


def test_a_database_that_was_never_migrated_and_then_is(anywhere: Cli, empty_database_url: str) -> None:
    cli = anywhere.having(DATABASE_URL=empty_database_url)
    for words in (("runs",), ("serve", "--port", "0"), ("worker",)):
        refused = cli(*words)
        assert refused.code == 5, refused
        assert "stepgate migrate" in refused.err
    migrated = cli("migrate", "--json")
    assert migrated.code == 0, migrated
    assert migrated.json["before"] is None
    assert "nothing to do" in cli("migrate").out
    assert cli("runs").code == 0


def test_a_database_of_a_newer_version(cli: Cli, database_url: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
        await connection.execute("UPDATE stepgate.alembic_version SET version_num = '9999'")
        await connection.close()

    asyncio.run(work())
    for words in (("runs",), ("migrate",), ("demo", "--yes")):
        refused = cli(*words)
        assert refused.code == 5, refused
        assert "does not know" in refused.err
        assert "upgrade Stepgate" in refused.err


def test_a_port_that_is_taken(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = cli("serve", "--port", str(port))
    assert refused.code == 5, refused
    assert f"error: STEPGATE_PORT: cannot listen on 127.0.0.1:{port}" in refused.err
    assert "--port" in refused.err


def test_an_address_that_is_none(cli: Cli) -> None:
    for host in ("no.such.host.invalid", "192.0.2.1"):
        refused = cli("serve", "--port", "0", "--host", host)
        assert refused.code == 5, refused
        assert host in refused.err


def test_a_server_that_does_not_answer(anywhere: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as freed:
        port = freed.getsockname()[1]
    refused = anywhere.having(STEPGATE_URL=f"http://127.0.0.1:{port}")("runs")
    assert refused.code == 5, refused
    assert "error: STEPGATE_URL: " in refused.err
    assert "stepgate serve" in refused.err
    assert not anywhere.state_dir.exists()


class Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def stranger() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_of_somebody_else(anywhere: Cli, stranger: str) -> None:
    refused = anywhere.having(STEPGATE_URL=stranger)("runs")
    assert refused.code == 5, refused
    assert "not Stepgate's" in refused.err


def test_without_a_sandbox_no_command_runs(without_sandbox: Cli) -> None:
    refused = without_sandbox("demo", "--yes")
    assert refused.code == 6, refused
    assert "sandbox" in refused.err
    assert "fix: " in refused.err
    assert without_sandbox("runs", "--json").json["items"] == [], "nothing was made"
    stopped = without_sandbox("run", without_sandbox.plan(COMMAND), "--yes", "--json")
    assert stopped.code == 6, stopped
    assert stopped.json["status"] == "paused"
    assert stopped.json["reason"] == "sandbox_unavailable"


def test_without_a_sandbox_everything_else_works(without_sandbox: Cli) -> None:
    (without_sandbox.cwd / "note.txt").write_text("x")
    done = without_sandbox("run", without_sandbox.plan(READ))
    assert done.code == 0, done


def test_a_state_folder_that_cannot_be(anywhere: Cli) -> None:
    (anywhere.cwd / "file").write_text("")
    refused = anywhere.having(STEPGATE_STATE_DIR=str(anywhere.cwd / "file" / "state"))("runs")
    assert refused.code == 5, refused
    assert "Traceback" not in refused.err
    assert "file" in refused.err
