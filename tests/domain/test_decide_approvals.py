"""The gate: what an answer authorises, what it does not, and what a person is told who comes too late."""

from collections.abc import Callable

import pytest

from stepgate.domain import commands as c
from stepgate.domain.errors import AlreadyDecided, Conflict, Expired, Forbidden, IllegalTransition, StaleApproval
from stepgate.domain.identity import LOCAL_ID
from stepgate.domain.quorum import Quorum
from stepgate.domain.state import POLICY, ApprovalStatus, Effect
from stepgate.domain.wake import next_wake
from tests.domain.driving import to_the_end
from tests.domain.runs import (
    CHANGE,
    HASH,
    OTHER_HASH,
    PERSON,
    SECOND,
    Run,
    gated,
    planned,
    question,
    refusal,
    spec,
    started,
    types,
)


def asked(*, expires_at: int | None = None, on_expiry: str = "reject") -> Run:
    run = started(gated(1), spec(2))
    run.ask(1, expires_at=expires_at, on_expiry=on_expiry)
    return run


def test_asking_parks_the_step_and_the_run_waits_for_a_person() -> None:
    run = asked()
    assert (run.status(1), run.state.status, run.state.phase) == ("awaiting_approval", "awaiting_approval", "running")
    assert next_wake(run.state) is None


def test_a_run_awaits_approval_only_when_nothing_else_of_it_can_move() -> None:
    run = started(gated(1), spec(2, needs=()))
    run.ask(1)
    assert run.state.status == "running"
    run.begin(2)
    assert run.state.status == "running"
    run.complete(2)
    assert run.state.status == "awaiting_approval"


def test_a_run_that_waits_for_a_retry_beside_a_question_is_running() -> None:
    run = started(gated(1), spec(2, needs=(), max_attempts=2, backoff_ms=1000))
    run.ask(1, expires_at=run.now + 9 * SECOND)
    run.fail(2, retryable=True)
    assert run.state.status == "running"
    assert next_wake(run.state) == run.now + SECOND


def test_a_gated_step_does_not_begin_compute_or_complete_without_an_approval() -> None:
    run = started(gated(1, effect=Effect.WORKSPACE))
    for action in (run.begin, run.compute, run.complete):
        with pytest.raises(IllegalTransition):
            action(1, HASH)
    run.ask(1)
    for action in (run.begin, run.compute, run.complete):
        with pytest.raises(IllegalTransition):
            action(1, HASH)


def test_an_approval_authorises_exactly_the_action_shown() -> None:
    run = asked()
    run.approve(1)
    for hash_ in (OTHER_HASH, None, ""):
        for action in (run.begin, run.compute, run.complete):
            with pytest.raises(StaleApproval):
                action(1, hash_)
    run.begin(1, HASH)
    run.complete(1, HASH)
    assert run.status(1) == "completed"


def test_a_resumed_step_executes_no_other_arguments_than_the_approved_ones() -> None:
    run = asked()
    run.approve(1)
    run.begin(1, HASH)
    run.pause()
    run.interrupt(1)
    run.resume()
    with pytest.raises(StaleApproval):
        run.begin(1, OTHER_HASH)
    with pytest.raises(StaleApproval):
        run.complete(1, OTHER_HASH)


def test_a_lost_worker_s_successor_begins_again_only_the_approved_action() -> None:
    run = asked()
    run.approve(1)
    run.begin(1, HASH)
    with pytest.raises(StaleApproval):
        run.begin(1, OTHER_HASH)
    run.begin(1, HASH)
    with pytest.raises(StaleApproval):
        run.complete(1, OTHER_HASH)


def test_approval_of_revision_1_does_not_authorise_revision_2() -> None:
    run = asked()
    run.approve(1)
    run.ask(1, OTHER_HASH)
    assert [a.status for a in run.step(1).approvals] == [ApprovalStatus.SUPERSEDED, ApprovalStatus.OPEN]
    for hash_ in (HASH, OTHER_HASH):
        with pytest.raises(IllegalTransition):
            run.begin(1, hash_)
    run.approve(1, OTHER_HASH)
    with pytest.raises(StaleApproval):
        run.begin(1, HASH)
    run.begin(1, OTHER_HASH)


