"""Requests that are sent again under their `Idempotency-Key`."""

import threading
from typing import Any

import pytest

from tests.api.conftest import Api

PATH = "/v1/agent-runs"
READ = {"key": "read", "type": "read_file", "input": {"path": "a.txt"}}


def body_of(api: Api, **more: Any) -> dict[str, Any]:
    return {"goal": "x", "workspace_path": str(api.workspace), **more}


def test_a_repeated_create_gives_the_same_run(api: Api) -> None:
    first = api.send(PATH, body_of(api, steps=[READ]), Idempotency_Key=api.key)
    second = api.send(PATH, body_of(api, steps=[READ]), Idempotency_Key=api.key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert second.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert len(api.get(PATH)["items"]) == 1


def test_the_order_of_fields_does_not_make_another_request(api: Api) -> None:
    body = body_of(api, labels={"a": "1", "b": "2"})
    backwards = dict(reversed(body.items()))
    first = api.send(PATH, body, Idempotency_Key=api.key)
    assert api.send(PATH, backwards, Idempotency_Key=api.key).json() == first.json()


def test_a_key_is_for_one_request_only(api: Api) -> None:
    run = api.send(PATH, body_of(api, steps=[READ]), Idempotency_Key=api.key).json()
    for path, body in ((PATH, body_of(api, goal="y")), (f"{PATH}/{run['id']}/start", None)):
        response = api.send(path, body, Idempotency_Key=api.key)
        assert response.status_code == 422
        assert response.json()["type"] == "urn:stepgate:error:idempotency_mismatch"
        assert response.json()["errors"][0]["field"] == "Idempotency-Key"
    assert len(api.get(PATH)["items"]) == 1
    assert api.get(f"{PATH}/{run['id']}")["status"] == "planned"


def test_a_refused_request_leaves_its_key_free(api: Api) -> None:
    assert api.send(PATH, body_of(api, goal=""), Idempotency_Key=api.key).status_code == 422
    assert api.send(PATH, body_of(api), Idempotency_Key=api.key).status_code == 201


@pytest.mark.parametrize("empty", [True, False])
def test_steps_are_added_once(api: Api, empty: bool) -> None:
    run = api.run(None if empty else [{**READ, "key": "first"}])
    path = f"{PATH}/{run['id']}/steps"
    body = {"steps": [READ, {**READ, "key": "b"}]}
    first = api.send(path, body, Idempotency_Key=api.key)
    second = api.send(path, body, Idempotency_Key=api.key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert [step["key"] for step in second.json()["items"]] == ["read", "b"]
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert len(api.get(path)["items"]) == (2 if empty else 3)


def test_execute_grants_one_step_and_a_repetition_waits_for_the_same(working: Api) -> None:
    run = working.run([READ, {**READ, "key": "b"}])
    first = working.send(f"{PATH}/{run['id']}/execute", Idempotency_Key=working.key)
    second = working.send(f"{PATH}/{run['id']}/execute?wait_s=1", Idempotency_Key=working.key)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["step"] == second.json()["step"]
    assert [step["status"] for step in working.get(f"{PATH}/{run['id']}")["steps"]] == ["completed", "pending"]


def test_a_repeated_decision_gives_the_same_receipt(working: Api) -> None:
    path, step = working.asking()
    body = {"action_hash": step["approval"]["action_hash"]}
    first = working.decide(path, step, "approve", body, **working.secret, Idempotency_Key=working.key)
    second = working.decide(path, step, "approve", body, **working.secret, Idempotency_Key=working.key)
    assert first.json()["approval"] == second.json()["approval"]
    assert second.headers["idempotency-replayed"] == "true"


def test_a_replay_does_not_pass_by_the_secret(working: Api) -> None:
    path, step = working.asking()
    body = {"action_hash": step["approval"]["action_hash"]}
    assert working.decide(path, step, "approve", body, **working.secret, Idempotency_Key=working.key).status_code == 200
    assert working.decide(path, step, "approve", body, Idempotency_Key=working.key).status_code == 401


def test_an_undo_is_asked_for_once(working: Api) -> None:
    path, step = working.asking()
    body = {"action_hash": step["approval"]["action_hash"]}
    assert working.decide(path, step, "approve", body, **working.secret).status_code == 200
    working.until(path, lambda run: run["status"] == "completed")
    first = working.send(f"{path}/undo", {}, Idempotency_Key=working.key).json()
    second = working.send(f"{path}/undo", {}, Idempotency_Key=working.key).json()
    assert first["step"]["id"] == second["step"]["id"]
    assert len(working.get(f"{path}/steps")["items"]) == 2


def test_of_the_same_request_at_the_same_time_one_is_carried_out(api: Api) -> None:
    barrier = threading.Barrier(6)
    answers: list[Any] = []

    def create() -> None:
        barrier.wait(10)
        answers.append(api.send(PATH, body_of(api), Idempotency_Key=api.key))

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [answer.status_code for answer in answers] == [201] * 6
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(api.get(PATH)["items"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_too_long_or_cannot_be_seen_is_refused(quiet: Api, key: str) -> None:
    response = quiet.send(PATH, body_of(quiet), Idempotency_Key=key)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Idempotency-Key"
    assert quiet.get(PATH)["items"] == []


def test_the_longest_key_is_taken(api: Api) -> None:
    assert api.send(PATH, body_of(api), Idempotency_Key="x" * 255).status_code == 201
