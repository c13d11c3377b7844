"""Reminders before a question's time is over, each at most once, and what follows when it is."""

import pytest

from stepgate.domain.evolve import fold
from stepgate.domain.expiry import due_reminder, next_look
from stepgate.domain.quorum import Quorum
from stepgate.domain.state import ApprovalStatus
from stepgate.domain.wake import next_wake
from tests.domain.runs import PERSON, SECOND, Run, gated, spec, started, types

HOUR = 3600 * SECOND


def asked(on_expiry: str = "reject") -> Run:
    """Asked at second 1, open for 100 hours."""
    run = started(gated(1), spec(2, needs=()))
    run.begin(2)
    run.complete(2)
    run.ask(1, expires_at=run.now + 100 * HOUR, on_expiry=on_expiry)
    return run


def at(run: Run, hours: float) -> list[str]:
    run.now = SECOND + round(hours * HOUR)
    return types(run.expire())


def percents(run: Run) -> list[int]:
    return [event.data["percent"] for event in run.events if event.type == "approval.reminded"]


def test_somebody_is_reminded_at_half_and_at_nine_tenths_of_the_time() -> None:
    run = asked()
    assert next_wake(run.state) == SECOND + 50 * HOUR
    assert at(run, 49.99) == []
    assert at(run, 50) == ["approval.reminded"]
    assert next_wake(run.state) == SECOND + 90 * HOUR
    assert at(run, 90) == ["approval.reminded"]
    assert next_wake(run.state) == SECOND + 100 * HOUR
    assert percents(run) == [50, 90]
    assert at(run, 100)[0] == "approval.expired"
    assert fold(run.events) == run.state


def test_each_reminder_comes_once_however_often_somebody_looks() -> None:
    run = asked()
    for hours in (50, 50, 51, 89, 90, 91, 99):
        at(run, hours)
    assert percents(run) == [50, 90]


@pytest.mark.parametrize(("hours", "told"), [(70, [50]), (95, [90]), (120, [])])
def test_what_was_missed_while_nobody_looked_is_told_once(hours: float, told: list[int]) -> None:
    run = asked()
    at(run, hours)
    assert percents(run) == told
    assert (run.status(1) == "rejected") is (hours > 100)


def test_nobody_is_reminded_of_what_was_answered_left_out_or_asked_anew() -> None:
    for close in (Run.approve, Run.skip, Run.reject):
        run = asked()
        close(run, 1)
        assert at(run, 95) == []
    run = asked()
    at(run, 60)
    run.ask(1, "b" * 64, expires_at=run.now + 10 * HOUR)
    assert next_wake(run.state) == run.now + 5 * HOUR
    run.wait(9 * HOUR)
    run.expire()
    assert percents(run) == [50, 90]


def test_an_answer_in_part_does_not_stop_the_clock() -> None:
    run = started(gated(1))
    run.ask(1, expires_at=run.now + 100 * HOUR, required=Quorum(2))
    at(run, 50)
    run.approve(1, by=PERSON._replace(id="bob"))
    assert next_wake(run.state) == SECOND + 90 * HOUR
    assert at(run, 90) == ["approval.reminded"]


def test_a_paused_run_reminds_nobody_until_it_is_resumed() -> None:
    run = asked()
    run.pause()
    assert next_wake(run.state) is None
    run.now = SECOND + 95 * HOUR
    run.resume()
    wake = next_wake(run.state)
    assert wake is not None
    assert wake <= run.now
    run.expire()
    assert percents(run) == [90]


def test_a_question_without_an_end_is_never_due() -> None:
    run = started(gated(1))
    run.ask(1)
    question = run.step(1).approval
    assert question is not None
    assert next_look(question) is None
    assert due_reminder(question, 10**18) is None


def test_an_expiry_that_pauses_leaves_the_question_expired_and_resume_asks_anew() -> None:
    run = asked("pause")
    at(run, 100)
    assert (run.state.status, run.state.reason, run.status(1)) == ("paused", "approval_expired", "awaiting_approval")
    assert [approval.status for approval in run.step(1).approvals] == [ApprovalStatus.EXPIRED]
    run.resume()
    run.ask(1, "b" * 64, expires_at=run.now + HOUR)
    assert [approval.revision for approval in run.step(1).approvals] == [1, 2]
    run.approve(1, "b" * 64)
    run.complete(1, "b" * 64)
    assert run.state.status == "completed"


def test_a_run_is_not_paused_again_for_a_question_that_expired_while_it_stood_still() -> None:
    run = asked("pause")
    run.pause()
    run.now = SECOND + 101 * HOUR
    assert types(run.resume()) == ["approval.expired", "step.retried", "run.resumed"]
    assert run.id(1) in run.state.ready
    run.ask(1, "b" * 64)
    assert [approval.status for approval in run.step(1).approvals] == [ApprovalStatus.EXPIRED, ApprovalStatus.OPEN]


def test_an_undo_whose_time_is_over_is_rejected_because_its_run_cannot_be_paused() -> None:
    run = started(spec(1))
    run.complete(1)
    run.undo(2)
    run.ask(2, expires_at=run.now + HOUR, on_expiry="pause")
    run.wait(HOUR)
    run.expire()
    assert (run.state.status, run.status(2)) == ("completed", "rejected")
    run.undo(3)
    assert run.id(3) in run.state.ready
