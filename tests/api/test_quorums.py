"""Several persons, roles and requesters over HTTP: who is counted is known by key, whoever asks."""

import pytest

from stepgate.domain.identity import Kind, Role
from tests.api.conftest import Api, asked_about, give


def test_approvals_add_up_and_are_shown_while_they_do(operated: Api) -> None:
    path, step, body = asked_about(operated, "two")
    required = {"count": 2, "roles": [], "exclude_requester": False}
    assert (step["approval"]["required"], step["approval"]["approvals"]) == (required, [])
    bob, carol = give(operated, Role.APPROVER), give(operated, Role.ADMIN)
    for _ in range(2):
        answer = operated.decide(path, step, "approve", {**body, "reason": "reads well"}, **bob).json()
        assert (answer["status"], answer["approval"]["decision"]) == ("awaiting_approval", None)
        (given,) = answer["approval"]["approvals"]
        assert (given["actor"]["id"], given["roles"], given["reason"]) == (bob["Name"], ["approver"], "reads well")
    (listed,) = [one for one in operated.get("/v1/approvals", limit=200)["items"] if one["step_id"] == step["id"]]
    assert (listed["required"], len(listed["approvals"])) == (required, 1)
    done = operated.decide(path, step, "approve", body, **carol).json()
    assert done["approval"]["decision"]["actor"]["id"] == carol["Name"]
    assert [one["actor"]["id"] for one in done["approval"]["approvals"]] == [bob["Name"], carol["Name"]]
    operated.until(path, lambda run: run["status"] == "completed")
    assert operated.get(f"{path}/verify")["verified"]
    counted = [one for one in operated.get(f"{path}/events", limit=200)["items"] if one["type"] == "approval.counted"]
    assert [(one["actor"]["id"], one["data"]["roles"]) for one in counted] == [(bob["Name"], ["approver"])]


def test_one_rejection_settles_what_others_approved(operated: Api) -> None:
    path, step, body = asked_about(operated, "two")
    bob, carol = give(operated, Role.APPROVER), give(operated, Role.APPROVER)
    assert operated.decide(path, step, "approve", body, **bob).status_code == 200
    told = operated.decide(path, step, "reject", {"reason": "no"}, **carol).json()["approval"]
    assert (told["decision"]["verdict"], len(told["approvals"])) == ("rejected", 1)
    late = operated.decide(path, step, "approve", body, **bob)
    assert (late.status_code, late.json()["details"]["decision"]["actor"]["id"]) == (409, carol["Name"])


@pytest.mark.parametrize(
    ("folder", "roles", "kind", "code"),
    [
        ("admins", [Role.APPROVER], Kind.PERSON, "role_required"),
        ("two", [Role.ADMIN], Kind.SERVICE, "person_required"),
        ("others", [Role.ADMIN], Kind.SERVICE, "person_required"),
        ("two", [Role.OPERATOR], Kind.AGENT, "role_required"),
    ],
)
def test_an_approval_that_does_not_count_is_refused_and_leaves_nothing(
    operated: Api, folder: str, roles: list[Role], kind: Kind, code: str
) -> None:
    path, step, body = asked_about(operated, folder)
    before = operated.get(path)["head_seq"]
    refused = operated.decide(path, step, "approve", body, **give(operated, *roles, kind=kind))
    assert (refused.status_code, refused.json()["type"]) == (403, f"urn:stepgate:error:{code}")
    assert operated.get(path)["head_seq"] == before


def test_the_requester_is_refused_where_excluded_and_somebody_else_is_not(operated: Api) -> None:
    path, step, body = asked_about(operated, "others")
    assert step["approval"]["on_expiry"] == "pause"
    own = operated.decide(path, step, "approve", body)
    assert (own.status_code, own.json()["type"]) == (403, "urn:stepgate:error:requester_excluded")
    assert operated.decide(path, step, "approve", body, **give(operated, Role.APPROVER)).status_code == 200


def test_the_local_secret_counts_as_an_approver_and_as_nobody_in_particular(operated: Api) -> None:
    for folder, code in (("admins", "role_required"), ("two", "person_required"), ("others", "person_required")):
        path, step, body = asked_about(operated, folder)
        refused = operated.decide(path, step, "approve", body, **operated.secret)
        assert (refused.status_code, refused.json()["type"]) == (403, f"urn:stepgate:error:{code}")
    path, step, body = asked_about(operated, "plain")
    assert operated.decide(path, step, "approve", body, **operated.secret).status_code == 200


def test_a_plan_is_told_what_it_takes_to_approve(operated: Api) -> None:
    steps = [{"type": "edit_file", "input": {"path": f"{name}/a", "content": ""}} for name in ("two", "admins")]
    told = operated.post("/v1/policies/explain", {"steps": [*steps, {"type": "read_file", "input": {"path": "a"}}]})
    assert [step["required"] and step["required"]["count"] for step in told["steps"]] == [2, 1, None]
    assert told["steps"][1]["required"]["roles"] == [["admin"]]
    assert [step["on_expiry"] for step in told["steps"]] == ["reject", "reject", None]
