"""Steps: added, listed, looked at."""

from typing import Any

import pytest

from stepgate.engine.queries import INLINE_BYTES
from tests.api.conftest import Api

READ = {"key": "read", "type": "read_file", "input": {"path": "a.txt"}}


def path_of(run: Any) -> str:
    return f"/v1/agent-runs/{run['id']}"


def test_a_step_has_every_field_that_was_promised(api: Api) -> None:
    (step,) = api.run([{**READ, "why": "to see it"}])["steps"]
    assert set(step) >= {
        *("id", "run_id", "key", "number", "parent_id", "step_type", "status", "reason", "effect", "input", "output"),
        *("output_sha256", "error", "attempt", "cost_usd", "cost_source", "tokens", "model", "latency_ms"),
        *("workspace_before", "workspace_after", "approval", "created_at", "started_at", "completed_at"),
    }
    assert (step["key"], step["number"], step["step_type"], step["status"]) == ("read", 1, "read_file", "pending")
    assert (step["effect"], step["gate"], step["needs"], step["why"]) == ("none", "allow", [], "to see it")
    assert step["input"] == {"path": "a.txt"}


def test_steps_are_added_to_an_empty_run_and_to_one_that_has_some(api: Api) -> None:
    path = path_of(api.run())
    first = api.post(f"{path}/steps", {"steps": [READ, {**READ, "key": "b"}]}, expect=201)
    assert [(step["key"], step["number"]) for step in first["items"]] == [("read", 1), ("b", 2)]
    response = api.send(f"{path}/steps", {"steps": [{**READ, "key": "c"}]})
    (added,) = response.json()["items"]
    assert response.headers["location"] == f"{path}/steps/{added['id']}"
    assert added["needs"] == ["b"]
    assert [step["key"] for step in api.get(f"{path}/steps")["items"]] == ["read", "b", "c"]
    assert api.get(path)["status"] == "planned"


def test_the_other_name_of_a_steps_type_is_accepted(api: Api) -> None:
    (step,) = api.run([{"step_type": "read_file", "input": {"path": "a.txt"}}])["steps"]
    assert step["step_type"] == "read_file"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"steps": []}, "steps"),
        ({"steps": None}, "steps"),
        ({}, "steps"),
        ({"steps": [{**READ, "needs": ["nobody"]}]}, "steps[0].needs"),
        ({"steps": [READ], "more": 1}, "more"),
    ],
)
def test_bad_steps_are_named_and_none_is_added(api: Api, body: Any, field: str) -> None:
    path = path_of(api.run([{**READ, "key": "first"}]))
    response = api.send(f"{path}/steps", body)
    assert response.status_code == 422, response.text
    assert field in [fault["field"] for fault in response.json()["errors"]]
    assert len(api.get(f"{path}/steps")["items"]) == 1


def test_a_finished_run_takes_no_steps(api: Api) -> None:
    path = path_of(api.run([READ]))
    assert api.post(f"{path}/cancel")["status"] == "cancelled"
    response = api.send(f"{path}/steps", {"steps": [{**READ, "key": "late"}]})
    assert response.status_code == 409
    assert response.json()["type"] == "urn:stepgate:error:illegal_transition"


def test_an_unknown_step_is_a_problem(api: Api) -> None:
    run = api.run([READ])
    for more in ("", "/output", "/diff"):
        response = api.client.get(f"{path_of(run)}/steps/{run['id']}{more}")
        assert response.status_code == 404
        assert response.json()["errors"][0]["field"] == "step_id"


def test_a_step_of_another_run_is_not_found(api: Api) -> None:
    one, other = api.run([READ]), api.run([READ])
    assert api.client.get(f"{path_of(one)}/steps/{other['steps'][0]['id']}").status_code == 404


def test_large_texts_are_left_out_of_lists_and_not_of_the_step(working: Api) -> None:
    (working.workspace / "large.txt").write_text("x" * (INLINE_BYTES + 1))
    path = path_of(working.run([{**READ, "input": {"path": "large.txt"}}], start=True))
    run = working.until(path, lambda run: run["status"] == "completed")
    (listed,) = run["steps"]
    assert listed["output"] is None
    assert listed["omitted"] == ["output"]
    whole = working.get(f"{path}/steps/{listed['id']}")
    assert whole["output"]["size"] == INLINE_BYTES + 1
    assert whole["omitted"] == []


def test_the_output_comes_with_the_digest_of_the_journal(working: Api) -> None:
    path = path_of(working.run([READ], start=True))
    run = working.until(path, lambda run: run["status"] == "completed")
    output = working.get(f"{path}/steps/{run['steps'][0]['id']}/output")
    assert output["output"]["text"] == "old\n"
    (event,) = [event for event in working.get(f"{path}/events")["items"] if event["type"] == "step.completed"]
    assert output["output_sha256"] == event["data"]["output_sha256"]


def test_a_step_without_an_output_says_so(api: Api) -> None:
    run = api.run([READ])
    response = api.client.get(f"{path_of(run)}/steps/{run['steps'][0]['id']}/output")
    assert response.status_code == 404
    assert response.json()["type"] == "urn:stepgate:error:no_output"


def test_a_failed_step_tells_why(working: Api) -> None:
    path = path_of(working.run([{**READ, "input": {"path": "missing.txt"}}], start=True))
    run = working.until(path, lambda run: run["status"] == "failed")
    error = run["steps"][0]["error"]
    assert error["field"] == "path"
    assert error["message"]


def test_the_diff_of_a_step_and_of_its_run(working: Api) -> None:
    path, step = working.asking()
    assert working.get(f"{path}/diff") == {
        "run_id": step["run_id"],
        "step_id": None,
        "applied": True,
        "files": [],
        "renames": [],
        "cannot_undo": [],
        "diff": "",
    }
    body = {"action_hash": step["approval"]["action_hash"]}
    assert working.decide(path, step, "approve", body, **working.secret).status_code == 200
    working.until(path, lambda run: run["status"] == "completed")
    for diff in (working.get(f"{path}/diff"), working.get(f"{path}/steps/{step['id']}/diff")):
        assert "-old\n+new\n" in diff["diff"]
        assert [(change["path"], change["op"]) for change in diff["files"]] == [("a.txt", "modify")]
        assert diff["applied"] is True
    assert (working.workspace / "a.txt").read_text() == "new\n"
