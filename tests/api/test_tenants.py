"""Two tenants on one server: neither sees, moves or counts anything of the other's, whatever the endpoint."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from stepgate.api.access import ACCESS
from stepgate.storage.embedded import EmbeddedServer
from tests.api.conftest import Api, for_a_module, new_workspace
from tests.fixtures.database import Administrator

EDIT = {"key": "edit", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}
SUM = {"key": "sum", "type": "summarize", "input": {"instruction": "One sentence. And another."}, "needs": []}
BY_ID = sorted(endpoint for endpoint in ACCESS if "{" in endpoint[1] and "policies" not in endpoint[1])
"""Rules are those of the whole installation."""
LISTS = sorted(path for method, path in ACCESS if method == "GET" and "{" not in path)


@dataclass(frozen=True)
class Tenant:
    """An administrator's key, and one of everything that can be had."""

    name: str
    headers: dict[str, str]
    run: Any
    step: Any
    place: str
    key_name: str
    folder: str
    ids: dict[str, str]
    """Of everything else that has an id, by the name that paths give it."""

    @property
    def marks(self) -> tuple[str, ...]:
        """What nobody else may ever be shown."""
        return (self.run["id"], self.step["id"], self.place, self.key_name, self.folder, *self.ids.values())


def key_of(api: Api, tenant: str, *roles: str) -> tuple[dict[str, str], str]:
    name = f"k{uuid.uuid4().hex}"
    body = {"name": name, "kind": "person", "roles": roles or ["admin"], "tenant": tenant}
    given = api.client.post("/v1/keys", json=body, headers=api.secret)
    assert given.status_code == 201, given.text
    assert given.json()["tenant"] == tenant
    return {"Authorization": f"Bearer {given.json()['key']}"}, name


def settle_in(api: Api, tenant: str) -> Tenant:
    headers, key_name = key_of(api, tenant)
    folder = new_workspace(api.workspace.parent)
    place = f"w{uuid.uuid4().hex}"
    named = api.client.post("/v1/workspaces", json={"name": place, "path": str(folder)}, headers=headers)
    assert named.status_code == 201, named.text
    body = {"goal": "theirs", "workspace": place, "steps": [EDIT, SUM], "start": True}
    made = api.client.post("/v1/agent-runs", json=body, headers=headers)
    assert made.status_code == 201, made.text
    path = f"/v1/agent-runs/{made.json()['id']}"
    run = waited(api, path, headers)
    day = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    others = {
        "delegation_id": ("/v1/delegations", {"to": key_of(api, tenant, "approver")[1], "ends_at": day}),
        "webhook_id": ("/v1/webhooks", {"url": "https://hooks.test/x"}),
        "budget_id": ("/v1/budgets", {"scope": "day", "cost_usd": "1000"}),
    }
    ids = {"request_id": run["steps"][0]["approval"]["request_id"]}
    for name, (address_, sent) in others.items():
        given = api.client.post(address_, json=sent, headers=headers)
        assert given.is_success, given.text
        ids[name] = given.json()["id"]
    return Tenant(tenant, headers, run, run["steps"][0], place, key_name, str(folder), ids)


def waited(api: Api, path: str, headers: dict[str, str]) -> Any:
    api.client.headers.update(headers)
    try:
        return api.until(path, lambda run: run["status"] == "awaiting_approval")
    finally:
        api.client.headers.pop("authorization")


@pytest.fixture(scope="module")
def house(
    cluster: EmbeddedServer, administrator: Administrator, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Api, Tenant, Tenant]]:
    folder = tmp_path_factory.mktemp("tenants")
    with for_a_module(cluster, administrator, template, folder, worker=True) as api:
        yield api, settle_in(api, "default"), settle_in(api, "acme")


def both(house: tuple[Api, Tenant, Tenant]) -> tuple[tuple[Tenant, Tenant], tuple[Tenant, Tenant]]:
    _, one, other = house
    return (one, other), (other, one)


def address(path: str, of: Tenant) -> str:
    name = of.place if "workspaces" in path else of.key_name
    ids = {**of.ids, "delivery_id": of.ids["webhook_id"]}
    return path.format(run_id=of.run["id"], step_id=of.step["id"], name=name, **ids)


def call(api: Api, method: str, path: str, of: Tenant, by: Tenant) -> httpx2.Response:
    return api.client.request(method, address(path, of), headers=by.headers)


@pytest.mark.parametrize(("method", "path"), BY_ID)
def test_what_is_another_tenants_is_not_there(house: tuple[Api, Tenant, Tenant], method: str, path: str) -> None:
    api = house[0]
    for own, other in both(house):
        response = call(api, method, path, other, own)
        assert response.status_code == 404, response.text
        assert response.json()["type"] == "urn:stepgate:error:not_found"


