"""Execute, start, pause, resume, cancel, undo."""

import threading
import time
from typing import Any

import pytest

from tests.api.conftest import Api

READ = {"key": "read", "type": "read_file", "input": {"path": "a.txt"}}
AGAIN = {"key": "again", "type": "read_file", "input": {"path": "a.txt"}}
EDIT = {"key": "edit", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}


def path_of(run: Any) -> str:
    return f"/v1/agent-runs/{run['id']}"


def test_execute_runs_one_step_and_then_waits_for_the_next(working: Api) -> None:
    run = working.run([READ, AGAIN])
    done = working.post(f"{path_of(run)}/execute")
    assert (done["step"]["key"], done["step"]["status"]) == ("read", "completed")
    second = run["steps"][1]["id"]
    waiting = working.until(path_of(run), lambda run: run["waiting_for"])
    assert waiting["waiting_for"] == [{"kind": "execute", "step_id": second, "until": None}]
    assert waiting["steps"][1]["status"] == "pending"
    done = working.post(f"{path_of(run)}/execute")
    assert done["step"]["id"] == second
    assert working.until(path_of(run), lambda run: run["status"] == "completed")["progress"] == {"done": 2, "total": 2}


def test_execute_answers_at_a_gate_and_the_approval_starts_the_step(working: Api) -> None:
    run = working.run([EDIT])
    done = working.post(f"{path_of(run)}/execute")
    assert done["step"]["status"] == "awaiting_approval"
    assert done["run"]["waiting_for"] == [{"kind": "approval", "step_id": done["step"]["id"], "until": None}]
    body = {"action_hash": done["step"]["approval"]["action_hash"]}
    assert working.decide(path_of(run), done["step"], "approve", body, **working.secret).status_code == 200
    working.until(path_of(run), lambda run: run["status"] == "completed")


def test_execute_past_its_wait_says_where_to_look(api: Api) -> None:
    """No worker: the step cannot move."""
    run = api.run([READ])
    step_id = run["steps"][0]["id"]
    response = api.send(f"{path_of(run)}/execute?wait_s=0.05")
    assert response.status_code == 202
    assert response.headers["location"] == f"{path_of(run)}/steps/{step_id}"
    assert response.json()["step"]["id"] == step_id
    assert api.get(response.headers["location"])["status"] == "pending"


def test_execute_ends_its_wait_when_the_run_ends(api: Api) -> None:
    run = api.run([READ])
    answers: list[Any] = []
    waiter = threading.Thread(target=lambda: answers.append(api.send(f"{path_of(run)}/execute?wait_s=25")))
    began = time.monotonic()
    waiter.start()
    api.until(path_of(run), lambda run: run["status"] == "queued")
    api.post(f"{path_of(run)}/cancel")
    waiter.join(20)
    assert time.monotonic() - began < 20
    assert answers[0].status_code == 200
    assert answers[0].json()["step"]["status"] == "cancelled"


