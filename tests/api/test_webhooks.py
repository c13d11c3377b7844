"""A real receiver is told what happens: signed, at least once, in the log, and never for another tenant."""

import base64
import hmac
import json
import threading
import time
import uuid
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stepgate.storage.embedded import EmbeddedServer
from stepgate.storage.webhooks import MOST, Webhooks
from tests.api.conftest import Api, for_a_module
from tests.fixtures.database import Administrator
from tests.fixtures.patience import PATIENCE_S

READ = {"key": "read", "type": "read_file", "input": {"path": "a.txt"}}


class Receiver(ThreadingHTTPServer):
    """Keeps what it gets; answers with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.status = 204
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.came = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    def until(self, *types: str, more: int = 0) -> list[tuple[dict[str, str], Any]]:
        """What came, once there is a message of each type (and so many more)."""
        deadline = time.monotonic() + PATIENCE_S
        with self.came:
            while True:
                told = [(headers, json.loads(body)) for headers, body in self.got]
                kinds = [message["type"] for _, message in told]
                if set(types) <= set(kinds) and len(kinds) >= len(types) + more:
                    return told
                assert self.came.wait(deadline - time.monotonic()), kinds


class Taking(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.came:
            self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.server.came.notify_all()
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing for the terminal."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def shared(
    cluster: EmbeddedServer, administrator: Administrator, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("webhooks")
    with for_a_module(cluster, administrator, template, folder, worker=True, webhook_private=True) as api:
        api.stack.sender._look_s = 0.05
        api.client.headers.update(api.secret)
        yield api


@pytest.fixture
def telling(shared: Api) -> Iterator[Api]:
    """A server that tells, without webhooks of other tests."""
    yield shared.elsewhere()
    for one in shared.get("/v1/webhooks")["items"]:
        shared.client.delete(f"/v1/webhooks/{one['id']}")


def hook(api: Api, receiver: Receiver, **more: Any) -> Any:
    return api.post("/v1/webhooks", {"url": receiver.url, **more}, expect=201)


def settled(api: Api, made: Any, *statuses: str) -> Any:
    """The webhook's deliveries, once all of them have these statuses, the newest first."""

    def holds(page: Any) -> bool:
        return [one["status"] for one in page["items"]] == list(statuses)

    return api.until(f"/v1/webhooks/{made['id']}/deliveries", holds)["items"]


