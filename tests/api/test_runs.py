"""Making, finding and looking at runs."""

import re
from datetime import datetime
from typing import Any

import pytest

from tests.api.conftest import Api

PATH = "/v1/agent-runs"
READ = {"key": "read", "type": "read_file", "input": {"path": "a.txt"}}
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_a_run_has_every_field_that_was_promised(api: Api) -> None:
    run = api.run([READ], labels={"team": "core"}, metadata={"ticket": 7}, limits={"max_steps": 5})
    assert set(run) >= {
        *(
            "id",
            "goal",
            "status",
            "reason",
            "waiting_for",
            "workspace_path",
            "workspace_mode",
            "workspace_rev",
            "labels",
        ),
        *("metadata", "requester", "limits", "progress", "total_cost_usd", "tokens", "unknown_cost_calls", "head_seq"),
        *("created_at", "started_at", "completed_at", "steps"),
    }
    assert UUID7.fullmatch(run["id"])
    assert run["status"] == "planned"
    assert run["labels"] == {"team": "core"}
    assert run["metadata"] == {"ticket": 7}
    assert run["requester"] == {"id": "local", "kind": "person", "channel": "api"}
    assert run["progress"] == {"done": 0, "total": 1}
    assert run["total_cost_usd"] == "0"
    assert run["tokens"] == {"input": None, "output": None, "cached": None, "reasoning": None}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", run["created_at"])
    assert datetime.fromisoformat(run["created_at"]).tzinfo is not None


def test_the_location_of_a_new_run_leads_to_it(api: Api) -> None:
    response = api.send(PATH, {"goal": "x", "workspace_path": str(api.workspace)})
    assert response.status_code == 201
    assert response.headers["location"] == f"{PATH}/{response.json()['id']}"
    assert api.get(response.headers["location"]) == response.json()


def test_a_run_without_steps_waits_for_a_person(api: Api) -> None:
    run = api.run()
    assert run["status"] == "created"
    assert run["waiting_for"] == [{"kind": "person", "step_id": None, "until": None}]


def test_a_planned_run_waits_for_the_next_execute(api: Api) -> None:
    run = api.run([READ, {**READ, "key": "again"}])
    assert run["waiting_for"] == [{"kind": "execute", "step_id": run["steps"][0]["id"], "until": None}]


def test_a_started_run_waits_for_nobody_but_a_worker(api: Api) -> None:
    run = api.run([READ], start=True)
    assert run["status"] == "queued"
    assert run["waiting_for"] == []


def test_a_plan_brings_its_goal_name_and_limits(api: Api) -> None:
    plan = {"version": 1, "name": "tour", "goal": "look", "limits": {"max_steps": 3}, "steps": [READ]}
    run = api.post(PATH, {"plan": plan, "workspace_path": str(api.workspace)}, expect=201)
    assert (run["name"], run["goal"], run["limits"]) == ("tour", "look", {"max_steps": 3})


