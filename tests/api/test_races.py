"""Many decisions at the same moment, and decisions against whatever else may happen to their question."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import httpx2
import pytest

from stepgate.domain.identity import Role
from tests.api.conftest import Api, asked_about, give
from tests.fixtures.patience import PATIENCE_S

AT_ONCE = 50


Send = Callable[[], httpx2.Response]


def at_once(sends: Sequence[Send]) -> list[httpx2.Response]:
    """Their answers, in order; none is sent before all are ready to be."""
    barrier = threading.Barrier(len(sends))
    answers: dict[int, httpx2.Response] = {}

    def send(number: int) -> None:
        barrier.wait(PATIENCE_S)
        answers[number] = sends[number]()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(sends))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return [answers[number] for number in range(len(sends))]


def types(api: Api, path: str) -> list[str]:
    return [event["type"] for event in api.get(f"{path}/events", limit=200)["items"]]


def deciding(api: Api, path: str, step: Any, verb: str, body: Any, key: dict[str, str]) -> Send:
    return lambda: api.decide(path, step, verb, body, **key)


def settled(api: Api, path: str) -> Any:
    """The run at its end, whose journal holds."""
    run = api.until(path, lambda run: run["status"] in ("completed", "cancelled", "failed"))
    assert api.get(f"{path}/verify")["verified"]
    return run


def test_of_fifty_conflicting_decisions_by_as_many_people_one_stands(operated: Api) -> None:
    path, step, body = asked_about(operated, "plain")
    said = [
        ("approve", body),
        ("reject", {**body, "then": "abort"}),
        ("reject", {**body, "then": "skip"}),
        ("skip", {"reason": "not needed"}),
    ]
    moves = [said[number % len(said)] for number in range(AT_ONCE)]
    people = [give(operated, Role.APPROVER) for _ in moves]
    answers = at_once(
        [deciding(operated, path, step, *move, person) for move, person in zip(moves, people, strict=True)]
    )
    assert {answer.status_code for answer in answers} == {200, 409}
    accepted = [moves.index(move) for move, answer in zip(moves, answers, strict=True) if answer.status_code == 200]
    assert len(set(accepted)) == 1, "all that were accepted said the same"
    assert accepted == [number % len(said) for number in range(AT_ONCE) if number % len(said) == accepted[0]]
    receipts = [answer.json()["approval"]["decision"] for answer in answers if answer.status_code == 200]
    assert all(receipt == receipts[0] for receipt in receipts)
    settled(operated, path)
    facts = Counter(types(operated, path))
    assert facts["approval.approved"] + facts["approval.rejected"] + facts["step.skipped"] == 1
    problems = {answer.json()["type"].rpartition(":")[2] for answer in answers if answer.status_code == 409}
    assert problems <= {"already_decided", "illegal_transition"}


def test_of_fifty_approvals_by_half_as_many_people_as_many_count_as_it_takes(operated: Api) -> None:
    path, step, body = asked_about(operated, "two")
    people = [give(operated, Role.APPROVER) for _ in range(AT_ONCE // 2)]
    answers = at_once([deciding(operated, path, step, "approve", body, person) for person in [*people, *people]])
    assert {answer.status_code for answer in answers} == {200}
    settled(operated, path)
    facts = Counter(types(operated, path))
    assert (facts["approval.counted"], facts["approval.approved"], facts["step.computed"]) == (1, 1, 1)
    given = operated.get(f"{path}/steps/{step['id']}")["approval"]["approvals"]
    assert len({one["actor"]["id"] for one in given}) == 2


def test_one_rejection_among_approvals_settles_it_or_comes_too_late(operated: Api) -> None:
    path, step, body = asked_about(operated, "two")
    people = [give(operated, Role.APPROVER) for _ in range(6)]
    sends = [deciding(operated, path, step, "approve", body, person) for person in people[1:]]
    *_, rejection = at_once([*sends, deciding(operated, path, step, "reject", body, people[0])])
    run = settled(operated, path)
    assert run["status"] == ("cancelled" if rejection.status_code == 200 else "completed")
    assert rejection.status_code in (200, 409)
    assert ("approval.rejected" in types(operated, path)) is (rejection.status_code == 200)


def test_a_decision_and_a_cancel_at_the_same_moment_leave_one_story(operated: Api) -> None:
    for _ in range(5):
        path, step, body = asked_about(operated, "plain")
        person = give(operated, Role.APPROVER)
        sends: list[Send] = [
            deciding(operated, path, step, "approve", body, person),
            partial(operated.send, f"{path}/cancel"),
        ]
        approved, cancelled = at_once(sends)
        run = settled(operated, path)
        facts = types(operated, path)
        assert approved.status_code in (200, 409)
        assert ("approval.approved" in facts) is (approved.status_code == 200)
        assert (run["status"] == "cancelled") is (cancelled.status_code == 200 and "step.computed" not in facts)
        written = (operated.workspace / "plain/a.txt").exists()
        assert written is ("step.completed" in facts)
        assert not written or approved.status_code == 200
        (operated.workspace / "plain/a.txt").unlink(missing_ok=True)


def test_decisions_and_undos_at_the_same_moment_apply_one_undo(operated: Api) -> None:
    path, step, body = asked_about(operated, "plain")
    assert operated.decide(path, step, "approve", body).status_code == 200
    settled(operated, path)
    undo = operated.post(f"{path}/undo")["step"]
    step_path = f"{path}/steps/{undo['id']}"
    undo = operated.until(step_path, lambda step: step["status"] == "awaiting_approval")
    body = {"action_hash": undo["approval"]["action_hash"]}
    people = [give(operated, Role.APPROVER) for _ in range(6)]
    approvals = [deciding(operated, path, undo, "approve", body, person) for person in people]
    answers = at_once([*approvals, *[partial(operated.send, f"{path}/undo")] * 4])
    assert {answer.status_code for answer in answers[:6]} == {200}
    again = [answer for answer in answers[6:] if answer.status_code == 200]
    operated.until(step_path, lambda step: step["status"] == "completed")
    assert {answer.status_code for answer in answers[6:]} <= {200, 409}
    assert len(again) <= 1
    facts = Counter(types(operated, path))
    assert (facts["approval.approved"], facts["run.undone"]) == (2, 1)
    assert not (operated.workspace / "plain/a.txt").exists()
    assert operated.get(f"{path}/verify")["verified"]


def test_a_decision_at_the_moment_its_question_expires_counts_or_is_told_that_it_does_not(operated: Api) -> None:
    step = {"key": "edit", "type": "edit_file", "input": {"path": "plain/a.txt", "content": "x"}}
    run = operated.run([step], start=True, limits={"approval_timeout": "1s"})
    path = f"/v1/agent-runs/{run['id']}"
    asked = operated.until(path, lambda run: run["steps"][0]["approval"] is not None)["steps"][0]
    body = {"action_hash": asked["approval"]["action_hash"]}
    people = [give(operated, Role.APPROVER) for _ in range(4)]
    end = datetime.fromisoformat(asked["approval"]["expires_at"]).timestamp()
    while time.time() < end - 0.004:
        operated.get("/worker/status")
    answers = at_once([deciding(operated, path, asked, "approve", body, person) for person in people])
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {200, 410}
    run = settled(operated, path)
    facts = types(operated, path)
    assert ("approval.approved" in facts) is (200 in statuses)
    assert ("approval.expired" in facts) is (200 not in statuses)
    assert (run["status"] == "completed") is (200 in statuses)
    if 200 in statuses:
        decided = next(answer for answer in answers if answer.status_code == 200).json()["approval"]["decision"]
        assert datetime.fromisoformat(decided["at"]).timestamp() < end


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_decision_that_comes_before_the_question_is_an_error_and_nothing_of_it_is_kept(
    operated: Api, verb: str
) -> None:
    edit = {"key": "edit", "type": "edit_file", "input": {"path": f"plain/{verb}.txt", "content": "x"}}
    run = operated.run([edit])
    path = f"/v1/agent-runs/{run['id']}"
    early = operated.decide(path, run["steps"][0], verb, {"action_hash": "0" * 64})
    assert (early.status_code, early.json()["type"]) == (409, "urn:stepgate:error:not_awaiting_approval")
    assert types(operated, path) == ["run.created", "run.planned"]
    operated.post(f"{path}/start")
    asked = operated.until(path, lambda run: run["status"] == "awaiting_approval")["steps"][0]
    assert (asked["approval"]["approvals"], asked["approval"]["decision"]) == ([], None)
    assert not (operated.workspace / f"plain/{verb}.txt").exists()