def test_deciding_on_an_older_revision_is_stale_and_shows_the_present_one() -> None:
    run = asked()
    run.ask(1, OTHER_HASH)
    for command in (
        c.Approve(PERSON, run.id(1), HASH),
        c.Reject(PERSON, run.id(1), HASH),
    ):
        error = refusal(run, command)
        assert isinstance(error, StaleApproval)
        assert error.details["revision"] == 2
        assert error.details["action_hash"] == OTHER_HASH


def test_a_hash_nobody_asked_about_is_stale() -> None:
    with pytest.raises(StaleApproval):
        asked().approve(1, "c" * 64)


def test_an_implied_hash_approves_a_first_revision_only_and_is_journaled_as_implied() -> None:
    run = asked()
    event = run.approve(1, None)[0]
    assert (event.data["implied"], event.data["action_hash"]) == (True, HASH)
    moved = asked()
    moved.ask(1, OTHER_HASH)
    with pytest.raises(StaleApproval):
        moved.approve(1, None)


def test_a_step_that_asks_nothing_cannot_be_decided() -> None:
    run = started(spec(1))
    for command in (c.Approve(PERSON, run.id(1), HASH), c.Reject(PERSON, run.id(1), HASH)):
        error = refusal(run, command)
        assert isinstance(error, Conflict)
        assert error.reason_code == "not_awaiting_approval"


def test_the_same_decision_again_is_no_new_fact() -> None:
    run = asked()
    run.approve(1)
    assert run.approve(1) == ()
    other = asked()
    other.reject(1, then="skip")
    assert other.reject(1, then="skip") == ()


def test_an_approval_given_again_after_the_step_has_ended_is_still_the_same_receipt() -> None:
    run = asked()
    run.approve(1)
    run.complete(1, HASH)
    assert run.approve(1) == ()
    run.wait(10**15)
    assert run.approve(1) == ()


def test_another_decision_meets_the_standing_one() -> None:
    run = asked()
    run.approve(1)
    with pytest.raises(AlreadyDecided) as caught:
        run.reject(1)
    assert caught.value.details["verdict"] == "approved"
    assert caught.value.details["decided_by"] == "ada"
    other = asked()
    other.reject(1, then="skip")
    with pytest.raises(AlreadyDecided):
        other.approve(1)
    with pytest.raises(AlreadyDecided):
        other.reject(1, then="abort")


def test_the_first_decision_wins_whoever_gives_the_second() -> None:
    run = asked()
    run.reject(1, then="skip")
    before = run.state
    assert refusal(run, c.Approve(PERSON._replace(id="bob"), run.id(1), HASH))
    assert run.state is before
    assert run.step(1).approvals[-1].decided_by == PERSON


def test_asking_the_same_question_again_is_no_new_revision() -> None:
    run = asked()
    assert run.ask(1) == ()
    assert len(run.step(1).approvals) == 1


def test_a_question_can_only_be_asked_of_a_step_that_could_start() -> None:
    run = started(spec(1), gated(2))
    with pytest.raises(IllegalTransition):
        run.ask(2)
    fresh = planned(gated(1))
    with pytest.raises(IllegalTransition):
        fresh.ask(1)
    held = planned(gated(1, needs=()), gated(2, needs=()))
    held.execute()
    with pytest.raises(IllegalTransition):
        held.ask(2)


def test_a_question_that_comes_after_the_run_was_paused_is_dropped_and_asked_on_resume() -> None:
    run = started(gated(1))
    run.pause()
    assert run.ask(1) == ()
    run.resume()
    assert types(run.ask(1)) == ["run.started", "approval.requested"]


def test_a_question_about_a_step_that_has_ended_is_dropped() -> None:
    run = started(gated(1))
    run.cancel()
    assert run.ask(1) == ()


@pytest.mark.parametrize("stop", ["cancel", "fail"])
def test_a_prepared_step_of_a_run_that_is_ending_asks_nobody(stop: str) -> None:
    run = started(gated(1), spec(2, needs=()), spec(3, needs=()))
    run.prepare(1)
    run.begin(3)
    if stop == "cancel":
        run.cancel()
    else:
        run.fail(2)
    run.ask(1)
    assert run.status(1) == "cancelled"
    assert not run.state.asking


def test_a_prepared_step_of_a_run_that_is_being_paused_still_puts_its_question() -> None:
    run = started(gated(1))
    run.prepare(1)
    run.pause()
    run.ask(1)
    assert (run.status(1), run.state.status) == ("awaiting_approval", "paused")
    run.approve(1)
    assert next_wake(run.state) is None
    run.resume()
    assert run.id(1) in run.state.ready