BAD: list[tuple[dict[str, Any], str]] = [
    ({"goal": ""}, "goal"),
    ({"goal": " \n"}, "goal"),
    ({"goal": None}, "goal"),
    ({"goal": "x" * 10_001}, "goal"),
    ({"plan": {"steps": []}}, "steps"),
    ({"steps": [READ], "plan": {"steps": [READ]}}, "steps"),
    ({"steps": "read_file"}, "steps"),
    ({"steps": [{"type": "teleport"}]}, "steps[0].type"),
    ({"steps": [{**READ, "surprise": 1}]}, "steps[0].surprise"),
    ({"steps": [{"type": "read_file", "input": {"path": "a.txt", "surprise": 1}}]}, "steps[0].input.surprise"),
    ({"steps": [READ, READ]}, "steps[1].key"),
    ({"steps": [{**READ, "needs": ["read"]}]}, "steps[0].needs"),
    (
        {
            "steps": [
                {**READ, "needs": ["b"]},
                {"key": "b", "type": "read_file", "input": {"path": "b"}, "needs": ["read"]},
            ]
        },
        "steps[0].needs",
    ),
    (
        {
            "steps": [
                {**READ, "input": {"path": "${{ steps.later.output.text }}"}},
                {**READ, "key": "later", "needs": []},
            ]
        },
        "steps[0].input.path",
    ),
    ({"steps": [{**READ, "input": {"path": "/etc/passwd"}}]}, "steps[0].input.path"),
    ({"steps": [{**READ, "input": {"path": "../a"}}]}, "steps[0].input.path"),
    ({"limits": {"max_steps": 0}}, "limits.max_steps"),
    ({"limits": {"max_stops": 1}}, "limits.max_stops"),
    ({"labels": {"": "x"}}, "labels"),
    ({"workspace_path": "/"}, "workspace_path"),
    ({"workspace_path": "/nowhere/at/all"}, "workspace_path"),
    ({"workspace_path": "relative"}, "workspace_path"),
]


@pytest.mark.parametrize(("more", "field"), BAD, ids=[f"{n}-{field}" for n, (_, field) in enumerate(BAD)])
def test_bad_input_creates_nothing_and_names_the_field(quiet: Api, more: dict[str, Any], field: str) -> None:
    response = quiet.send(PATH, {"goal": "x", "workspace_path": str(quiet.workspace), **more})
    assert response.status_code == 422, response.text
    named = [fault["field"] for fault in response.json()["errors"]]
    assert any(name == field or name.startswith((field + ".", field + "[")) for name in named), named
    assert quiet.get(PATH)["items"] == []


def test_ten_thousand_and_one_steps_are_too_many(quiet: Api) -> None:
    steps = [{"type": "read_file", "input": {"path": "a.txt"}} for _ in range(10_001)]
    response = quiet.send(PATH, {"goal": "x", "workspace_path": str(quiet.workspace), "steps": steps})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "steps"


def test_every_fault_of_a_plan_is_told_at_once(quiet: Api) -> None:
    steps = [{"type": "teleport"}, {"type": "read_file", "input": {}}]
    response = quiet.send(PATH, {"goal": "x", "workspace_path": str(quiet.workspace), "steps": steps})
    assert len(response.json()["errors"]) >= 2
    assert response.json()["type"] == "urn:stepgate:error:invalid_plan"


def test_pages_are_stable_while_runs_are_made(api: Api) -> None:
    made = [api.run()["id"] for _ in range(5)]
    first = api.get(PATH, limit=2)
    newer = api.run()["id"]
    second = api.get(PATH, limit=2, cursor=first["next_cursor"])
    third = api.get(PATH, limit=2, cursor=second["next_cursor"])
    assert [run["id"] for page in (first, second, third) for run in page["items"]] == made[::-1]
    assert third["next_cursor"] is None
    assert api.get(PATH, limit=1)["items"][0]["id"] == newer


def test_the_last_page_that_is_full_has_no_next(api: Api) -> None:
    for _ in range(2):
        api.run()
    assert api.get(PATH, limit=2)["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": "019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b1z"}, "cursor"),
        ({"status": "asleep"}, "status"),
        ({"label": "team"}, "label"),
        ({"created_after": "yesterday"}, "created_after"),
        ({"created_after": "2026-01-31T12:00:00"}, "created_after"),
        ({"created_after": "0001-01-01T00:00:00+01:00"}, "created_after"),
        ({"q": ""}, "q"),
        ({"q": "\0"}, "q"),
        ({"surprise": "1"}, "surprise"),
    ],
)
def test_a_bad_filter_is_named_and_never_ignored(quiet: Api, query: dict[str, Any], field: str) -> None:
    response = quiet.client.get(PATH, params=query)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["field"] == field


def ids(page: Any) -> list[str]:
    return [run["id"] for run in page["items"]]


