"""Deliveries over HTTP."""

from typing import Any

import pytest

from tests.api.conftest import Api
from tests.workspace.git.repositories import Git, needs_git


def ended(api: Api) -> str:
    """The address of a run that changed a.txt, approved, and has ended."""
    edit = {"key": "edit", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}
    run = api.run([edit], start=True, workspace_mode="isolated")
    path = f"/v1/agent-runs/{run['id']}"
    step: Any = api.until(path, lambda run: run["status"] == "awaiting_approval")["steps"][0]
    decided = api.decide(path, step, "approve", {"action_hash": step["approval"]["action_hash"]}, **api.secret)
    assert decided.status_code == 200
    api.until(path, lambda run: run["status"] == "completed")
    return path


def test_a_result_is_applied_by_a_run_of_its_own(working: Api) -> None:
    path = ended(working)
    key = {"Idempotency_Key": working.key}
    response = working.send(f"{path}/deliver", {"as": "apply"}, **key)
    assert response.status_code == 200
    made = response.json()
    own = f"/v1/agent-runs/{made['run']['id']}"
    assert response.headers["location"] == f"{own}/steps/{made['step']['id']}"
    assert (made["patch"], made["branch"], made["step"]["step_type"]) == (None, None, "deliver")
    again = working.send(f"{path}/deliver", {"as": "apply"}, **key)
    assert (again.headers["idempotency-replayed"], again.json()["run"]["id"]) == ("true", made["run"]["id"])
    run = working.until(own, lambda run: run["status"] == "awaiting_approval")
    step = run["steps"][0]
    assert working.decide(own, step, "approve", {"action_hash": step["approval"]["action_hash"]}).status_code == 401
    body = {"action_hash": step["approval"]["action_hash"]}
    assert working.decide(own, step, "approve", body, **working.secret).status_code == 200
    working.until(own, lambda run: run["status"] == "completed")
    assert (working.workspace / "a.txt").read_text() == "new\n"
    delivered = f"delivers={path.rpartition('/')[2]}"
    assert [run["id"] for run in working.get("/v1/agent-runs", label=delivered)["items"]] == [made["run"]["id"]]


def test_a_conflict_is_a_409_with_the_paths(working: Api) -> None:
    path = ended(working)
    (working.workspace / "a.txt").write_text("mine\n")
    problem = working.post(f"{path}/deliver", {"as": "apply"}, expect=409)
    assert problem["type"] == "urn:stepgate:error:workspace_conflict"
    assert problem["details"]["paths"] == ["a.txt"]


def test_a_patch_is_given_as_text(working: Api) -> None:
    path = ended(working)
    patch = working.post(f"{path}/deliver", {"as": "patch"})["patch"]
    assert patch["left_out"] == []
    assert patch["text"].startswith("diff --git a/a.txt b/a.txt\nindex ")
    assert patch["text"].endswith("@@ -1 +1 @@\n-old\n+new\n")


@needs_git
def test_a_branch_needs_the_secret(working: Api) -> None:
    git = Git(working.workspace).init()
    git.commit()
    path = ended(working)
    body = {"as": "branch", "branch": "result"}
    assert working.send(f"{path}/deliver", body).status_code == 401
    assert git("branch", "--list", "result") == ""
    made = working.send(f"{path}/deliver", body, **working.secret).json()["branch"]
    assert (made["name"], made["commit"]) == ("result", git("rev-parse", "result"))
    assert [commit["step"] for commit in made["commits"]] == ["edit"]
    assert working.send(f"{path}/deliver", body, **working.secret).json()["branch"] == made
    git("branch", "other", "main")
    other = working.send(f"{path}/deliver", body | {"branch": "other"}, **working.secret)
    assert other.json()["type"].endswith(":branch_exists")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "as"),
        ({"as": "mail"}, "as"),
        ({"as": "patch", "branch": "x"}, "branch"),
        ({"as": "patch", "file": "/etc/passwd"}, "file"),
    ],
)
def test_what_is_no_form_is_refused_by_field(quiet: Api, body: dict[str, str], field: str) -> None:
    run = quiet.elsewhere().run()
    problem = quiet.post(f"/v1/agent-runs/{run['id']}/deliver", body, expect=422)
    assert problem["errors"][0]["field"] == field


def test_only_a_run_that_has_ended_has_a_result(quiet: Api) -> None:
    run = quiet.elsewhere().run()
    for form in ("apply", "patch"):
        problem = quiet.post(f"/v1/agent-runs/{run['id']}/deliver", {"as": form}, expect=409)
        assert problem["type"].endswith(":run_not_ended")
    assert quiet.post(f"/v1/agent-runs/{run['id']}/discard", expect=409)["type"].endswith(":run_not_ended")


def test_a_private_copy_is_discarded_once(working: Api) -> None:
    path = ended(working)
    first = working.post(f"{path}/discard")
    assert (first["removed"], working.post(f"{path}/discard")["removed"]) == (True, False)
    assert first["run"]["private_copy"]["discarded_at"] is not None
    assert working.post(f"{path}/undo", {}, expect=409)["type"].endswith(":copy_discarded")
    assert working.post(f"{path}/deliver", {"as": "patch"})["patch"]["text"]


def test_a_fork_is_a_run_of_its_own_and_made_once_under_a_key(working: Api) -> None:
    path = ended(working)
    key = {"Idempotency_Key": working.key}
    response = working.send(f"{path}/fork", {"from_step": "edit"}, **key)
    assert response.status_code == 201, response.text
    made = response.json()
    assert response.headers["location"] == f"/v1/agent-runs/{made['id']}"
    assert (made["status"], made["forked_from"]["run_id"]) == ("planned", path.rpartition("/")[2])
    assert [step["key"] for step in made["steps"]] == ["fork", "edit"]
    again = working.send(f"{path}/fork", {"from_step": "edit"}, **key)
    assert (again.headers["idempotency-replayed"], again.json()["id"]) == ("true", made["id"])
    for body in ({}, {"from_step": 0}, {"from_step": "ghost"}, {"from_step": "edit", "more": 1}):
        assert working.send(f"{path}/fork", body).status_code == 422
    (working.workspace / "a.txt").write_text("mine\n")
    problem = working.post(f"{path}/fork", {"from_step": "edit"}, expect=409)
    assert problem["details"]["paths"] == ["a.txt"]


def test_a_replay_is_told_with_what_it_found(working: Api) -> None:
    path = ended(working)
    told = working.post(f"{path}/replay", Idempotency_Key=working.key)
    assert (told["step"]["status"], told["run"]["labels"]) == ("completed", {"replays": path.rpartition("/")[2]})
    assert (told["replay"]["agreed"], told["replay"]["divergence"]) == (1, None)
    assert working.post(f"{path}/replay", Idempotency_Key=working.key)["run"]["id"] == told["run"]["id"]
    assert working.send(f"{path}/replay", {"printed": 1}).status_code == 422
