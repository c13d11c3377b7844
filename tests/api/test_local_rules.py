"""Only this machine's programs and the API's own pages may write, and nobody under another name may even read."""

import socket

import pytest

from tests.api.conftest import SECRET, Api
from tests.fixtures.patience import PATIENCE_S


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8002", "127.0.0.1.evil.example", "user@localhost", "", "169.254.1.1"]
)
def test_a_foreign_host_is_refused_even_for_reads(quiet: Api, host: str) -> None:
    response = quiet.client.get("/v1/agent-runs", headers={"Host": host})
    assert response.status_code == 403
    assert response.json()["type"] == "urn:stepgate:error:foreign_host"
    assert response.json()["errors"][0]["field"] == "Host"


def test_dns_rebinding_reads_neither_runs_nor_documents(quiet: Api) -> None:
    """A page of evil.example whose name now leads to 127.0.0.1: same origin for the browser, another host for us."""
    for path in ("/v1/agent-runs", "/health", "/docs", "/openquiet.json", "/nothing"):
        port = str(quiet.port)
        headers = {
            "Host": f"evil.example:{port}",
            "Origin": f"http://evil.example:{port}",
            "Sec-Fetch-Site": "same-origin",
        }
        assert quiet.client.get(path, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.8.8:80", "[::1]:8002", "stepgate.test:99"]
)
def test_loopback_and_configured_names_are_known(quiet: Api, host: str) -> None:
    assert quiet.client.get("/v1/agent-runs", headers={"Host": host}).status_code == 200


def test_two_hosts_are_none(quiet: Api) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", quiet.port), timeout=PATIENCE_S) as connection:
        connection.sendall(request)
        answer = connection.makefile("rb").readline()
    assert answer.split()[1] in (b"400", b"403")


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://localhost"},
    {"Origin": "file://"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "surprise"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_write_from_another_site_is_refused_before_it_is_read(quiet: Api, headers: dict[str, str]) -> None:
    response = quiet.client.post("/v1/agent-runs", json={"goal": "x"}, headers=headers)
    assert response.status_code == 403
    assert response.json()["type"] == "urn:stepgate:error:foreign_origin"
    assert quiet.get("/v1/agent-runs")["items"] == []


def test_the_own_pages_and_programs_may_write(api: Api) -> None:
    own = {"Origin": f"http://127.0.0.1:{api.port}", "Sec-Fetch-Site": "same-origin"}
    body = {"goal": "x", "workspace_path": str(api.workspace)}
    assert api.client.post("/v1/agent-runs", json=body, headers=own).status_code == 201
    assert api.client.post("/v1/agent-runs", json=body, headers={"Sec-Fetch-Site": "none"}).status_code == 201
    assert api.client.post("/v1/agent-runs", json=body).status_code == 201


def test_an_approve_with_an_empty_body_from_a_foreign_origin_approves_nothing(trusting: Api) -> None:
    path, step = trusting.asking()
    for headers in FOREIGN:
        assert trusting.decide(path, step, "approve", **headers).status_code == 403, headers
    assert trusting.get(f"{path}/steps/{step['id']}")["status"] == "awaiting_approval"


def test_an_approve_sent_by_a_form_approves_nothing(trusting: Api) -> None:
    path, step = trusting.asking()
    for content_type in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"):
        headers = {"Content-Type": content_type}
        response = trusting.client.post(f"{path}/steps/{step['id']}/approve", content=b"", headers=headers)
        assert response.status_code == 415
    assert trusting.get(f"{path}/steps/{step['id']}")["status"] == "awaiting_approval"


@pytest.mark.parametrize("verb", ["approve", "reject", "skip"])
def test_a_decision_needs_the_local_secret(working: Api, verb: str) -> None:
    path, step = working.asking()
    body = {"action_hash": step["approval"]["action_hash"]} if verb != "skip" else {}
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": SECRET},
    ):
        response = working.decide(path, step, verb, body, **headers)
        assert response.status_code == 401, headers
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["type"] == "urn:stepgate:error:local_secret_required"
    assert working.get(f"{path}/steps/{step['id']}")["status"] == "awaiting_approval"
    assert working.decide(path, step, verb, body, **working.secret).status_code == 200


def test_a_secret_that_is_no_text_is_no_secret(working: Api) -> None:
    path, step = working.asking()
    headers = [(b"Authorization", b"Bearer \xff\xe9")]
    response = working.client.post(f"{path}/steps/{step['id']}/approve", headers=headers)
    assert response.status_code == 401


def test_the_secret_does_not_stand_in_for_the_hash(working: Api) -> None:
    path, step = working.asking()
    response = working.decide(path, step, "approve", **working.secret)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "action_hash"
    assert working.get(f"{path}/steps/{step['id']}")["status"] == "awaiting_approval"


def test_local_trust_accepts_an_empty_approve_and_journals_it_as_implied(trusting: Api) -> None:
    path, step = trusting.asking()
    response = trusting.decide(path, step, "approve")
    assert response.status_code == 200, response.text
    decision = response.json()["approval"]["decision"]
    assert decision["implied"] is True
    assert decision["action_hash"] == step["approval"]["action_hash"]
    events = trusting.get(f"{path}/events", limit=200)["items"]
    assert [event["data"]["implied"] for event in events if event["type"] == "approval.approved"] == [True]


def test_local_trust_does_not_forgive_a_wrong_secret(trusting: Api) -> None:
    path, step = trusting.asking()
    assert trusting.decide(path, step, "approve", Authorization="Bearer wrong").status_code == 401


def test_every_answer_keeps_other_sites_out(quiet: Api) -> None:
    for path in ("/v1/agent-runs", "/docs", "/nothing"):
        headers = quiet.client.get(path).headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