# Reject


def test_a_rejected_step_never_executes() -> None:
    run = asked()
    run.reject(1, then="skip")
    for command in (
        c.Begin(PERSON, run.id(1), HASH),
        c.Prepare(PERSON, run.id(1)),
    ):
        assert isinstance(refusal(run, command), IllegalTransition)
    assert run.ask(1) == ()
    for late in (run.compute(1, HASH), run.complete(1, HASH)):
        assert types(late) == ["step.discarded"]
    assert run.status(1) == "rejected"


def test_rejecting_with_abort_lets_siblings_finish_and_ends_the_run_cancelled_with_reason_rejected() -> None:
    run = started(gated(1), spec(2, needs=()), spec(3, needs=[1]), spec(4, needs=[2]))
    run.begin(2)
    run.ask(1)
    assert types(run.reject(1)) == [
        "approval.rejected",
        "step.rejected",
        "run.cancelling",
        "step.cancelled",
        "step.cancelled",
    ]
    assert (run.state.status, run.state.drain) == ("cancelling", "finish")
    run.complete(2)
    assert run.statuses == ["rejected", "completed", "cancelled", "cancelled"]
    assert (run.state.status, run.state.reason) == ("cancelled", "rejected")


def test_a_sibling_lost_after_a_rejection_is_begun_again_to_its_end() -> None:
    run = started(gated(1), spec(2, needs=()))
    run.begin(2)
    run.ask(1)
    run.reject(1)
    assert run.begin(2)[0].data["again"] is True
    run.complete(2)
    assert run.statuses == ["rejected", "completed"]


def test_rejecting_with_skip_goes_on_without_the_step() -> None:
    run = asked()
    run.reject(1, then="skip")
    assert run.statuses == ["rejected", "pending"]
    assert run.id(2) in run.state.ready
    run.complete(2)
    assert run.state.status == "completed"


def test_rejecting_in_a_paused_run_ends_it() -> None:
    run = asked()
    run.pause()
    run.reject(1)
    assert (run.state.status, run.state.reason) == ("cancelled", "rejected")


def test_a_rejection_does_not_let_siblings_go_on_that_were_being_stopped() -> None:
    run = started(gated(1), spec(2, needs=()))
    run.begin(2)
    run.ask(1)
    run.pause()
    run.reject(1)
    assert (run.state.status, run.state.drain) == ("cancelling", "kill")


# Skip


def test_a_skipped_step_satisfies_its_dependents() -> None:
    run = started(spec(1), spec(2))
    run.skip(1)
    assert run.statuses == ["skipped", "pending"]
    assert run.id(2) in run.state.ready


def test_skipping_closes_the_open_question() -> None:
    run = asked()
    run.skip(1)
    assert run.step(1).approvals[-1].status is ApprovalStatus.VOID
    with pytest.raises(AlreadyDecided):
        run.approve(1)


def test_skipping_twice_changes_nothing_and_what_runs_or_has_ended_cannot_be_skipped() -> None:
    run = started(spec(1, needs=()), spec(2, needs=()), spec(3, needs=()))
    run.skip(1)
    assert run.skip(1) == ()
    run.begin(2)
    run.complete(3)
    for number in (2, 3):
        with pytest.raises(IllegalTransition):
            run.skip(number)


def test_skipping_the_last_open_step_completes_the_run() -> None:
    run = started(spec(1))
    run.skip(1)
    assert run.state.status == "completed"


# Expiry


def test_a_decision_after_the_time_is_over_is_expired_even_before_anybody_recorded_it() -> None:
    run = asked(expires_at=5 * SECOND)
    run.now = 5 * SECOND
    with pytest.raises(Expired):
        run.approve(1)
    with pytest.raises(Expired):
        run.reject(1)


def test_a_decision_just_before_the_time_is_over_counts() -> None:
    run = asked(expires_at=5 * SECOND)
    run.now = 5 * SECOND - 1
    run.approve(1)
    assert run.state.next_timer is None
    run.wait(SECOND)
    assert run.expire() == ()
    run.complete(1, HASH)


def test_the_run_wakes_for_the_expiry_of_its_question() -> None:
    run = asked(expires_at=5 * SECOND)
    for wake in (3 * SECOND, 4_600_000, 5 * SECOND):
        assert next_wake(run.state) == wake
        run.now = wake
        run.expire()
    assert run.state.status == "cancelled"