@pytest.mark.parametrize("path", [path for method, path in BY_ID if method == "GET"])
def test_the_same_is_there_for_those_whose_it_is(house: tuple[Api, Tenant, Tenant], path: str) -> None:
    api = house[0]
    for own, _ in both(house):
        response = call(api, "GET", path, own, own)
        assert response.status_code == 200 or response.json()["type"].endswith("no_output"), response.text


@pytest.mark.parametrize("path", LISTS)
def test_a_list_shows_nothing_of_another_tenants(house: tuple[Api, Tenant, Tenant], path: str) -> None:
    api = house[0]
    for own, other in both(house):
        response = api.client.get(path, headers=own.headers)
        assert response.status_code == 200, response.text
        assert [mark for mark in other.marks if mark in response.text] == []


def test_rules_are_those_of_the_installation_and_no_other_tenant_sees_or_changes_them(
    house: tuple[Api, Tenant, Tenant],
) -> None:
    api, own, other = house
    rules = {"policy": {"version": 1, "rules": []}}
    assert api.client.get("/v1/policies/current", headers=own.headers).status_code == 200
    assert api.client.get("/v1/policies/current", headers=other.headers).status_code == 404
    assert api.client.post("/v1/policies", json=rules, headers=other.headers).status_code == 403


def test_several_decisions_reach_no_question_of_another_tenant(house: tuple[Api, Tenant, Tenant]) -> None:
    api = house[0]
    for own, other in both(house):
        asked = other.step["approval"]
        one = {"request_id": asked["request_id"], "action_hash": asked["action_hash"]}
        answer = api.client.post("/v1/approvals/bulk", json={"decisions": [one]}, headers=own.headers)
        assert [item["status"] for item in answer.json()["items"]] == [404]


def test_lists_show_what_is_ones_own_and_costs_count_it_alone(house: tuple[Api, Tenant, Tenant]) -> None:
    api = house[0]
    for own, _ in both(house):
        runs = api.client.get("/v1/agent-runs", headers=own.headers).json()["items"]
        inbox = api.client.get("/v1/approvals", headers=own.headers).json()["items"]
        assert ([run["id"] for run in runs], [one["run_id"] for one in inbox]) == ([own.run["id"]], [own.run["id"]])
        assert own.place in api.client.get("/v1/workspaces", headers=own.headers).text
        (day,) = api.client.get("/v1/costs", headers=own.headers).json()["items"]
        assert (day["runs"], day["calls"]) == (1, 1)


def test_the_beginning_of_anothers_id_names_nothing(house: tuple[Api, Tenant, Tenant]) -> None:
    api = house[0]
    for own, other in both(house):
        prefix = other.run["id"][:20]
        assert api.client.get(f"/v1/agent-runs/{prefix}", headers=own.headers).status_code == 404
        assert api.client.get(f"/v1/agent-runs/{own.run['id'][:30]}", headers=own.headers).status_code == 200


def test_a_body_leads_to_nothing_of_another_tenants(house: tuple[Api, Tenant, Tenant]) -> None:
    api = house[0]
    for own, other in both(house):
        for path, body, status in (
            ("/v1/plan", {"run_id": other.run["id"]}, 404),
            ("/v1/agent-runs", {"goal": "x", "workspace": other.place}, 404),
            ("/v1/agent-runs", {"goal": "x", "workspace_path": other.folder}, 422),
            ("/v1/agent-runs", {"goal": "x", "workspace_path": other.folder, "workspace_mode": "isolated"}, 422),
            ("/v1/workspaces", {"name": "mine", "path": other.folder}, 422),
        ):
            response = api.client.post(path, json=body, headers=own.headers)
            assert response.status_code == status, response.text
            assert other.place not in response.text.replace(str(body.get("workspace")), "")


def test_a_folder_around_anothers_is_refused_without_saying_whose_lies_there(
    house: tuple[Api, Tenant, Tenant],
) -> None:
    api = house[0]
    for own, other in both(house):
        body = {"goal": "x", "workspace_path": str(api.workspace.parent)}
        response = api.client.post("/v1/agent-runs", json=body, headers=own.headers)
        assert response.status_code == 422
        assert other.folder not in response.text