def test_runs_are_found_by_status_in_any_case(api: Api) -> None:
    created, planned, queued = api.run()["id"], api.run([READ])["id"], api.run([READ], start=True)["id"]
    assert ids(api.get(PATH, status="PLANNED")) == [planned]
    assert ids(api.get(PATH, status=["Created", "queued"])) == [queued, created]
    assert ids(api.get(PATH, status="completed")) == []


def test_runs_are_found_by_all_their_labels(api: Api) -> None:
    both = api.run(labels={"team": "core", "env": "a=b"})["id"]
    one = api.run(labels={"team": "core"})["id"]
    api.run(labels={"team": "edge"})
    assert ids(api.get(PATH, label="team=core")) == [one, both]
    assert ids(api.get(PATH, label=["team=core", "env=a=b"])) == [both]
    assert ids(api.get(PATH, label="team=CORE")) == []
    assert api.client.get(PATH, params={"label": ["team=a", "team=b"]}).status_code == 422


def test_runs_are_found_by_text_as_it_is_written(api: Api) -> None:
    percent = api.run(goal="Save 100% of it")["id"]
    api.run(goal="Save 1000 of it")
    assert ids(api.get(PATH, q="100%")) == [percent]
    assert ids(api.get(PATH, q="save 100% OF")) == [percent]
    assert ids(api.get(PATH, q="_")) == []


def test_runs_are_found_by_time(api: Api) -> None:
    old, new = api.run(), api.run()
    assert ids(api.get(PATH, created_after=new["created_at"])) == [new["id"]]
    assert ids(api.get(PATH, created_before=new["created_at"])) == [old["id"]]
    shifted = new["created_at"].replace("Z", "+00:00")
    assert ids(api.get(PATH, created_after=shifted)) == [new["id"]]


def test_a_run_shows_its_first_two_hundred_steps_and_the_list_the_others(api: Api) -> None:
    steps = [{"type": "read_file", "input": {"path": "a.txt"}} for _ in range(201)]
    run = api.run(steps)
    assert len(run["steps"]) == 200
    page = api.get(f"{PATH}/{run['id']}/steps", limit=200)
    rest = api.get(f"{PATH}/{run['id']}/steps", limit=200, cursor=page["next_cursor"])
    assert [step["number"] for step in rest["items"]] == [201]
    assert rest["next_cursor"] is None


def test_a_run_is_found_by_the_beginning_that_only_it_has(api: Api) -> None:
    run = api.run([READ])
    other = api.run()
    shared = run["id"][: next(n for n in range(36) if run["id"][n] != other["id"][n])]
    assert api.get(f"{PATH}/{run['id'][: len(shared) + 1]}")["id"] == run["id"]
    response = api.client.get(f"{PATH}/{shared}")
    assert response.status_code == 422
    assert run["id"] in response.json()["errors"][0]["fix"]
    assert api.client.get(f"{PATH}/ffff").status_code == 404
    for name in ("read", "1", run["steps"][0]["id"]):
        assert api.get(f"{PATH}/{run['id']}/steps/{name}")["key"] == "read"
    assert api.client.get(f"{PATH}/{run['id']}/steps/nobody").status_code == 404


def test_the_channel_of_a_request_is_believed_only_with_the_secret(api: Api) -> None:
    body = {"goal": "x", "workspace_path": str(api.workspace)}
    for headers, channel in (
        ({"Stepgate-Channel": "cli"}, "api"),
        ({"Stepgate-Channel": "worker", **api.secret}, "api"),
        (api.secret, "api"),
        ({"Stepgate-Channel": "cli", **api.secret}, "cli"),
    ):
        assert api.post(PATH, body, expect=201, **headers)["requester"]["channel"] == channel
    wrong = {"Stepgate-Channel": "cli", "Authorization": "Bearer wrong"}
    assert api.send(PATH, body, **wrong).status_code == 401