def test_an_answer_to_a_later_question_leaves_the_timer_of_an_earlier_one() -> None:
    run = started(*(gated(number, needs=()) for number in (1, 2, 3)))
    for number, seconds in ((1, 7), (2, 5), (3, 9)):
        run.ask(number, f"{number:064x}", expires_at=seconds * SECOND)
    assert next_wake(run.state) == 3 * SECOND
    run.approve(3, f"{3:064x}")
    assert run.state.next_timer == 3 * SECOND
    run.approve(2, f"{2:064x}")
    assert run.state.next_timer == 4 * SECOND
    run.approve(1, f"{1:064x}")
    assert run.state.next_timer is None


def test_a_question_expires_once() -> None:
    run = asked(expires_at=5 * SECOND, on_expiry="pause")
    run.now = 5 * SECOND
    assert run.expire()
    assert run.expire() == ()


def test_an_expired_question_counts_as_a_rejection() -> None:
    run = asked(expires_at=5 * SECOND)
    run.now = 5 * SECOND
    assert types(run.expire())[:3] == ["approval.expired", "step.rejected", "run.cancelling"]
    assert (run.state.status, run.step(1).reason) == ("cancelled", "expired")


def test_a_decision_on_a_question_recorded_as_expired_is_expired_too() -> None:
    for on_expiry in ("reject", "pause"):
        run = asked(expires_at=5 * SECOND, on_expiry=on_expiry)
        run.now = 5 * SECOND
        run.expire()
        for action in (run.approve, run.reject):
            with pytest.raises(Expired):
                action(1)


def test_expire_before_the_time_is_over_changes_nothing() -> None:
    run = asked(expires_at=5 * SECOND)
    assert run.expire() == ()


def test_an_expiry_that_pauses_asks_anew_on_resume() -> None:
    run = asked(expires_at=5 * SECOND, on_expiry="pause")
    run.now = 5 * SECOND
    run.expire()
    assert (run.state.status, run.state.reason) == ("paused", "approval_expired")
    run.resume()
    assert run.status(1) == "pending"
    assert next_wake(run.state) is not None
    run.ask(1)
    assert run.step(1).approvals[-1].revision == 2
    to_the_end(run)
    assert run.state.status == "completed"


def test_a_question_that_expired_while_the_run_was_paused_is_closed_when_it_is_resumed() -> None:
    run = asked(expires_at=5 * SECOND)
    run.pause()
    assert next_wake(run.state) is None
    run.now = 6 * SECOND
    run.resume()
    wake = next_wake(run.state)
    assert wake is not None
    assert wake <= run.now
    run.expire()
    assert run.state.status == "cancelled"


def test_questions_expire_in_the_order_of_their_steps_whatever_the_hash_seed() -> None:
    steps = [gated(number, needs=()) for number in range(1, 30)]
    run = started(*steps)
    for number in range(1, 30):
        run.ask(number, f"{number:064x}", expires_at=5 * SECOND, on_expiry="pause")
    run.now = 5 * SECOND
    expired = [event.step_id for event in run.expire() if event.type == "approval.expired"]
    assert expired == [run.id(number) for number in range(1, 30)]


# A question put to a step whose own gate would let it through


def test_once_asked_even_an_ungated_step_needs_the_answer() -> None:
    run = started(spec(1))
    run.ask(1, expires_at=5 * SECOND, on_expiry="pause")
    run.now = 5 * SECOND
    run.expire()
    run.resume()
    for action in (run.begin, run.compute, run.complete):
        with pytest.raises(IllegalTransition):
            action(1, HASH)
    run.ask(1)
    run.approve(1)
    run.pause()
    run.resume()
    assert run.status(1) == "approved"
    run.complete(1, HASH)


# One approval, one effect


def test_an_approval_serves_every_attempt_of_the_retry_policy_it_was_given_for() -> None:
    run = started(gated(1, max_attempts=2))
    run.ask(1)
    run.approve(1)
    run.begin(1, HASH)
    run.fail(1, retryable=True)
    assert run.status(1) == "approved"
    run.begin(1, HASH)
    run.complete(1, HASH)
    assert run.step(1).attempt == 2


