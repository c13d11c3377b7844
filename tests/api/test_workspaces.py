"""Named workspaces over HTTP."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api.conftest import Api, new_workspace

PATH = "/v1/workspaces"


@pytest.fixture
def own(quiet: Api) -> Api:
    """A folder and a key of the test's own, on a server that many tests use."""
    return quiet.elsewhere()


def name() -> str:
    return f"w-{uuid.uuid4().hex}"


def test_a_folder_gets_a_name_and_runs_can_say_it(own: Api) -> None:
    called = name()
    response = own.send(PATH, {"name": called, "path": str(own.workspace), "mode": "isolated"})
    assert (response.status_code, response.headers["location"]) == (201, f"{PATH}/{called}")
    made = response.json()
    assert (made["name"], made["path"], made["mode"], made["rev"]) == (called, str(own.workspace), "isolated", None)
    assert own.get(f"{PATH}/{called}") == made
    run = own.post("/v1/agent-runs", {"goal": "g", "workspace": called}, expect=201)
    assert (run["workspace"], run["workspace_path"], run["workspace_mode"]) == (called, str(own.workspace), "isolated")
    assert run["private_copy"]["made_at"] is None
    body = {"goal": "g", "workspace": called, "workspace_mode": "in_place"}
    assert own.post("/v1/agent-runs", body, expect=201)["workspace_mode"] == "in_place"
    assert {one["workspace"] for one in own.get("/v1/agent-runs", limit=2)["items"]} == {called}


def test_a_path_relative_to_the_root_is_the_same_folder(own: Api) -> None:
    made = own.post(PATH, {"name": name(), "path": own.workspace.name}, expect=201)
    assert made["path"] == str(own.workspace)


def test_the_same_name_again_changes_nothing_and_another_folder_or_mode_is_refused(own: Api) -> None:
    body = {"name": name(), "path": str(own.workspace), "mode": "in_place"}
    first = own.post(PATH, body, expect=201)
    assert own.post(PATH, body, expect=201) == first
    other = {**body, "path": str(new_workspace(own.workspace.parent))}
    assert own.post(PATH, other, expect=409)["type"].endswith(":name_taken")
    assert own.post(PATH, {**body, "mode": "isolated"}, expect=409)["type"].endswith(":already_named")
    assert own.post(PATH, {**body, "name": name()}, expect=409)["type"].endswith(":already_named")


def test_of_many_who_want_one_name_one_gets_it(own: Api) -> None:
    called = name()
    bodies = [{"name": called, "path": str(new_workspace(own.workspace.parent))} for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: own.send(PATH, body), bodies))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 7]
    winner = next(answer.json()["path"] for answer in answers if answer.status_code == 201)
    assert own.get(f"{PATH}/{called}")["path"] == winner


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "../up"}),
        ("name", {"name": ".hidden"}),
        ("name", {"name": "x" * 65}),
        ("name", {"name": "a b"}),
        ("name", {"name": "a\n"}),
        ("path", {"path": "nowhere"}),
        ("path", {"path": "/"}),
        ("path", {"path": "a\u0000b"}),
        ("mode", {"mode": "elsewhere"}),
        ("extra", {"extra": 1}),
    ],
)
def test_what_cannot_be_a_named_workspace_is_refused_by_field(own: Api, field: str, body: dict[str, object]) -> None:
    answer = own.post(PATH, {"name": name(), "path": str(own.workspace)} | body, expect=422)
    assert answer["errors"][0]["field"] == field


def test_a_folder_in_a_named_one_is_refused(own: Api) -> None:
    own.post(PATH, {"name": name(), "path": str(own.workspace)}, expect=201)
    (own.workspace / "below").mkdir()
    answer = own.post(PATH, {"name": name(), "path": str(own.workspace / "below")}, expect=422)
    assert answer["errors"][0]["field"] == "path"
    assert "lie one in the other" in answer["detail"]


def test_a_forgotten_name_is_gone_and_its_runs_stay(own: Api) -> None:
    called = name()
    made = own.post(PATH, {"name": called, "path": str(own.workspace), "mode": "isolated"}, expect=201)
    run = own.post("/v1/agent-runs", {"goal": "g", "workspace": called}, expect=201)
    response = own.client.delete(f"{PATH}/{called}")
    assert (response.status_code, response.json()) == (200, made)
    assert own.client.get(f"{PATH}/{called}").status_code == 404
    assert own.client.delete(f"{PATH}/{called}").status_code == 404
    after = own.get(f"/v1/agent-runs/{run['id']}")
    assert (after["workspace"], after["workspace_mode"]) == (None, "isolated")
    by_path = own.run()
    assert by_path["workspace_mode"] == "in_place"
    assert own.post(PATH, {"name": called, "path": str(own.workspace)}, expect=201)["mode"] == "in_place"


def test_a_run_names_a_workspace_or_a_path(own: Api) -> None:
    called = name()
    own.post(PATH, {"name": called, "path": str(own.workspace)}, expect=201)
    both = {"goal": "g", "workspace": called, "workspace_path": str(own.workspace)}
    assert own.post("/v1/agent-runs", both, expect=422)["errors"][0]["field"] == "workspace"
    assert (
        own.post("/v1/agent-runs", {"goal": "g", "workspace": "nobody"}, expect=404)["errors"][0]["field"]
        == "workspace"
    )
    wrong = {"goal": "g", "workspace_mode": "somewhere"}
    assert own.post("/v1/agent-runs", wrong, expect=422)["errors"][0]["field"] == "workspace_mode"


def test_lists_are_paged_in_order_of_names(own: Api) -> None:
    made = []
    for _ in range(5):
        made.append(name())
        own.post(PATH, {"name": made[-1], "path": str(new_workspace(own.workspace.parent))}, expect=201)
    found, cursor = [], None
    while True:
        page = own.get(PATH, limit=2, **({"cursor": cursor} if cursor else {}))
        found += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == sorted(found)
    assert set(made) <= set(found)


def test_a_key_carries_a_request_out_once(own: Api) -> None:
    body = {"name": name(), "path": str(own.workspace)}
    first = own.send(PATH, body, Idempotency_Key=own.key)
    again = own.send(PATH, body, Idempotency_Key=own.key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    other = own.send(PATH, body | {"name": name()}, Idempotency_Key=own.key)
    assert other.json()["type"].endswith(":idempotency_mismatch")