@pytest.mark.parametrize("wait_s", ["-1", "121", "nan", "inf", "soon"])
def test_execute_waits_no_longer_than_two_minutes(api: Api, wait_s: str) -> None:
    run = api.run([READ])
    response = api.send(f"{path_of(run)}/execute?wait_s={wait_s}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "wait_s"
    assert api.get(path_of(run))["status"] == "planned"


def test_a_run_without_steps_cannot_start_or_execute(api: Api) -> None:
    run = api.run()
    for verb in ("start", "execute"):
        response = api.send(f"{path_of(run)}/{verb}")
        assert response.status_code == 409
        assert response.json()["type"] == "urn:stepgate:error:no_steps"


def test_execute_finds_nothing_ready_or_a_run_that_was_started(api: Api) -> None:
    run = api.run([READ, AGAIN])
    assert api.send(f"{path_of(run)}/execute?wait_s=0").status_code == 202
    response = api.send(f"{path_of(run)}/execute?wait_s=0")
    assert (response.status_code, response.json()["type"]) == (409, "urn:stepgate:error:nothing_ready")
    api.post(f"{path_of(run)}/start")
    response = api.send(f"{path_of(run)}/execute?wait_s=0")
    assert (response.status_code, response.json()["type"]) == (409, "urn:stepgate:error:already_started")


def test_starting_twice_changes_nothing(api: Api) -> None:
    run = api.run([READ])
    once = api.post(f"{path_of(run)}/start")
    assert once["status"] == "queued"
    assert api.post(f"{path_of(run)}/start")["head_seq"] == once["head_seq"]


def test_pause_resume_and_cancel_of_a_run_that_nobody_drives(api: Api) -> None:
    path = path_of(api.run([READ], start=True))
    paused = api.post(f"{path}/pause")
    assert (paused["status"], paused["reason"]) == ("paused", "manual")
    assert paused["waiting_for"] == [{"kind": "person", "step_id": None, "until": None}]
    assert api.send(f"{path}/start").status_code == 409
    assert api.post(f"{path}/resume")["status"] == "queued"
    assert api.post(f"{path}/cancel")["status"] == "cancelled"
    for verb in ("start", "pause", "resume", "execute"):
        response = api.send(f"{path}/{verb}")
        assert response.status_code == 409
        assert response.json()["type"] == "urn:stepgate:error:illegal_transition"
    assert api.post(f"{path}/cancel")["status"] == "cancelled"


def test_a_started_run_runs_to_its_end(working: Api) -> None:
    run = working.until(path_of(working.run([READ, AGAIN], start=True)), lambda run: run["status"] == "completed")
    assert [step["status"] for step in run["steps"]] == ["completed", "completed"]
    assert run["started_at"] <= run["completed_at"]
    assert run["waiting_for"] == []


def test_an_undo_asks_before_it_takes_anything_back(working: Api) -> None:
    path, step = working.asking()
    body = {"action_hash": step["approval"]["action_hash"]}
    assert working.decide(path, step, "approve", body, **working.secret).status_code == 200
    working.until(path, lambda run: run["status"] == "completed")
    undone = working.post(f"{path}/undo", {})
    assert undone["step"]["step_type"] == "undo"
    undo_path = f"{path}/steps/{undone['step']['id']}"
    asked = working.until(undo_path, lambda step: step["status"] == "awaiting_approval")
    assert (working.workspace / "a.txt").read_text() == "new\n"
    waiting = working.get(path)
    assert waiting["status"] == "completed"
    assert [one["kind"] for one in waiting["waiting_for"]] == ["approval"]
    assert working.send(f"{undo_path}/approve", {"action_hash": asked["approval"]["action_hash"]}).status_code == 401
    body = {"action_hash": asked["approval"]["action_hash"]}
    assert working.send(f"{undo_path}/approve", body, **working.secret).status_code == 200
    run = working.until(path, lambda run: run["undone_at"] is not None)
    assert run["status"] == "completed"
    assert (working.workspace / "a.txt").read_text() == "old\n"
    assert working.get(f"{path}/diff")["files"] == []


def test_an_undo_over_somebody_s_edit_is_refused_with_the_paths_and_nothing_is_added(working: Api) -> None:
    path, step = working.asking()
    body = {"action_hash": step["approval"]["action_hash"]}
    assert working.decide(path, step, "approve", body, **working.secret).status_code == 200
    working.until(path, lambda run: run["status"] == "completed")
    (working.workspace / "a.txt").write_text("mine\n")
    head = working.get(path)["head_seq"]
    refused = working.send(f"{path}/undo", {"to_step": None})
    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:stepgate:error:workspace_conflict"
    assert refused.json()["details"]["paths"] == ["a.txt"]
    assert working.get(path)["head_seq"] == head
    assert (working.workspace / "a.txt").read_text() == "mine\n"
    assert working.send(f"{path}/undo", {"to_step": 1}).status_code == 200


def test_a_diff_comes_as_a_document_and_as_text(working: Api) -> None:
    path, step = working.asking()
    body = {"action_hash": step["approval"]["action_hash"]}
    assert working.decide(path, step, "approve", body, **working.secret).status_code == 200
    working.until(path, lambda run: run["status"] == "completed")
    for where in (path, f"{path}/steps/{step['id']}"):
        document = working.get(f"{where}/diff")
        assert (document["renames"], document["cannot_undo"]) == ([], [])
        assert [file["path"] for file in document["files"]] == ["a.txt"]
        text = working.client.get(f"{where}/diff", params={"format": "text"})
        assert text.headers["content-type"] == "text/x-diff; charset=utf-8"
        assert text.text == document["diff"]
        assert working.client.get(f"{where}/diff", params={"format": "html"}).status_code == 422


def test_an_undo_needs_a_finished_run_and_a_step_that_there_is(api: Api) -> None:
    path = path_of(api.run([READ]))
    assert api.send(f"{path}/undo").status_code == 409
    api.post(f"{path}/cancel")
    for body in ({"to_step": "nothing"}, {"to_step": 7}, {"to": "nothing"}):
        response = api.send(f"{path}/undo", body)
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "to_step"
    assert api.send(f"{path}/undo", {"to": "read", "to_step": "read"}).status_code == 422
    assert api.send(f"{path}/undo", {"too": "read"}).status_code == 422
