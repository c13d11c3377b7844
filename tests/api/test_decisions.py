"""Approve, reject, skip: one decision stands, about exactly what was shown, durable before it is told."""

import threading
from typing import Any

import pytest

from tests.api.conftest import Api

READ = {"key": "read", "type": "read_file", "input": {"path": "a.txt"}}


def hash_of(step: Any) -> dict[str, str]:
    return {"action_hash": step["approval"]["action_hash"]}


def test_the_question_shows_the_action(working: Api) -> None:
    path, step = working.asking(why="the plan says so")
    approval = step["approval"]
    assert set(approval) >= {"request_id", "revision", "action_hash", "risk", "rendering", "expires_at"}
    assert approval["revision"] == 1
    assert approval["status"] == "open"
    assert "-old\n+new\n" in approval["rendering"]["diff"]
    assert working.get(path)["waiting_for"] == [{"kind": "approval", "step_id": step["id"], "until": None}]
    assert (working.workspace / "a.txt").read_text() == "old\n"


def test_an_approval_runs_the_step_to_its_end(working: Api) -> None:
    path, step = working.asking()
    body = {**hash_of(step), "reason": "reads well"}
    answer = working.decide(path, step, "approve", body, **working.secret)
    decision = answer.json()["approval"]["decision"]
    assert decision["verdict"] == "approved"
    assert decision["actor"] == {"id": "local", "kind": "person", "channel": "api"}
    assert (decision["reason"], decision["implied"]) == ("reads well", False)
    working.until(path, lambda run: run["status"] == "completed")
    assert (working.workspace / "a.txt").read_text() == "new\n"


def test_an_answer_is_durable_before_it_is_told(working: Api) -> None:
    """Read back over a connection of its own, right after the response."""
    path, step = working.asking()
    assert working.decide(path, step, "approve", hash_of(step), **working.secret).status_code == 200

    async def decisions() -> int:
        async with working.stack.database.session() as connection:
            query = "SELECT count(*) FROM stepgate.approval_decisions WHERE run_id = $1"
            return int(await connection.fetchval(query, step["run_id"]))

    assert working.do(decisions()) == 1
    types = [event["type"] for event in working.get(f"{path}/events")["items"]]
    assert "approval.approved" in types


def test_approving_twice_gives_the_same_receipt_and_one_effect(working: Api) -> None:
    path, step = working.asking()
    first = working.decide(path, step, "approve", hash_of(step), **working.secret)
    working.until(path, lambda run: run["status"] == "completed")
    second = working.decide(path, step, "approve", hash_of(step), **working.secret)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["approval"] == second.json()["approval"]
    types = [event["type"] for event in working.get(f"{path}/events")["items"]]
    assert types.count("approval.approved") == 1
    assert types.count("step.computed") == 1


@pytest.mark.parametrize(("first", "second"), [("approve", "reject"), ("reject", "approve")])
def test_of_two_decisions_the_first_stands_and_is_shown(working: Api, first: str, second: str) -> None:
    path, step = working.asking()
    assert working.decide(path, step, first, hash_of(step), **working.secret).status_code == 200
    working.until(path, lambda run: run["status"] in ("completed", "cancelled"))
    response = working.decide(path, step, second, hash_of(step), **working.secret)
    assert response.status_code == 409
    problem = response.json()
    assert problem["type"] == "urn:stepgate:error:already_decided"
    assert problem["details"]["decision"]["verdict"] == {"approve": "approved", "reject": "rejected"}[first]


