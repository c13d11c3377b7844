"""Every endpoint, one by one: without a key 401, with a key that may not 403, with one that may never either."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stepgate.api.access import ACCESS
from stepgate.api.attempts import ADDRESSES, FAILURES, WINDOW_S, Attempts
from stepgate.domain.identity import Kind, Role
from stepgate.storage.embedded import EmbeddedServer
from tests.api.conftest import Api, for_a_module, give, served
from tests.fixtures.database import Administrator

CLOSED = [(method, path, role) for (method, path), role in ACCESS.items() if role is not None]
LESSER = {
    Role.VIEWER: (),
    Role.OPERATOR: (Role.VIEWER, Role.APPROVER),
    Role.APPROVER: (Role.VIEWER, Role.OPERATOR),
    Role.ADMIN: (Role.VIEWER, Role.OPERATOR, Role.APPROVER),
}


@pytest.fixture(scope="module")
def shared(
    cluster: EmbeddedServer, administrator: Administrator, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("keyed")
    with for_a_module(cluster, administrator, template, folder, worker=True) as api:
        give(api, Role.ADMIN)
        yield api


@pytest.fixture
def keyed(shared: Api) -> Api:
    """A server on which a key was given out."""
    return shared.elsewhere()


def call(api: Api, method: str, path: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    ids = {
        name: uuid.uuid4()
        for name in ("budget_id", "run_id", "step_id", "request_id", "delegation_id", "webhook_id", "delivery_id")
    }
    address = path.format(**ids, name="nothing", version="none")
    content = b"no json at all" if method == "POST" else None
    return api.client.request(method, address, headers=headers or {}, content=content)


def test_the_table_has_every_endpoint_and_no_other(quiet: Api) -> None:
    document = quiet.get("/openapi.json")
    told = {
        (method.upper(), path): operation
        for path, ops in document["paths"].items()
        for method, operation in ops.items()
    }
    assert set(told) == set(ACCESS)
    for endpoint, role in ACCESS.items():
        assert told[endpoint].get("x-required-role") == role
        assert ("security" in told[endpoint]) is (role is not None)


@pytest.mark.parametrize(("method", "path", "role"), CLOSED)
def test_without_a_key_nothing_is_answered(keyed: Api, method: str, path: str, role: Role) -> None:
    response = call(keyed, method, path)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert response.json()["type"] == "urn:stepgate:error:key_required"


@pytest.mark.parametrize(("method", "path", "role"), CLOSED)
def test_the_wrong_role_is_refused_and_the_right_one_is_not(keyed: Api, method: str, path: str, role: Role) -> None:
    for lesser in LESSER[role]:
        response = call(keyed, method, path, give(keyed, lesser))
        assert response.status_code == 403, (lesser, response.text)
        assert response.json()["type"] == "urn:stepgate:error:role_required"
    for enough in (role, Role.ADMIN):
        assert call(keyed, method, path, give(keyed, enough)).status_code not in (401, 403, 429)


@pytest.mark.parametrize("kind", [Kind.AGENT])
@pytest.mark.parametrize(("method", "path", "role"), [one for one in CLOSED if one[2] is Role.APPROVER])
def test_an_agent_decides_nothing(keyed: Api, method: str, path: str, role: Role, kind: Kind) -> None:
    headers = give(keyed, Role.OPERATOR, kind=kind)
    assert call(keyed, method, path, headers).status_code == 403


def test_only_health_and_the_documents_are_open(keyed: Api) -> None:
    assert [endpoint for endpoint, role in ACCESS.items() if role is None] == [("GET", "/health")]
    for path in ("/health", "/docs", "/redoc", "/openapi.json"):
        assert keyed.client.get(path).status_code == 200


def test_the_local_secret_still_counts_on_this_machine(keyed: Api) -> None:
    told = keyed.client.get("/v1/whoami", headers=keyed.secret).json()
    assert (told["id"], told["kind"], told["roles"]) == ("local", "person", ["admin"])


def test_a_run_and_its_decision_name_who_they_were_by(keyed: Api) -> None:
    operator, approver = give(keyed, Role.OPERATOR), give(keyed, Role.APPROVER, kind=Kind.SERVICE)
    step = {"key": "edit", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}
    body = {"goal": "x", "workspace_path": str(keyed.workspace), "steps": [step], "start": True}
    run = keyed.client.post("/v1/agent-runs", json=body, headers=operator).json()
    path = f"/v1/agent-runs/{run['id']}"
    viewing = {"Authorization": operator["Authorization"]}
    keyed.client.headers.update(viewing)
    try:
        found = keyed.until(path, lambda run: run["status"] == "awaiting_approval")
        asked = found["steps"][0]
        decision = {"action_hash": asked["approval"]["action_hash"]}
        assert keyed.decide(path, asked, "approve", decision).status_code == 403
        response = keyed.client.post(f"{path}/steps/{asked['id']}/approve", json=decision, headers=approver)
        assert response.status_code == 200, response.text
        events = keyed.get(f"{path}/events", limit=200)["items"]
    finally:
        keyed.client.headers.pop("authorization")
    actors = {event["type"]: event["actor"] for event in events}
    assert actors["run.created"] == {"id": operator["Name"], "kind": "person", "channel": "api"}
    assert actors["approval.approved"] == {"id": approver["Name"], "kind": "service", "channel": "api"}


def test_a_key_that_was_revoked_or_expired_counts_no_more(keyed: Api) -> None:
    key = give(keyed, Role.ADMIN)
    assert keyed.client.get("/v1/whoami", headers=key).status_code == 200
    revoked = keyed.client.post(f"/v1/keys/{key['Name']}/revoke", headers=keyed.secret)
    assert revoked.json()["revoked_at"]
    response = keyed.client.get("/v1/whoami", headers=key)
    assert (response.status_code, response.json()["type"]) == (401, "urn:stepgate:error:key_refused")
    soon = give(keyed, Role.VIEWER, expires_at=datetime.now(UTC) + timedelta(seconds=1))

    def refused() -> bool:
        return keyed.client.get("/v1/whoami", headers=soon).status_code == 401

    keyed.until("/health", lambda _: refused())


@pytest.mark.parametrize("change", [lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"), lambda key: key + "x"])
def test_a_key_that_differs_by_a_letter_is_none(keyed: Api, change: Any) -> None:
    key = give(keyed, Role.VIEWER)
    headers = {"Authorization": change(key["Authorization"])}
    assert keyed.client.get("/v1/whoami", headers=headers).status_code == 401


def test_keys_are_given_listed_and_taken_back_over_http(keyed: Api) -> None:
    name = f"n{uuid.uuid4().hex}"
    body = {"name": name, "kind": "agent", "roles": ["operator"]}
    made = keyed.client.post("/v1/keys", json=body, headers=keyed.secret)
    assert made.status_code == 201, made.text
    key = made.json()["key"]
    assert keyed.client.post("/v1/keys", json=body, headers=keyed.secret).json()["type"].endswith("name_taken")
    listed = keyed.client.get("/v1/keys", params={"limit": 200, "cursor": name[:-1]}, headers=keyed.secret).text
    assert name in listed
    assert key not in listed
    assert key[13:] not in listed
    told = keyed.client.get("/v1/whoami", headers={"Authorization": f"Bearer {key}"}).json()
    assert (told["id"], told["kind"], told["tenant"]) == (name, "agent", "default")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"roles": []}, "roles"),
        ({"roles": ["king"]}, "roles[0]"),
        ({"kind": "robot"}, "kind"),
        ({"kind": "agent", "roles": ["approver"]}, "roles"),
        ({"kind": "agent", "roles": ["admin"]}, "roles"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"more": 1}, "more"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_by_field(keyed: Api, change: dict[str, Any], field: str) -> None:
    body = {"name": "ok", "kind": "person", "roles": ["viewer"], **change}
    response = keyed.client.post("/v1/keys", json=body, headers=keyed.secret)
    assert response.status_code == 422, response.text
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_nothing_of_a_key_is_kept_that_could_be_used(keyed: Api) -> None:
    key = give(keyed, Role.VIEWER)["Authorization"].removeprefix("Bearer ")

    async def stored() -> str:
        async with keyed.stack.database.session() as connection:
            rows = await connection.fetch("SELECT k::text AS row FROM stepgate.api_keys AS k")
            return "".join(row["row"] for row in rows)

    found = keyed.do(stored())
    assert key[:12] in found
    assert key[13:] not in found


def test_before_the_first_key_giving_one_needs_the_local_secret(trusting: Api) -> None:
    body = {"name": "first", "kind": "person", "roles": ["admin"]}
    response = trusting.client.post("/v1/keys", json=body)
    assert (response.status_code, response.json()["type"]) == (401, "urn:stepgate:error:local_secret_required")
    assert trusting.client.get("/v1/agent-runs").status_code == 200


def test_who_guesses_is_not_listened_to_for_a_while_and_keeps_nobody_else_out(api: Api) -> None:
    wrong = {"Authorization": "Bearer sgk_aaaaaaaa_" + "a" * 43}
    for _ in range(FAILURES):
        assert api.client.get("/v1/whoami", headers=wrong).status_code == 401
    blocked = api.client.get("/v1/whoami", headers=wrong)
    assert blocked.status_code == 429
    assert 0 < int(blocked.headers["retry-after"]) <= WINDOW_S
    assert api.client.get("/v1/whoami", headers=give(api, Role.VIEWER)).status_code == 200
    assert api.client.get("/v1/whoami", headers=api.secret).status_code == 200
    assert api.client.get("/health").status_code == 200


def test_a_configured_key_could_be_guessed_so_it_does_not_count_from_an_address_that_waits(
    database_url: str, tmp_path: Path
) -> None:
    with served(database_url, tmp_path, configured=True) as api:
        assert api.client.get("/v1/whoami", headers=api.secret).status_code == 200
        for number in range(FAILURES):
            wrong = {"Authorization": f"Bearer guess-{number}"}
            assert api.client.get("/v1/whoami", headers=wrong).status_code == 401
        assert api.client.get("/v1/whoami", headers=api.secret).status_code == 429


def test_failures_are_forgotten_after_a_minute_and_by_number() -> None:
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for number in range(FAILURES):
        assert attempts.wait_s("a") == 0
        now[0] = number
        attempts.failed("a")
    assert attempts.wait_s("a") == WINDOW_S - (FAILURES - 1)
    assert attempts.wait_s("b") == 0
    now[0] = WINDOW_S
    assert attempts.wait_s("a") == 0
    for number in range(ADDRESSES + 10):
        attempts.failed(str(number))
    assert attempts.wait_s("a") == 0