def test_a_question_its_decision_and_the_end_are_told_and_signed(telling: Api, receiver: Receiver) -> None:
    made = hook(telling, receiver)
    path, step = telling.asking()
    ((headers, asked),) = receiver.until("approval.requested")
    telling.decide(path, step, "approve", {"action_hash": asked["data"]["approval"]["action_hash"]})
    told = {message["type"]: message for _, message in receiver.until("approval.approved", "run.completed", more=1)}
    assert set(told) == {"approval.requested", "approval.approved", "run.completed"}
    assert asked["data"]["step"]["id"] == step["id"]
    assert told["approval.approved"]["data"]["actor"]["id"] == "local"
    key = base64.b64decode(made["secret"].removeprefix("whsec_"))
    for headers, body in receiver.got:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(key, signed, sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    log = settled(telling, made, *["delivered"] * 3)
    assert [one["type"] for one in log] == ["run.completed", "approval.approved", "approval.requested"]
    assert {one["id"] for one in log} == {headers["webhook-id"] for headers, _ in receiver.got}
    for one in log:
        (attempt,) = one["attempts"]
        assert (attempt["http_status"], attempt["error"], attempt["next_at"]) == (204, None, None)
        assert attempt["duration_ms"] >= 0
        assert one["next_at"] is None


def test_the_end_of_a_run_without_effects_is_told_too(telling: Api, receiver: Receiver) -> None:
    hook(telling, receiver, events=["run.completed"])
    telling.until("/health", lambda _: telling.stack.sender.wanted)
    run = telling.run([READ], start=True)
    ((_, message),) = receiver.until("run.completed")
    assert message["data"]["run_id"] == run["id"]
    assert telling.get(f"/v1/agent-runs/{run['id']}/verify")["verified"]


def test_only_wanted_events_are_put_into_the_outbox(telling: Api, receiver: Receiver) -> None:
    made = hook(telling, receiver, events=["approval.rejected"])
    path, step = telling.asking()
    telling.decide(path, step, "reject", {"reason": "no <b>"})
    ((_, message),) = receiver.until("approval.rejected")
    assert message["data"]["reason"] == "no <b>"
    telling.until(path, lambda run: run["status"] == "cancelled")
    assert [one["type"] for one in settled(telling, made, "delivered")] == ["approval.rejected"]


def test_a_run_that_ends_says_why(telling: Api, receiver: Receiver) -> None:
    hook(telling, receiver, events=["run.cancelled"])
    path, step = telling.asking()
    telling.decide(path, step, "reject")
    ((_, message),) = receiver.until("run.cancelled")
    assert message["data"]["reason"] == "rejected"


def test_what_fails_is_logged_tried_again_later_and_sent_again_on_demand_under_its_id(
    telling: Api, receiver: Receiver
) -> None:
    receiver.status = 500
    made = hook(telling, receiver, events=["approval.requested"])
    telling.asking()

    def tried(page: Any) -> bool:
        return bool(page["items"]) and bool(page["items"][0]["attempts"])

    (waits,) = telling.until(f"/v1/webhooks/{made['id']}/deliveries", tried)["items"]
    (attempt,) = waits["attempts"]
    assert (waits["status"], attempt["http_status"], attempt["error"]) == ("pending", 500, "HTTP 500")
    assert attempt["at"] < attempt["next_at"] == waits["next_at"]
    receiver.status = 204
    again = telling.post(f"/v1/webhooks/{made['id']}/deliveries/{waits['id']}/redeliver")
    assert again["id"] == waits["id"]
    (done,) = settled(telling, made, "delivered")
    assert [one["http_status"] for one in done["attempts"]] == [500, 204]
    assert [headers["webhook-id"] for headers, _ in receiver.got] == [waits["id"]] * 2
    assert receiver.got[0][1] == receiver.got[1][1]


def test_a_receiver_that_is_gone_is_told_nothing_more(telling: Api, receiver: Receiver) -> None:
    receiver.status = 410
    made = hook(telling, receiver, events=["approval.requested"])
    telling.asking()
    found = telling.until(f"/v1/webhooks/{made['id']}", lambda one: one["disabled_at"])
    assert "410" in found["disabled_reason"]
    (gone,) = settled(telling, made, "failed")
    refused = telling.send(f"/v1/webhooks/{made['id']}/deliveries/{gone['id']}/redeliver")
    assert refused.status_code == 422
    telling.asking()
    assert len(settled(telling, made, "failed")) == 1


def test_a_removed_webhook_is_told_nothing_and_its_log_is_gone(telling: Api, receiver: Receiver) -> None:
    made = hook(telling, receiver)
    removed = telling.client.delete(f"/v1/webhooks/{made['id']}")
    assert (removed.status_code, "secret" in removed.json()) == (200, False)
    telling.asking()
    assert telling.client.get(f"/v1/webhooks/{made['id']}").status_code == 404
    assert receiver.got == []


def test_another_tenant_is_told_nothing(telling: Api, receiver: Receiver) -> None:
    body = {"name": f"k{uuid.uuid4().hex}", "kind": "person", "roles": ["admin"], "tenant": "acme"}
    key = telling.post("/v1/keys", body, expect=201)["key"]
    theirs = telling.client.post(
        "/v1/webhooks", json={"url": receiver.url}, headers={"Authorization": f"Bearer {key}"}
    ).json()
    mine = hook(telling, receiver, events=["approval.requested"])
    telling.asking()
    settled(telling, mine, "delivered")
    log = telling.client.get(f"/v1/webhooks/{theirs['id']}/deliveries", headers={"Authorization": f"Bearer {key}"})
    assert log.json()["items"] == []
    assert len(receiver.got) == 1
    gone = telling.client.delete(f"/v1/webhooks/{theirs['id']}", headers={"Authorization": f"Bearer {key}"})
    assert gone.status_code == 200


def test_what_a_dead_sender_had_taken_is_taken_again_and_its_late_word_moves_nothing(
    telling: Api, receiver: Receiver
) -> None:
    made = hook(telling, receiver, events=["approval.requested"])
    telling.do(telling.stack.sender.stop())
    try:
        telling.asking()

        async def twice() -> tuple[int, list[Any]]:
            webhooks = Webhooks(telling.stack.database)
            (lost,) = await webhooks.take(4, 0.0, ())
            (again,) = await webhooks.take(4, 60.0, ())
            assert (again.id, again.attempts) == (lost.id, 2)
            held = await webhooks.take(4, 60.0, ())
            await webhooks.said(lost, status="failed", retry_s=None, http_status=204, error=None, duration_ms=1)
            rows, _ = await webhooks.deliveries(made["id"], None, 10)
            return len(held), [(row.status, row.attempts) for row in rows]

        assert telling.do(twice()) == (0, [("pending", 2)])
    finally:
        telling.do(telling.stack.sender.start())


def test_slack_gets_blocks_and_its_address_is_not_shown_again(telling: Api, receiver: Receiver) -> None:
    made = hook(telling, receiver, format="slack", events=["approval.requested"])
    telling.asking()
    settled(telling, made, "delivered")
    body = json.loads(receiver.got[0][1])
    assert [block["type"] for block in body["blocks"]][:2] == ["header", "section"]
    assert telling.get(f"/v1/webhooks/{made['id']}")["url"] == receiver.url.rpartition("/")[0] + "/…"


def test_a_tenant_has_only_so_many(telling: Api, receiver: Receiver) -> None:
    for _ in range(MOST):
        hook(telling, receiver)
    refused = telling.send("/v1/webhooks", {"url": receiver.url})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:stepgate:error:too_many_webhooks")


def test_a_secret_is_shown_once(telling: Api, receiver: Receiver) -> None:
    made = hook(telling, receiver)
    assert made["secret"].startswith("whsec_")
    for path in ("/v1/webhooks", f"/v1/webhooks/{made['id']}"):
        assert made["secret"] not in telling.client.get(path).text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "https://127.0.0.1/x"}, "url"),
        ({"url": "http://example.org/x"}, "url"),
        ({"url": "https://example.org/x", "events": ["run.began"]}, "events"),
        ({"url": "https://example.org/x", "events": []}, "events"),
        ({"url": "https://example.org/x", "format": "xml"}, "format"),
        ({}, "url"),
    ],
)
def test_a_webhook_that_makes_no_sense_is_refused_by_field(quiet: Api, body: Any, field: str) -> None:
    response = quiet.client.post("/v1/webhooks", json=body, headers=quiet.secret)
    assert (response.status_code, [one["field"] for one in response.json()["errors"]]) == (422, [field])
