"""Watching a running command over HTTP."""

import threading
import time
from typing import Any

import pytest

from tests.api.conftest import Api


def test_a_request_waits_for_the_next_line_and_gets_it_while_the_command_runs(working: Api) -> None:
    step = {"type": "run_command", "input": {"command": "sleep 0.5; echo hello; sleep 60"}, "timeout": 100}
    run = working.run([step], start=True)
    path = f"/v1/agent-runs/{run['id']}"
    run = working.until(path, lambda run: run["status"] == "awaiting_approval")
    (asked,) = run["steps"]
    live = f"{path}/steps/{asked['id']}/output/live"
    assert working.get(live, after=5) == {"items": [], "next": 5, "ended": False}
    body = {"action_hash": asked["approval"]["action_hash"]}
    assert working.decide(path, asked, "approve", body, **working.secret).status_code == 200
    found = working.get(live, wait_s=30)
    (item,) = found["items"]
    assert (item["text"], item["stream"], item["attempt"], found["ended"]) == ("hello\n", "stdout", 1, False)
    assert found["next"] == item["seq"]
    waiting = threading.Thread(target=lambda: answers.append(working.get(live, after=found["next"], wait_s=60)))
    answers: list[Any] = []
    waiting.start()
    working.post(f"{path}/cancel")
    waiting.join(60)
    assert answers == [{"items": [], "next": found["next"], "ended": True}]


def test_a_step_that_has_not_begun_is_waited_for_no_longer_than_asked(quiet: Api) -> None:
    run = quiet.run([{"type": "run_command", "input": {"argv": ["true"]}}])
    began = time.monotonic()
    found = quiet.get(f"/v1/agent-runs/{run['id']}/steps/{run['steps'][0]['id']}/output/live", wait_s=0.2)
    assert found == {"items": [], "next": 0, "ended": False}
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("query", [{"after": -1}, {"after": "x"}, {"wait_s": 121}])
def test_what_cannot_be_asked_is_refused(quiet: Api, query: dict[str, Any]) -> None:
    run = quiet.run([{"type": "run_command", "input": {"argv": ["true"]}}])
    path = f"/v1/agent-runs/{run['id']}/steps/{run['steps'][0]['id']}/output/live"
    response = quiet.client.get(path, params=query)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == next(iter(query))


def test_a_step_that_is_not_there_is_not_found(quiet: Api) -> None:
    run = quiet.run()
    assert quiet.client.get(f"/v1/agent-runs/{run['id']}/steps/{run['id']}/output/live").status_code == 404
