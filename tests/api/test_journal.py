"""Events, cost and proof of a run."""

from hashlib import sha256
from typing import Any

import pytest

from tests.api.conftest import Api

READ = {"key": "read", "type": "read_file", "input": {"path": "a.txt"}}
ANALYZE = {"key": "look", "type": "analyze", "input": {"instruction": "What does it say?"}}


def completed(api: Api, steps: list[dict[str, Any]]) -> str:
    path = f"/v1/agent-runs/{api.run(steps, start=True)['id']}"
    api.until(path, lambda run: run["status"] == "completed")
    return path


def test_anyone_can_check_the_chain_from_the_events_alone(working: Api) -> None:
    path = completed(working, [READ])
    events = working.get(f"{path}/events", limit=200)["items"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events][:2] == ["run.created", "run.planned"]
    assert events[-1]["type"] == "run.completed"
    head = bytes(32)
    for event in events:
        assert event["prev_hash"] == head.hex()
        head = sha256(head + event["body"].encode()).digest()
        assert event["hash"] == head.hex()
    verdict = working.get(f"{path}/verify")
    assert verdict == {
        "run_id": path.rpartition("/")[2],
        "verified": True,
        "events": len(events),
        "head_hash": head.hex(),
        "first_bad_seq": None,
        "reason": None,
    }
    assert working.get(path)["head_seq"] == len(events)


def test_events_have_pages_that_do_not_move(working: Api) -> None:
    path = completed(working, [READ])
    whole = working.get(f"{path}/events", limit=200)["items"]
    pages, cursor = [], None
    while True:
        page = working.get(f"{path}/events", limit=2, **({} if cursor is None else {"cursor": cursor}))
        pages += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert pages == whole


@pytest.mark.parametrize("cursor", ["-1", "x", "1.5", "99999999999999999999", "\u0661"])
def test_a_cursor_that_no_page_gave_is_refused(api: Api, cursor: str) -> None:
    run = api.run([READ])
    for what in ("events", "steps"):
        response = api.client.get(f"/v1/agent-runs/{run['id']}/{what}", params={"cursor": cursor})
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "cursor"


def test_a_changed_table_does_not_verify(working: Api) -> None:
    path = completed(working, [READ])

    async def tamper() -> None:
        async with working.stack.database.session() as connection:
            await connection.execute('UPDATE stepgate.steps SET output = \'{"text":"forged"}\'')

    working.do(tamper())
    verdict = working.get(f"{path}/verify")
    assert verdict["verified"] is False
    assert verdict["reason"]


def test_a_run_without_model_calls_cost_nothing(working: Api) -> None:
    path = completed(working, [READ])
    cost = working.get(f"{path}/cost")
    assert (cost["total_cost_usd"], cost["known_cost_usd"], cost["calls"], cost["unknown_calls"]) == ("0", "0", 0, 0)
    assert (cost["by_step"], cost["by_model"]) == ([], [])


def test_cost_is_told_by_step_and_by_model(working: Api) -> None:
    path = completed(working, [READ, ANALYZE])
    cost = working.get(f"{path}/cost")
    assert cost["calls"] == 1
    (step,) = cost["by_step"]
    (model,) = cost["by_model"]
    assert (step["key"], step["cost_source"], step["total_cost_usd"]) == ("look", "offline", "0")
    assert model["model"] == step["model"] == "offline-extractive-v1"
    assert step["tokens"] == {"input": None, "output": None, "cached": None, "reasoning": None}


def test_a_call_of_unknown_cost_makes_the_total_unknown_and_not_zero(working: Api) -> None:
    path = completed(working, [READ, ANALYZE])

    async def forget() -> None:
        async with working.stack.database.session() as connection:
            run_id = path.rpartition("/")[2]
            for change in (
                "stepgate.runs SET unknown_cost_calls = 1, known_cost_usd = 0.25 WHERE id = $1",
                "stepgate.steps SET unknown_cost_calls = model_calls WHERE run_id = $1",
                "stepgate.model_calls SET cost_usd = NULL WHERE run_id = $1",
            ):
                await connection.execute(f"UPDATE {change}", run_id)

    working.do(forget())
    cost = working.get(f"{path}/cost")
    assert (cost["total_cost_usd"], cost["known_cost_usd"], cost["unknown_calls"]) == (None, "0.25", 1)
    assert cost["by_step"][0]["total_cost_usd"] is None
    assert cost["by_model"][0]["total_cost_usd"] is None
    run = working.get(path)
    assert (run["total_cost_usd"], run["unknown_cost_calls"]) == (None, 1)
    assert run["steps"][1]["cost_usd"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"group_by": "planet"}, "group_by"),
        ({"group_by": "label"}, "label"),
        ({"label": "team"}, "label"),
        ({"only": "team"}, "only"),
        ({"only": ["a=1", "a=2"]}, "only"),
        ({"since": "yesterday"}, "since"),
        ({"other": "1"}, "other"),
    ],
)
def test_a_query_of_costs_that_makes_no_sense_is_refused_by_name(quiet: Api, query: dict[str, Any], field: str) -> None:
    response = quiet.client.get("/v1/costs", params=query)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_costs_are_summed_over_runs(working: Api) -> None:
    completed(working, [READ, ANALYZE])
    found = working.get("/v1/costs", group_by="MODEL")
    assert found["group_by"] == "model"
    (model,) = found["items"]
    assert model["name"] == "offline-extractive-v1"
    assert model["runs"] >= 1