def test_everything_recorded_of_a_run_carries_its_tenant_and_holds(house: tuple[Api, Tenant, Tenant]) -> None:
    api = house[0]

    async def tenants(run_id: str) -> set[tuple[str, str]]:
        async with api.stack.database.session() as connection:
            tables = await connection.fetch(
                "SELECT a.table_name AS name FROM information_schema.columns AS a "
                "JOIN information_schema.columns AS b USING (table_schema, table_name) "
                "WHERE table_schema = 'stepgate' AND a.column_name = 'tenant_id' AND b.column_name = 'run_id'"
            )
            found = {("runs", await connection.fetchval("SELECT tenant_id FROM stepgate.runs WHERE id = $1", run_id))}
            for table in tables:
                query = f"SELECT DISTINCT tenant_id FROM stepgate.{table['name']} WHERE run_id = $1"
                found |= {(table["name"], row["tenant_id"]) for row in await connection.fetch(query, run_id)}
            return found

    for own, _ in both(house):
        found = api.do(tenants(own.run["id"]))
        assert {tenant for _, tenant in found} == {own.name}
        assert {"runs", "steps", "approval_requests", "model_calls"} <= {table for table, _ in found}
        proof = call(api, "GET", "/v1/agent-runs/{run_id}/verify", own, own).json()
        assert proof["verified"], proof
        events = call(api, "GET", "/v1/agent-runs/{run_id}/events", own, own).json()["items"]
        assert events[0]["data"].get("tenant", "default") == own.name
        assert events[0]["actor"]["id"] == own.key_name


def test_an_idempotency_key_is_its_callers_own(house: tuple[Api, Tenant, Tenant]) -> None:
    api, one, other = house
    second, _ = key_of(api, "acme")
    body = {"goal": "x", "workspace_path": str(new_workspace(api.workspace.parent)), "workspace_mode": "isolated"}
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = api.client.post("/v1/agent-runs", json=body, headers=other.headers | key)
    again = api.client.post("/v1/agent-runs", json=body, headers=other.headers | key)
    assert (first.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert again.headers["idempotency-replayed"] == "true"
    colleague = api.client.post("/v1/agent-runs", json=body, headers=second | key)
    assert (colleague.status_code, "idempotency-replayed" in colleague.headers) == (201, False)
    assert colleague.json()["id"] != first.json()["id"]
    mine = {**body, "workspace_path": one.folder}
    assert api.client.post("/v1/agent-runs", json=mine, headers=one.headers | key).status_code == 201
    named = {"name": "shop", "path": other.folder}
    assert api.client.post("/v1/workspaces", json=named, headers=other.headers | key).status_code == 422


@pytest.mark.parametrize("tenant", ["", "Acme", "a/b", "-x", "a" * 65, "a\nb"])
def test_a_tenant_has_a_plain_name(house: tuple[Api, Tenant, Tenant], tenant: str) -> None:
    api = house[0]
    body = {"name": "ok", "kind": "person", "roles": ["viewer"], "tenant": tenant}
    response = api.client.post("/v1/keys", json=body, headers=api.secret)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "tenant")


def test_only_the_default_tenant_gives_out_keys_of_others(house: tuple[Api, Tenant, Tenant]) -> None:
    api, one, other = house
    body = {"name": f"k{uuid.uuid4().hex}", "kind": "person", "roles": ["viewer"]}
    for tenant in ("default", "third"):
        response = api.client.post("/v1/keys", json={**body, "tenant": tenant}, headers=other.headers)
        assert (response.status_code, response.json()["type"]) == (403, "urn:stepgate:error:foreign_tenant")
    for method, path in (("GET", "/v1/keys"), ("POST", f"/v1/keys/{one.key_name}/revoke")):
        response = api.client.request(method, path, params={"tenant": "default"}, headers=other.headers)
        assert (response.status_code, response.json()["type"]) == (403, "urn:stepgate:error:foreign_tenant")
    own = api.client.post("/v1/keys", json=body, headers=other.headers).json()
    assert own["tenant"] == "acme"
    who = api.client.get("/v1/whoami", headers={"Authorization": f"Bearer {own['key']}"}).json()
    assert (who["id"], who["tenant"]) == (body["name"], "acme")
    assert api.client.get("/v1/whoami", headers=one.headers).json()["tenant"] == "default"


def test_the_default_tenant_can_take_back_what_another_one_lost(house: tuple[Api, Tenant, Tenant]) -> None:
    api, one, _ = house
    lost, name = key_of(api, "acme", "viewer")
    listed = api.client.get("/v1/keys", params={"tenant": "acme"}, headers=one.headers).json()["items"]
    assert name in [key["name"] for key in listed]
    assert {key["tenant"] for key in listed} == {"acme"}
    revoked = api.client.post(f"/v1/keys/{name}/revoke", params={"tenant": "acme"}, headers=one.headers)
    assert revoked.json()["revoked_at"]
    assert api.client.get("/v1/whoami", headers=lost).status_code == 401


def test_the_local_secret_is_of_the_default_tenant(house: tuple[Api, Tenant, Tenant]) -> None:
    api, one, other = house
    assert api.client.get("/v1/whoami", headers=api.secret).json()["tenant"] == "default"
    path = "/v1/agent-runs/{}"
    assert api.client.get(path.format(one.run["id"]), headers=api.secret).status_code == 200
    assert api.client.get(path.format(other.run["id"]), headers=api.secret).status_code == 404
