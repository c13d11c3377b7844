"""The inbox."""

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