def test_an_approval_serves_at_most_one_computed_effect() -> None:
    run = started(gated(1, effect=Effect.WORKSPACE))
    run.ask(1)
    run.approve(1)
    run.compute(1, HASH)
    for command in (
        c.Compute(PERSON, run.id(1), CHANGE, HASH),
        c.Begin(PERSON, run.id(1), HASH),
        c.Ask(PERSON, run.id(1), question(HASH, number=9)),
    ):
        assert isinstance(refusal(run, command), IllegalTransition)


def reviewed(run: Run) -> None:
    run.review(1, "lost_end")


def stopped(run: Run) -> None:
    run.interrupt(1)


def poisoned(run: Run) -> None:
    run.poison()


@pytest.mark.parametrize("lose", [reviewed, stopped, poisoned])
def test_an_approval_serves_at_most_one_start_of_a_step_that_runs_once(lose: Callable[[Run], None]) -> None:
    run = started(gated(1, effect=Effect.ONCE, max_attempts=3))
    run.ask(1)
    run.approve(1)
    run.begin(1, HASH)
    with pytest.raises(IllegalTransition):
        run.begin(1, HASH)
    lose(run)
    assert (run.status(1), run.state.status) == ("needs_review", "paused")
    run.resume()
    assert run.status(1) == "pending"
    with pytest.raises(IllegalTransition):
        run.begin(1, HASH)
    run.ask(1)
    run.approve(1)
    run.begin(1, HASH)


def grant(run: Run, action_hash: str = HASH, number: int = 7) -> list[str]:
    return types(run.do(c.Grant(PERSON, run.id(1), question(action_hash, number=number))))


def test_what_a_rule_allows_is_asked_and_answered_in_one_decision() -> None:
    run = started(gated(1))
    assert grant(run) == ["run.started", "approval.requested", "approval.approved"]
    approval = run.step(1).approval
    assert approval is not None
    assert (approval.status, approval.decided_by, approval.action_hash) == (ApprovalStatus.APPROVED, POLICY, HASH)
    assert isinstance(refusal(run, c.Begin(PERSON, run.id(1), OTHER_HASH)), StaleApproval)
    run.begin(1, HASH)


def test_what_a_rule_allows_does_not_answer_a_question_that_a_person_was_asked() -> None:
    run = asked()
    assert grant(run, HASH) == []
    assert run.status(1) == "awaiting_approval"
    run.reject(1)
    assert grant(run) == []
    assert run.status(1) == "rejected"


def test_what_a_rule_allows_starts_nothing_in_a_run_that_stands_still() -> None:
    run = started(gated(1))
    run.do(c.Pause(PERSON))
    assert grant(run) == []
    assert run.status(1) == "pending"


def test_a_rule_that_allows_another_action_voids_what_was_approved() -> None:
    run = asked()
    run.approve(1)
    assert grant(run, OTHER_HASH) == ["approval.requested", "approval.approved"]
    assert run.step(1).approvals[0].status is ApprovalStatus.SUPERSEDED
    assert isinstance(refusal(run, c.Begin(PERSON, run.id(1), HASH)), StaleApproval)


def test_what_was_computed_is_parked_without_using_up_an_attempt() -> None:
    run = started(gated(1, effect=Effect.WORKSPACE))
    run.ask(1)
    run.approve(1)
    run.begin(1, HASH)
    events = run.do(c.Ask(PERSON, run.id(1), question(OTHER_HASH, number=9), "parked"))
    assert [(event.type.value, event.data.get("reason")) for event in events] == [
        ("step.retried", "parked"),
        ("approval.requested", None),
    ]
    step = run.step(1)
    assert (step.status, step.attempt, step.approvals[0].status) == ("awaiting_approval", 0, ApprovalStatus.SUPERSEDED)
    assert isinstance(refusal(run, c.Compute(PERSON, run.id(1), CHANGE, HASH)), IllegalTransition)
    run.approve(1, OTHER_HASH)
    run.compute(1, OTHER_HASH)
    assert (run.step(1).status, run.step(1).attempt) == ("computed", 1)


def test_nothing_is_parked_in_a_run_that_is_ending() -> None:
    run = started(gated(1, effect=Effect.WORKSPACE))
    run.ask(1)
    run.approve(1)
    run.begin(1, HASH)
    run.do(c.Cancel(PERSON))
    run.do(c.Ask(PERSON, run.id(1), question(OTHER_HASH, number=9), "parked"))
    assert (run.status(1), run.state.status) == ("cancelled", "cancelled")


