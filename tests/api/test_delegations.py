"""Approvals in another person's hands: for a time, with the delegator's roles, and never twice."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from stepgate.domain.identity import Kind, Role
from tests.api.conftest import Api, asked_about, give

PATH = "/v1/delegations"


def later(**about: float) -> str:
    return (datetime.now(UTC) + timedelta(**about)).isoformat()


def delegate(api: Api, giver: dict[str, str], taker: dict[str, str], **more: Any) -> httpx2.Response:
    return api.send(PATH, {"to": taker["Name"], "ends_at": later(hours=1), **more}, **giver)


def code(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].rpartition(":")[2]


def test_a_delegate_decides_with_the_delegator_s_roles_and_both_are_recorded(operated: Api) -> None:
    ada, bob = give(operated, Role.ADMIN), give(operated, Role.APPROVER)
    path, step, body = asked_about(operated, "admins")
    for_ada = {**body, "on_behalf_of": ada["Name"]}
    assert code(operated.decide(path, step, "approve", for_ada, **bob)) == (403, "not_delegated")
    made = delegate(operated, ada, bob, reason="on holiday")
    assert (made.status_code, made.json()["roles"], made.json()["stands"]) == (201, ["admin"], True)
    assert code(operated.decide(path, step, "approve", body, **bob)) == (403, "role_required")
    done = operated.decide(path, step, "approve", for_ada, **bob).json()["approval"]
    assert (done["decision"]["actor"]["id"], done["decision"]["on_behalf_of"]) == (bob["Name"], ada["Name"])
    assert done["approvals"][0]["roles"] == ["admin"]
    (event,) = [one for one in operated.get(f"{path}/events")["items"] if one["type"] == "approval.approved"]
    assert (event["actor"]["id"], event["data"]["on_behalf_of"]) == (bob["Name"], ada["Name"])
    assert event["data"]["delegation_id"] == made.json()["id"]
    operated.until(path, lambda run: run["status"] == "completed")
    assert operated.get(f"{path}/verify")["verified"]


def test_it_counts_once_for_both(operated: Api) -> None:
    ada, bob = give(operated, Role.APPROVER), give(operated, Role.APPROVER)
    delegate(operated, ada, bob)
    path, step, body = asked_about(operated, "two")
    for_ada = {**body, "on_behalf_of": ada["Name"]}
    for key, sent in ((bob, for_ada), (bob, body), (ada, body), (bob, for_ada)):
        told = operated.decide(path, step, "approve", sent, **key).json()
        assert (told["status"], len(told["approval"]["approvals"])) == ("awaiting_approval", 1)
    assert operated.decide(path, step, "approve", body).json()["status"] in ("approved", "running", "completed")


def test_the_requester_does_not_approve_through_a_delegate(operated: Api) -> None:
    bob = give(operated, Role.APPROVER)
    own = {name: operated.client.headers[name] for name in ("Authorization", "Name")}
    assert delegate(operated, own, bob).status_code == 201
    path, step, body = asked_about(operated, "others")
    sent = {**body, "on_behalf_of": own["Name"]}
    assert code(operated.decide(path, step, "approve", sent, **bob)) == (403, "requester_excluded")
    carol = give(operated, Role.APPROVER)
    delegate(operated, carol, own)
    sent = {**body, "on_behalf_of": carol["Name"]}
    assert code(operated.decide(path, step, "approve", sent, **own)) == (403, "requester_excluded")
    assert operated.decide(path, step, "approve", body, **bob).status_code == 200


def test_what_was_delegated_does_not_go_on(operated: Api) -> None:
    ada, bob, carol = (give(operated, Role.APPROVER) for _ in range(3))
    delegate(operated, ada, bob)
    delegate(operated, bob, carol)
    path, step, body = asked_about(operated, "two")
    for_ada = {**body, "on_behalf_of": ada["Name"]}
    assert code(operated.decide(path, step, "approve", for_ada, **carol)) == (403, "not_delegated")
    assert operated.decide(path, step, "approve", {**body, "on_behalf_of": bob["Name"]}, **carol).status_code == 200


def test_one_that_is_still_to_come_was_ended_or_whose_delegator_lost_the_key_does_not_count(operated: Api) -> None:
    ada, bob, root = give(operated, Role.APPROVER), give(operated, Role.APPROVER), give(operated, Role.ADMIN)
    path, step, body = asked_about(operated, "two")
    for_ada = {**body, "on_behalf_of": ada["Name"]}

    def refused() -> bool:
        return code(operated.decide(path, step, "approve", for_ada, **bob)) == (403, "not_delegated")

    coming = delegate(operated, ada, bob, starts_at=later(minutes=30)).json()
    assert (coming["stands"], refused()) == (False, True)
    assert code(delegate(operated, ada, bob)) == (409, "already_delegated")
    ended = operated.client.delete(f"{PATH}/{coming['id']}", headers=bob).json()
    assert (ended["revoked_by"], operated.client.delete(f"{PATH}/{coming['id']}", headers=ada).json()) == (
        bob["Name"],
        ended,
    )
    made = delegate(operated, ada, bob).json()
    stranger = operated.client.delete(f"{PATH}/{made['id']}", headers=give(operated, Role.APPROVER))
    assert code(stranger) == (403, "not_yours")
    listed = {one["id"]: one["stands"] for one in operated.get(PATH, limit=200)["items"]}
    assert (listed[made["id"]], listed[coming["id"]]) == (True, False)
    assert operated.send(f"/v1/keys/{ada['Name']}/revoke", **root).status_code == 200
    assert refused()


@pytest.mark.parametrize("kind", [Kind.SERVICE, Kind.AGENT])
def test_only_persons_give_and_take(operated: Api, kind: Kind) -> None:
    ada = give(operated, Role.APPROVER)
    other = give(operated, Role.OPERATOR, kind=kind)
    assert code(delegate(operated, ada, other)) == (422, "invalid_value")
    if kind is Kind.SERVICE:
        service = give(operated, Role.APPROVER, kind=kind)
        assert code(delegate(operated, service, ada)) == (403, "person_required")
    assert code(delegate(operated, operated.secret, ada)) == (403, "person_required")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"to": "nobody"}, "to"),
        ({"to": "local"}, "to"),
        ({"ends_at": "2001-01-01T00:00:00Z"}, "ends_at"),
        ({"ends_at": "2999-01-01T00:00:00Z"}, "ends_at"),
        ({"starts_at": "2998-01-01T00:00:00Z"}, "ends_at"),
        ({"ends_at": "soon"}, "ends_at"),
        ({"from": "ada"}, "from"),
    ],
)
def test_a_delegation_that_makes_no_sense_is_refused_by_field(
    operated: Api, change: dict[str, Any], field: str
) -> None:
    ada, bob = give(operated, Role.APPROVER), give(operated, Role.APPROVER)
    refused = delegate(operated, ada, bob, **change)
    assert refused.status_code == 422, refused.text
    assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert code(delegate(operated, ada, ada)) == (422, "invalid_value")


def test_one_that_is_not_there_is_not_found(operated: Api) -> None:
    for name in ("nothing", "019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b10"):
        assert operated.client.delete(f"{PATH}/{name}").status_code == 404
