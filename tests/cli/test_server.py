"""The same commands against a server: its worker moves the run, the command line asks and follows."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from tests.cli.conftest import READ, WRITE, Cli
from tests.fixtures.patience import PATIENCE_S


@contextmanager
def running(process: "subprocess.Popen[str]", line: str) -> Iterator[list[str]]:
    """Waits for a line of its output; afterwards ends it as an operator would and looks at its exit code."""
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    try:
        for text in process.stdout:
            said.append(text.rstrip("\n"))
            if line in text:
                break
        else:
            raise AssertionError("\n".join(said) + process.stderr.read())
        yield said
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "Traceback" not in err


@pytest.fixture
def served(cli: Cli) -> Iterator[Cli]:
    """A client of a server: it has the server's URL and state folder, and no database."""
    with running(cli.start("serve", "--port", "0"), "worker") as said:
        url = said[0].rpartition(" ")[2]
        assert [line.split() for line in said[1:3]] == [["console", f"{url}/console"], ["docs", f"{url}/docs"]]
        yield cli.having(STEPGATE_URL=url, DATABASE_URL=None)


def test_a_run_goes_to_its_end_through_a_server(served: Cli) -> None:
    done = served("run", served.plan(WRITE), "--yes", "--json")
    assert done.code == 0, done
    run_id = done.json["run_id"]
    assert (served.cwd / "note.txt").exists()
    shown = served("show", run_id, "--json").json
    assert shown["requester"]["channel"] == "cli"
    assert shown["steps"][0]["approval"]["decision"]["actor"]["channel"] == "cli"
    assert served("verify", run_id[:20]).code == 0
    assert served("undo", run_id, "--yes").code == 0
    assert not (served.cwd / "note.txt").exists()
    url = served.environment["STEPGATE_URL"]
    assert f"STEPGATE_URL={url}" in done.json["undo_command"]
    page = httpx2.get(f"{url}/docs")
    assert page.status_code == 200


def test_a_decision_needs_the_servers_secret(served: Cli) -> None:
    stopped = served("run", served.plan(WRITE), "--json")
    assert stopped.code == 2, stopped
    run_id = stopped.json["run_id"]
    stranger = served.having(STEPGATE_STATE_DIR=str(served.cwd / "other"))
    refused = stranger("approve", run_id, "write", "--yes")
    assert refused.code == 5, refused
    assert "secret" in refused.err
    plan = stranger.plan(WRITE, "theirs.yaml")
    theirs = stranger("run", plan, "--no-wait", "--json").json["run_id"]
    asked_by = served("show", theirs, "--json").json["requester"]
    assert asked_by["channel"] == "api", "the name alone proves nothing"
    wrong = served.having(STEPGATE_KEY="wrong")("approve", run_id, "write", "--yes")
    assert wrong.code == 5, wrong
    assert served("approve", run_id, "write", "--yes").code == 0


def test_a_configured_key_takes_the_place_of_the_local_secret(cli: Cli) -> None:
    keyed = cli.having(STEPGATE_KEY="a-key")
    with running(keyed.start("serve", "--port", "0"), "worker") as said:
        client = keyed.having(STEPGATE_URL=said[0].rpartition(" ")[2], DATABASE_URL=None)
        assert client("run", client.plan(WRITE), "--yes").code == 0


def test_a_decision_that_was_answered_outlives_the_server_that_is_killed_then(cli: Cli) -> None:
    run_id = cli("run", cli.plan(WRITE), "--json").json["run_id"]
    step = cli("show", run_id, "--json").json["steps"][0]
    process = cli.start("serve", "--port", "0", "--no-worker")
    try:
        assert process.stdout is not None
        url = next(line for line in process.stdout if "http://" in line).split()[-1]
        secret = (cli.state_dir / "local-secret").read_text().strip()
        with httpx2.Client(headers={"Authorization": f"Bearer {secret}"}) as http:
            body = {"action_hash": step["approval"]["action_hash"], "reason": "before the end"}
            answer = http.post(f"{url}/v1/agent-runs/{run_id}/steps/{step['id']}/approve", json=body)
            process.kill()
        assert answer.status_code == 200, answer.text
        given = answer.json()["approval"]["decision"]
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    assert cli("show", run_id, "--json").json["steps"][0]["approval"]["decision"] == given


def test_a_worker_alone_takes_up_what_was_recorded(cli: Cli) -> None:
    (cli.cwd / "note.txt").write_text("x")
    with running(cli.start("serve", "--port", "0", "--no-worker"), "worker") as said:
        client = cli.having(STEPGATE_URL=said[0].rpartition(" ")[2], DATABASE_URL=None)
        recorded = client("run", client.plan(READ), "--no-wait", "--json")
        run_id = recorded.json["run_id"]
        with running(cli.start("worker"), "looks for due runs"):
            done = client("run", "--continue", run_id, "--json")
        assert done.code == 0, done


def test_a_client_is_told_that_no_worker_is_alive(cli: Cli) -> None:
    with running(cli.start("serve", "--port", "0", "--no-worker"), "worker") as said:
        client = cli.having(STEPGATE_URL=said[0].rpartition(" ")[2], DATABASE_URL=None)
        with client.at_terminal("run", client.plan(READ)) as terminal:
            terminal.expect("no worker is alive")
            terminal.press("\x03")
            assert terminal.end() == 130
            assert "the server goes on with it" in terminal.text
            assert "run --continue " in terminal.text


def test_the_app_can_be_served_by_uvicorn_itself(cli: Cli) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "stepgate.main:app", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cli.cwd,
        env=dict(cli.environment),
    )
    assert process.stdout is not None
    try:
        line = next(text for text in process.stdout if "Uvicorn running on" in text)
        url = next(word for word in line.split('"')[0:] for word in word.split() if word.startswith("http://"))
        health = httpx2.get(f"{url}/health").json()
        assert health["status"] == "ok", health
        assert health["worker"]["running"] is True
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def test_rules_of_other_processes_and_files_bind_a_running_server_at_once_on_sighup(cli: Cli) -> None:
    process = cli.having(STEPGATE_WORKER_CHECK_INTERVAL="3600").start("serve", "--port", "0")
    with running(process, "sandbox") as said:
        url = said[0].rpartition(" ")[2]
        there = cli.having(STEPGATE_URL=url, DATABASE_URL=None)
        run_id = there("run", there.plan(WRITE), "--json").json["run_id"]
        asked = httpx2.get(f"{url}/v1/agent-runs/{run_id}").json()["steps"][0]["approval"]["action_hash"]

        def until_source(source: str) -> None:
            process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 30
            while httpx2.get(f"{url}/health").json()["policy"]["source"] != source:
                assert time.monotonic() < deadline

        rules = "version: 1\nrules: [{name: no-edits, match: {executor: edit_file}, verdict: deny}]\n"
        (cli.cwd / "rules.yaml").write_text(rules.replace("deny", "ask"))
        assert cli("policy", "apply", "rules.yaml").code == 0
        until_source("api")
        (cli.state_dir / "stepgate.policy.yaml").write_text(rules)
        until_source("file")
        assert there("approve", run_id, "write", "--hash", asked).code == 1
        step = httpx2.get(f"{url}/v1/agent-runs/{run_id}").json()["steps"][0]
        assert (step["error"]["code"], "no-edits" in step["error"]["message"]) == ("denied", True)
        assert not (cli.cwd / "note.txt").exists()