# Edit


def test_an_edit_voids_the_question_and_every_answer_and_has_the_step_prepared_anew() -> None:
    run = started(gated(1), spec(2))
    run.ask(1, required=Quorum(2))
    run.approve(1, by=PERSON._replace(id="bob"))
    (event,) = run.edit(1)
    assert (event.type, event.data["input_sha256"], event.data["input_size"]) == ("approval.edited", "e" * 64, 7)
    step = run.step(1)
    assert (run.status(1), step.authorised, step.spec.input_sha256, step.editor) == ("pending", False, "e" * 64, PERSON)
    assert run.id(1) in run.state.ready
    for action in (run.begin, run.complete):
        with pytest.raises(IllegalTransition):
            action(1, HASH)
    run.ask(1, OTHER_HASH)
    assert [one.status for one in run.step(1).approvals] == [ApprovalStatus.EDITED, ApprovalStatus.OPEN]
    assert run.step(1).approvals[-1].voices == ()
    run.approve(1, OTHER_HASH)
    run.begin(1, OTHER_HASH)


def test_the_same_edit_again_is_no_new_fact_and_another_meets_the_standing_one() -> None:
    run = asked()
    run.edit(1)
    assert run.edit(1) == ()
    other = c.Edit(PERSON, run.id(1), HASH, "f" * 64, 7)
    for late in (other, c.Approve(PERSON, run.id(1), HASH), c.Reject(PERSON, run.id(1), HASH)):
        with pytest.raises(AlreadyDecided) as caught:
            run.do(late)
        assert (caught.value.details["verdict"], caught.value.details["decided_by"]) == ("edited", "ada")
    run.ask(1, OTHER_HASH)
    with pytest.raises(StaleApproval):
        run.edit(1)


def test_an_edit_comes_too_late_for_what_is_decided_or_expired() -> None:
    approved, rejected, late = asked(), asked(), asked(expires_at=5 * SECOND)
    approved.approve(1)
    rejected.reject(1, then="skip")
    for run in (approved, rejected):
        with pytest.raises(AlreadyDecided):
            run.edit(1)
    late.now = 5 * SECOND
    with pytest.raises(Expired):
        late.edit(1)


def test_an_agent_edits_nothing() -> None:
    with pytest.raises(Forbidden):
        asked().edit(1, by=PERSON._replace(kind="agent"))


def test_an_edit_in_a_paused_run_is_taken_up_when_it_goes_on() -> None:
    run = asked(expires_at=5 * SECOND)
    run.pause()
    run.edit(1)
    assert (next_wake(run.state), run.state.next_timer) == (None, None)
    run.resume()
    assert run.id(1) in run.state.ready


def test_who_edited_an_action_counts_as_its_requester_where_that_one_may_not_approve() -> None:
    run = started(gated(1))
    run.ask(1, required=Quorum(exclude_requester=True))
    bob, cyd = PERSON._replace(id="bob"), PERSON._replace(id="cyd")
    run.edit(1, by=bob)
    run.ask(1, OTHER_HASH, required=Quorum(exclude_requester=True))
    for person, code in ((PERSON, "requester_excluded"), (bob, "editor_excluded")):
        with pytest.raises(Forbidden) as caught:
            run.approve(1, OTHER_HASH, by=person)
        assert caught.value.reason_code == code
    run.approve(1, OTHER_HASH, by=cyd)
    assert run.status(1) == "approved"
    other = started(gated(1))
    other.ask(1, required=Quorum(exclude_requester=True))
    with pytest.raises(Forbidden) as caught:
        other.edit(1, by=PERSON._replace(id=LOCAL_ID))
    assert caught.value.reason_code == "person_required"
    free = asked()
    free.edit(1, by=bob)
    free.ask(1, OTHER_HASH)
    free.approve(1, OTHER_HASH, by=bob)
    assert free.status(1) == "approved"


def test_a_fork_does_not_go_on_in_a_copy_that_nobody_brought_to_where_the_workspace_was() -> None:
    run = started(gated(1, type_="fork"), spec(2))
    run.ask(1)
    with pytest.raises(IllegalTransition):
        run.reject(1, then="skip")
    with pytest.raises(IllegalTransition) as caught:
        run.skip(1)
    assert (caught.value.field, caught.value.fix) == ("step_id", "cancel the fork, or skip other steps")
    run.skip(2)
    run.cancel()