def test_of_decisions_at_the_same_time_one_stands(working: Api) -> None:
    path, step = working.asking()
    barrier = threading.Barrier(6)
    answers: list[tuple[str, int]] = []

    def decide(verb: str) -> None:
        barrier.wait(10)
        answers.append((verb, working.decide(path, step, verb, hash_of(step), **working.secret).status_code))

    threads = [threading.Thread(target=decide, args=(verb,)) for verb in ("approve", "reject") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    accepted = {verb for verb, status in answers if status == 200}
    assert len(accepted) == 1
    assert sorted(status for _, status in answers) == [200] * 3 + [409] * 3
    run = working.until(path, lambda run: run["status"] in ("completed", "cancelled"))
    assert run["status"] == ("completed" if accepted == {"approve"} else "cancelled")
    assert (working.workspace / "a.txt").read_text() == ("new\n" if accepted == {"approve"} else "old\n")


def test_a_wrong_hash_is_answered_with_the_present_action(working: Api) -> None:
    path, step = working.asking()
    response = working.decide(path, step, "approve", {"action_hash": "0" * 64}, **working.secret)
    assert response.status_code == 409
    problem = response.json()
    assert problem["type"] == "urn:stepgate:error:stale_approval"
    assert problem["errors"][0]["field"] == "action_hash"
    assert problem["details"]["action_hash"] == step["approval"]["action_hash"]
    assert problem["details"]["rendering"] == step["approval"]["rendering"]
    assert working.get(f"{path}/steps/{step['id']}")["status"] == "awaiting_approval"


def test_an_approval_of_an_action_that_changed_is_stale_and_shows_the_new_one(working: Api) -> None:
    """Somebody edits the file after the person has looked: the step asks again instead of writing over it."""
    path, step = working.asking()
    (working.workspace / "a.txt").write_text("mine\n")
    assert working.decide(path, step, "approve", hash_of(step), **working.secret).status_code == 200
    step_path = f"{path}/steps/{step['id']}"
    asked = working.until(step_path, lambda now: now["approval"]["revision"] == 2)
    assert "-mine\n+new\n" in asked["approval"]["rendering"]["diff"]
    assert (working.workspace / "a.txt").read_text() == "mine\n"
    stale = working.decide(path, step, "approve", hash_of(step), **working.secret)
    assert stale.status_code == 409
    assert stale.json()["details"]["revision"] == 2
    assert "-mine\n+new\n" in stale.json()["details"]["rendering"]["diff"]
    assert working.decide(path, step, "approve", hash_of(asked), **working.secret).status_code == 200
    working.until(path, lambda run: run["status"] == "completed")
    assert (working.workspace / "a.txt").read_text() == "new\n"


def test_an_empty_approve_is_only_for_the_first_revision(trusting: Api) -> None:
    path, step = trusting.asking()
    (trusting.workspace / "a.txt").write_text("mine\n")
    assert trusting.decide(path, step, "approve", hash_of(step)).status_code == 200
    step_path = f"{path}/steps/{step['id']}"
    trusting.until(step_path, lambda now: now["approval"]["revision"] == 2)
    response = trusting.decide(path, step, "approve")
    assert response.status_code == 409
    assert response.json()["type"] == "urn:stepgate:error:stale_approval"
    assert (trusting.workspace / "a.txt").read_text() == "mine\n"


def test_a_rejected_step_is_never_executed_and_ends_the_run(working: Api) -> None:
    path, step = working.asking()
    answer = working.decide(path, step, "reject", {"reason": "no"}, **working.secret)
    assert answer.json()["status"] == "rejected"
    assert answer.json()["approval"]["decision"]["then"] == "abort"
    run = working.until(path, lambda run: run["status"] == "cancelled")
    assert run["reason"] == "rejected"
    assert (working.workspace / "a.txt").read_text() == "old\n"


def test_a_rejection_may_go_on_without_the_step(working: Api) -> None:
    steps = [{"key": "edit", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}, READ]
    path = f"/v1/agent-runs/{working.run(steps, start=True)['id']}"
    step = working.until(path, lambda run: run["status"] == "awaiting_approval")["steps"][0]
    assert working.decide(path, step, "reject", {"then": "skip"}, **working.secret).status_code == 200
    run = working.until(path, lambda run: run["status"] == "completed")
    assert [step["status"] for step in run["steps"]] == ["rejected", "completed"]


BAD: list[tuple[str, Any, str]] = [
    ("reject", {"then": "explode"}, "then"),
    ("reject", {"reason": "x" * 2001}, "reason"),
    ("approve", {"action_hash": "abc"}, "action_hash"),
    ("approve", {"hash": "0" * 64}, "hash"),
    ("approve", {"action_hash": "0" * 64, "reason": 7}, "reason"),
    ("skip", {"action_hash": "0" * 64}, "action_hash"),
]


def test_a_bad_decision_is_named_and_decides_nothing(working: Api) -> None:
    path, step = working.asking()
    for verb, body, field in BAD:
        response = working.decide(path, step, verb, body, **working.secret)
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["field"] == field
    assert working.get(f"{path}/steps/{step['id']}")["status"] == "awaiting_approval"


def test_a_skipped_step_lets_its_dependents_go_on(working: Api) -> None:
    steps = [{"key": "edit", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}, READ]
    path = f"/v1/agent-runs/{working.run(steps, start=True)['id']}"
    step = working.until(path, lambda run: run["status"] == "awaiting_approval")["steps"][0]
    answer = working.decide(path, step, "skip", {"reason": "not today"}, **working.secret)
    assert (answer.json()["status"], answer.json()["reason"]) == ("skipped", "not today")
    assert answer.json()["approval"]["status"] == "void"
    working.until(path, lambda run: run["status"] == "completed")
    assert working.decide(path, step, "skip", **working.secret).status_code == 200
    done = working.get(path)["steps"][1]
    assert working.decide(path, done, "skip", **working.secret).status_code == 409


def test_a_step_that_asks_nothing_cannot_be_approved(api: Api) -> None:
    run = api.run([READ])
    path, step = f"/v1/agent-runs/{run['id']}", run["steps"][0]
    response = api.decide(path, step, "approve", {"action_hash": "0" * 64}, **api.secret)
    assert response.status_code == 409
    assert response.json()["type"] == "urn:stepgate:error:not_awaiting_approval"


def test_answering_while_nobody_works_is_kept_for_the_next_worker(alone: Api) -> None:
    """The answer does not need the worker that asked."""
    path, step = alone.asking()
    worker = alone.stack.worker
    assert worker is not None
    alone.do(worker.stop())
    assert alone.decide(path, step, "approve", hash_of(step), **alone.secret).status_code == 200
    assert alone.get(path)["steps"][0]["status"] == "approved"
    alone.do(worker.start())
    alone.until(path, lambda run: run["status"] == "completed")


def test_an_edit_is_recorded_and_asked_about_anew_and_whoever_comes_late_sees_what_stands(working: Api) -> None:
    path, step = working.asking()
    body = {"action_hash": step["approval"]["action_hash"], "input": {"path": "a.txt", "content": "edited\n"}}
    assert working.decide(path, step, "edit", body).status_code == 401
    edited = working.decide(
        path, step, "edit", body | {"reason": "better"}, **working.secret, Idempotency_Key=working.key
    )
    assert edited.status_code == 200, edited.text
    again = working.decide(
        path, step, "edit", body | {"reason": "better"}, **working.secret, Idempotency_Key=working.key
    )
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    run = working.until(path, lambda run: run["steps"][0]["approval"]["revision"] == 2)
    late = working.decide(path, step, "approve", {"action_hash": body["action_hash"]}, **working.secret)
    assert (late.status_code, late.json()["type"].rpartition(":")[2]) == (409, "stale_approval")
    approval = working.get(f"{path}/steps/{step['id']}")["approval"]
    assert late.json()["details"]["action_hash"] == approval["action_hash"]
    assert "+edited" in approval["rendering"]["diff"]
    inbox = working.get("/v1/approvals", status="edited")["items"]
    (decision,) = [one["decision"] for one in inbox if one["run_id"] == run["id"]]
    assert (decision["verdict"], decision["actor"]["id"], decision["reason"]) == ("edited", "local", "better")
    faulty = working.decide(path, step, "edit", {**body, "input": {"path": 1, "content": ""}}, **working.secret)
    assert (faulty.status_code, faulty.json()["errors"][0]["field"]) == (422, "input.path")
