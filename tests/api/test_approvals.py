"""The inbox."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.api.conftest import Api

INBOX = "/v1/approvals"


def edit(name: str) -> dict[str, Any]:
    return {"key": name, "type": "edit_file", "input": {"path": f"{name}.txt", "content": "new\n"}, "needs": []}


def test_the_inbox_holds_every_open_question_the_oldest_first(alone: Api) -> None:
    run = alone.run([edit("a"), edit("b"), edit("c")], start=True)
    inbox = alone.until(INBOX, lambda inbox: len(inbox["items"]) == 3)
    assert [one["request_id"] for one in inbox["items"]] == sorted(one["request_id"] for one in inbox["items"])
    assert {one["step_key"] for one in inbox["items"]} == {"a", "b", "c"}
    first = inbox["items"][0]
    assert first["run_id"] == run["id"]
    assert first["goal"] == "look around"
    assert "+new\n" in first["rendering"]["diff"]
    assert first["matched_rules"] == ["default:edit_file"]


def test_a_question_leaves_the_inbox_when_it_is_decided(alone: Api) -> None:
    path, step = alone.asking()
    (question,) = alone.get(INBOX)["items"]
    assert question["action_hash"] == step["approval"]["action_hash"]
    body = {"action_hash": question["action_hash"]}
    assert alone.decide(path, step, "approve", body, **alone.secret).status_code == 200
    assert alone.get(INBOX)["items"] == []
    (decided,) = alone.get(INBOX, status="Approved")["items"]
    assert decided["decision"]["verdict"] == "approved"


def test_a_question_leaves_the_inbox_with_its_run(alone: Api) -> None:
    path, _ = alone.asking()
    alone.post(f"{path}/cancel")
    assert alone.get(INBOX)["items"] == []
    assert len(alone.get(INBOX, status="void")["items"]) == 1


def test_the_inbox_has_pages(alone: Api) -> None:
    alone.run([edit("a"), edit("b"), edit("c")], start=True)
    whole = alone.until(INBOX, lambda inbox: len(inbox["items"]) == 3)
    first = alone.get(INBOX, limit=2)
    second = alone.get(INBOX, limit=2, cursor=first["next_cursor"])
    assert first["items"] + second["items"] == whole["items"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "field"), [({"status": "lost"}, "status"), ({"cursor": "x"}, "cursor"), ({"x": 1}, "x")]
)
def test_a_bad_filter_of_the_inbox_is_named(quiet: Api, query: dict[str, Any], field: str) -> None:
    response = quiet.client.get(INBOX, params=query)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


def test_several_decisions_stand_or_fall_each_on_its_own(alone: Api) -> None:
    # They change nothing, so that no question is asked anew because another step was carried out.
    reads = [{"type": "read_file", "input": {"path": "a.txt"}, "gate": "ask", "needs": []} for _ in range(4)]
    alone.run(reads, start=True)
    a, b, c, d = alone.until(INBOX, lambda inbox: len(inbox["items"]) == 4)["items"]
    assert alone.get(f"{INBOX}/{a['request_id']}") == a

    def one(asked: Any, **more: Any) -> dict[str, Any]:
        return {"request_id": asked["request_id"], "action_hash": asked["action_hash"], **more}

    wanted = [
        one(a, reason="reads well"),
        one(b) | {"action_hash": "0" * 64},
        one(c, verdict="reject", then="skip"),
        one(d) | {"request_id": "019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b10"},
        one(d) | {"request_id": "nothing"},
    ]
    assert alone.send(f"{INBOX}/bulk", {"decisions": wanted}).status_code == 401
    first = alone.post(f"{INBOX}/bulk", {"decisions": wanted}, expect=200, **alone.secret)["items"]
    assert [item["status"] for item in first] == [200, 409, 200, 404, 404]
    assert [item["approval"] and item["approval"]["decision"]["verdict"] for item in first] == [
        *("approved", None, "rejected", None, None),
    ]
    assert first[1]["problem"]["type"] == "urn:stepgate:error:stale_approval"
    assert first[1]["problem"]["details"]["action_hash"] == b["action_hash"]
    again = alone.post(f"{INBOX}/bulk", {"decisions": wanted[:1]}, expect=200, **alone.secret)["items"]
    assert [item["approval"]["decision"] for item in again] == [first[0]["approval"]["decision"]]
    both = [one(a, verdict="reject"), one(b)]
    other = alone.post(f"{INBOX}/bulk", {"decisions": both}, expect=200, **alone.secret)["items"]
    assert [item["status"] for item in other] == [409, 200]
    assert [asked["request_id"] for asked in alone.get(INBOX)["items"]] == [d["request_id"]]


def test_several_decisions_are_named_one_by_one_and_not_too_many(quiet: Api) -> None:
    one = {"request_id": "019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b10", "action_hash": "0" * 64}
    many = [one | {"request_id": str(number)} for number in range(101)]
    for decisions in ([], many, [one, one], [{"request_id": one["request_id"]}], "all"):
        answer = quiet.post(f"{INBOX}/bulk", {"decisions": decisions}, expect=422, **quiet.secret)
        assert answer["errors"][0]["field"].startswith("decisions") or "twice" in answer["detail"]
    assert quiet.client.get(f"{INBOX}/nothing").status_code == 404


def test_the_rule_that_is_shown_is_added_by_an_administrator(alone: Api) -> None:
    _, step = alone.asking()
    asked = step["approval"]
    address = f"{INBOX}/{asked['request_id']}/rule"
    until = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    shown = alone.get(address, until=until, anyone=True)
    assert shown["rule"]["match"] == {"executor": ["edit_file"], "paths": ["a.txt"]}
    body = {"action_hash": asked["action_hash"], "until": shown["until"], "anyone": True, "replaces": "builtin-1"}
    assert alone.send(address, body).status_code == 401
    applied = alone.post(address, body, expect=201, **alone.secret)
    assert [one["match"] for one in applied["document"]["rules"]] == [shown["rule"]["match"]]
    assert applied["document"]["rules"][0]["why"].startswith("always allowed by local: approval ")
    again = alone.run([{"key": "e", "type": "edit_file", "input": {"path": "a.txt", "content": "2\n"}}], start=True)
    done = alone.until(f"/v1/agent-runs/{again['id']}", lambda run: run["status"] == "completed")
    assert done["steps"][0]["approval"]["decision"]["actor"]["kind"] == "system"
    assert alone.client.get(address, params={"until": "soon"}).status_code == 422
