"""Budgets over HTTP: set, looked at, extended, removed; who may not, may not."""

from typing import Any

import pytest

from tests.api.conftest import Api

READ = {"key": "read", "type": "read_file", "input": {"path": "a.txt"}}


def set_budget(api: Api, expect: int = 200, **body: Any) -> Any:
    response = api.send("/v1/budgets", body, **api.secret)
    assert response.status_code == expect, response.text
    return response.json()


def test_a_budget_is_set_changed_listed_and_removed(api: Api) -> None:
    made = set_budget(api, scope="label+day", label="team=blue", cost_usd="0.50")
    assert (made["label"], made["limit"]) == ("team=blue", {"cost_usd": "0.5", "tokens": None})
    assert (made["spent"], made["percent"], made["created_by"]) == ({"cost_usd": "0", "tokens": 0}, 0, "local")
    changed = set_budget(api, scope="label+day", label="team=blue", cost_usd=2, tokens=1000)
    assert (changed["id"], changed["limit"]) == (made["id"], {"cost_usd": "2", "tokens": 1000})
    whole = set_budget(api, scope="day", tokens=5)
    ever = set_budget(api, scope="label", label="team=blue", tokens=5)
    assert ever["day"] is None
    assert whole["day"] is not None
    page = api.get("/v1/budgets", limit=2)
    assert [one["id"] for one in page["items"]] == [made["id"], whole["id"]]
    assert [one["id"] for one in api.get("/v1/budgets", cursor=page["next_cursor"])["items"]] == [ever["id"]]
    removed = api.client.delete(f"/v1/budgets/{made['id']}", headers=api.secret)
    assert (removed.status_code, removed.json()["id"]) == (200, made["id"])
    assert api.client.delete(f"/v1/budgets/{made['id']}", headers=api.secret).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scope": "day"}, "cost_usd"),
        ({"scope": "day", "label": "a=b", "tokens": 1}, "label"),
        ({"scope": "label", "tokens": 1}, "label"),
        ({"scope": "label", "label": "blue", "tokens": 1}, "label"),
        ({"scope": "week", "tokens": 1}, "scope"),
        ({"scope": "day", "cost_usd": "-1"}, "cost_usd"),
        ({"scope": "day", "tokens": 1.5}, "tokens"),
    ],
)
def test_what_is_no_budget_is_refused_by_field(quiet: Api, body: dict[str, Any], field: str) -> None:
    refused = set_budget(quiet, 422, **body)
    assert refused["errors"][0]["field"] == field


def test_a_runs_budget_is_shown_and_extended_once_under_its_key(api: Api) -> None:
    run = api.run([READ], limits={"cost_usd": 0.5})
    path = f"/v1/agent-runs/{run['id']}"
    assert run["budget"]["limit"] == {"cost_usd": "0.5", "tokens": None}
    headers = {**api.secret, "Idempotency_Key": api.key}
    for _ in range(2):
        told = api.send(f"{path}/budget", {"add_usd": "0.25"}, **headers).json()
        assert told["budget"]["limit"]["cost_usd"] == "0.75"
        assert told["limits"] == {"cost_usd": "0.5"}
    (event,) = [one for one in api.get(f"{path}/events")["items"] if one["type"] == "budget.extended"]
    assert event["actor"]["id"] == "local"
    refused = api.send(f"{path}/budget", {"add_tokens": 5}, **api.secret).json()
    assert refused["errors"][0]["field"] == "add_tokens"


def test_who_extends_a_budget_must_prove_to_want_it(api: Api) -> None:
    run = api.run([READ], limits={"cost_usd": "0.5"})
    assert api.send(f"/v1/agent-runs/{run['id']}/budget", {"add_usd": "9"}).status_code == 401
    assert api.send("/v1/budgets", {"scope": "day", "tokens": 5}).status_code == 401
    assert api.client.delete(f"/v1/budgets/{run['id']}").status_code == 401
    assert api.get(f"/v1/agent-runs/{run['id']}")["budget"]["limit"]["cost_usd"] == "0.5"


@pytest.mark.parametrize("limits", [{"cost_usd": "x"}, {"cost_usd": -1}, {"tokens": "5"}, {"dollars": 1}])
def test_limits_of_a_run_are_checked_when_it_is_made(quiet: Api, limits: dict[str, Any]) -> None:
    body = {"goal": "x", "workspace_path": str(quiet.workspace), "steps": [READ], "limits": limits}
    refused = quiet.post("/v1/agent-runs", body, expect=422)
    assert refused["errors"][0]["field"] == f"limits.{next(iter(limits))}"
