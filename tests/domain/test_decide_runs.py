"""The rules of a whole run: who may move it, and how it comes to its end."""

import pytest

from stepgate.domain import commands as c
from stepgate.domain.decide import decide
from stepgate.domain.errors import Conflict, IllegalTransition, NoSteps, NotFound, StaleSteps
from stepgate.domain.state import UNDO, Effect
from stepgate.domain.wake import next_wake
from tests.domain.driving import to_the_end
from tests.domain.runs import CHANGE, HASH, PERSON, SECOND, Run, gated, info, planned, spec, started, types, undo_spec


def bring_to(run: Run, ending: str) -> None:
    match ending:
        case "completed":
            run.complete(1)
        case "cancelled":
            run.cancel()
        case _:
            run.fail(1)
    assert run.state.status == ending


def test_a_run_with_only_a_goal_waits_in_created_and_asks_for_no_worker() -> None:
    run = planned()
    assert run.state.status == "created"
    assert next_wake(run.state) is None


def test_creating_a_run_with_its_plan_is_two_facts_and_leaves_it_planned() -> None:
    run = planned(spec(1), spec(2))
    assert types(run.events) == ["run.created", "run.planned"]
    assert run.state.status == "planned"
    assert run.state.revision == 1


def test_a_run_cannot_be_created_twice() -> None:
    run = planned()
    with pytest.raises(Conflict):
        decide(run.state, c.Create(PERSON, info()), SECOND)


def test_a_command_to_a_run_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound):
        decide(None, c.Start(PERSON), SECOND)


def test_a_command_about_a_step_that_does_not_exist_is_not_found_by_name() -> None:
    with pytest.raises(NotFound) as caught:
        started(spec(1)).complete(9)
    assert caught.value.field == "step_id"


def test_adding_the_first_steps_makes_the_run_planned() -> None:
    run = planned()
    assert types(run.add(spec(1))) == ["run.planned"]
    assert run.state.status == "planned"


def test_adding_no_steps_changes_nothing() -> None:
    run = planned()
    assert run.add() == ()
    assert run.state.status == "created"


def test_steps_added_to_a_started_run_go_on_by_themselves() -> None:
    run = started(spec(1))
    run.add(spec(2), spec(3, needs=()))
    assert set(run.state.ready) == {run.id(1), run.id(3)}


def test_a_step_added_after_its_need_has_ended_is_ready_at_once() -> None:
    run = started(spec(1), spec(2))
    run.complete(1)
    run.add(spec(3, needs=[1]))
    assert run.step(3).blocked == 0
    assert run.id(3) in run.state.ready


@pytest.mark.parametrize("ending", ["completed", "cancelled", "failed"])
def test_a_finished_run_takes_no_more_steps(ending: str) -> None:
    run = started(spec(1))
    bring_to(run, ending)
    with pytest.raises(IllegalTransition):
        run.add(spec(2))


def test_steps_numbered_on_an_older_state_are_refused_because_others_came_first() -> None:
    run = planned(spec(1))
    run.add(spec(2))
    with pytest.raises(StaleSteps):
        run.add(spec(2, key="other"))
    with pytest.raises(StaleSteps):
        run.add(spec(3, key="s1"))


def test_an_undo_step_cannot_be_smuggled_in_as_an_added_step() -> None:
    run = started(spec(1))
    with pytest.raises(IllegalTransition):
        run.add(spec(2, type_=UNDO))


def test_a_run_without_steps_cannot_start_or_execute() -> None:
    run = planned()
    with pytest.raises(NoSteps):
        run.start()
    with pytest.raises(NoSteps):
        run.execute()


def test_start_lets_everything_unblocked_run() -> None:
    run = started(spec(1), spec(2, needs=()), spec(3, needs=[1]))
    assert set(run.state.ready) == {run.id(1), run.id(2)}
    assert run.state.status == "queued"


def test_start_twice_is_the_same_as_once() -> None:
    run = started(spec(1))
    assert run.start() == ()


def test_start_after_execute_lifts_the_allowance() -> None:
    run = planned(spec(1, needs=()), spec(2, needs=()))
    run.execute()
    run.start()
    assert set(run.state.ready) == {run.id(1), run.id(2)}
    with pytest.raises(Conflict) as caught:
        run.execute()
    assert caught.value.reason_code == "already_started"


def test_execute_grants_the_lowest_numbered_ready_step_and_then_waits_for_the_next_execute() -> None:
    run = planned(spec(1), spec(2, needs=()), spec(3))
    run.execute()
    assert set(run.state.ready) == {run.id(1)}
    run.complete(1)
    assert run.state.status == "running"
    assert next_wake(run.state) is None
    assert set(run.state.held) == {run.id(2)}
    run.execute()
    assert set(run.state.ready) == {run.id(2)}


def test_execute_twice_grants_two_steps() -> None:
    run = planned(spec(1, needs=()), spec(2, needs=()), spec(3, needs=()))
    run.execute()
    run.execute()
    assert set(run.state.ready) == {run.id(1), run.id(2)}


def test_execute_with_nothing_ready_says_so() -> None:
    run = planned(spec(1), spec(2))
    run.execute()
    with pytest.raises(Conflict) as caught:
        run.execute()
    assert caught.value.reason_code == "nothing_ready"


def test_an_approval_starts_an_executed_step_without_a_second_execute() -> None:
    run = planned(gated(1), spec(2))
    run.execute()
    run.ask(1)
    run.approve(1)
    assert set(run.state.ready) == {run.id(1)}
    assert next_wake(run.state) is not None


def test_a_retry_of_an_executed_step_needs_no_second_execute() -> None:
    run = planned(spec(1, max_attempts=2, backoff_ms=1000), spec(2))
    run.execute()
    run.fail(1, retryable=True)
    assert next_wake(run.state) == run.now + SECOND
    run.wait(SECOND)
    run.complete(1)
    assert run.status(1) == "completed"


def test_the_first_fact_of_a_worker_starts_the_run() -> None:
    run = started(spec(1))
    assert types(run.begin(1)) == ["run.started", "step.started"]
    assert run.state.started_at == run.now


def test_the_end_of_the_last_step_is_the_end_of_the_run() -> None:
    run = started(spec(1))
    assert types(run.complete(1)) == ["run.started", "step.completed", "run.completed"]
    assert next_wake(run.state) is None


def test_time_never_runs_backwards_in_a_journal_even_if_a_clock_does() -> None:
    run = started(spec(1), spec(2))
    run.wait(SECOND)
    run.complete(1)
    latest = run.state.last_at
    run.wait(-5 * SECOND)
    assert {event.at for event in run.complete(2)} == {latest}


# Pause and resume


def test_pausing_an_idle_run_pauses_it_at_once_with_its_reason() -> None:
    run = started(spec(1))
    assert types(run.pause("budget")) == ["run.pausing", "run.paused"]
    assert (run.state.status, run.state.reason) == ("paused", "budget")
    assert next_wake(run.state) is None


def test_pausing_waits_until_what_runs_has_stopped() -> None:
    run = started(spec(1))
    run.begin(1)
    run.pause()
    assert (run.state.status, run.state.drain) == ("pausing", "kill")
    assert next_wake(run.state) is not None
    run.interrupt(1)
    assert run.state.status == "paused"


def test_pausing_returns_a_running_step_to_pending_without_using_up_an_attempt() -> None:
    run = started(spec(1, max_attempts=1))
    run.begin(1)
    run.pause()
    run.interrupt(1)
    assert (run.status(1), run.step(1).attempt) == ("pending", 0)
    run.resume()
    run.begin(1)
    assert run.step(1).attempt == 1


def test_pausing_returns_an_approved_running_step_to_approved_and_asks_nobody_again() -> None:
    run = started(gated(1))
    run.ask(1)
    run.approve(1)
    run.begin(1, HASH)
    run.pause()
    run.interrupt(1)
    assert run.status(1) == "approved"
    run.resume()
    run.complete(1, HASH)
    assert run.state.status == "completed"


def test_what_is_computed_is_applied_to_its_end_before_the_run_pauses() -> None:
    run = started(spec(1, effect=Effect.WORKSPACE), spec(2))
    run.compute(1)
    run.pause()
    assert run.interrupt(1) == ()
    assert run.state.status == "pausing"
    run.complete(1, result=CHANGE)
    assert (run.state.status, run.status(1)) == ("paused", "completed")


def test_no_new_step_starts_while_a_run_drains() -> None:
    run = started(spec(1), spec(2, needs=()), spec(3, needs=()))
    run.begin(1)
    run.prepare(3)
    run.pause()
    with pytest.raises(IllegalTransition):
        run.begin(2)
    with pytest.raises(IllegalTransition):
        run.begin(3)
    with pytest.raises(IllegalTransition):
        run.prepare(2)


def test_a_lost_step_is_not_begun_again_while_its_run_is_being_stopped() -> None:
    run = started(spec(1))
    run.begin(1)
    run.pause()
    with pytest.raises(IllegalTransition):
        run.begin(1)


def test_pausing_twice_and_resuming_twice_change_nothing() -> None:
    run = started(spec(1))
    run.pause()
    assert run.pause() == ()
    run.resume()
    assert run.resume() == ()


def test_a_planned_run_that_was_paused_resumes_to_planned_and_starts_nothing() -> None:
    run = planned(spec(1))
    run.pause()
    run.resume()
    assert run.state.status == "planned"
    assert next_wake(run.state) is None


def test_a_paused_run_is_not_started_by_start() -> None:
    run = started(spec(1))
    run.pause()
    with pytest.raises(IllegalTransition) as caught:
        run.start()
    assert caught.value.fix == "resume it"


def test_resume_tries_a_step_under_review_again() -> None:
    run = started(spec(1))
    run.begin(1)
    run.review(1, "drifted")
    assert (run.state.status, run.state.reason) == ("paused", "needs_review")
    run.resume()
    assert run.status(1) == "pending"
    assert run.id(1) in run.state.ready


def test_resume_applies_a_computed_set_again_instead_of_computing_another() -> None:
    run = started(spec(1, effect=Effect.WORKSPACE))
    run.compute(1)
    run.review(1)
    run.resume()
    assert run.status(1) == "computed"
    with pytest.raises(IllegalTransition):
        run.compute(1)
    run.complete(1, result=CHANGE)
    assert run.state.status == "completed"


def test_a_run_whose_last_open_step_is_skipped_while_paused_completes_on_resume() -> None:
    run = started(spec(1))
    run.pause()
    run.skip(1)
    run.resume()
    assert run.state.status == "completed"


# Cancel


def test_cancelling_an_idle_run_ends_it_and_its_steps_at_once() -> None:
    run = started(spec(1), spec(2))
    run.cancel()
    assert (run.state.status, run.statuses) == ("cancelled", ["cancelled", "cancelled"])


def test_a_run_can_be_cancelled_before_it_has_steps() -> None:
    run = planned()
    run.cancel()
    assert run.state.status == "cancelled"


def test_cancelling_stops_what_runs_and_applies_what_is_computed() -> None:
    run = started(spec(1, needs=()), spec(2, needs=(), effect=Effect.WORKSPACE))
    run.begin(1)
    run.compute(2)
    run.cancel()
    run.interrupt(1)
    assert (run.state.status, run.statuses) == ("cancelling", ["cancelled", "computed"])
    run.complete(2, result=CHANGE)
    assert (run.state.status, run.status(2)) == ("cancelled", "completed")


def test_cancelling_twice_changes_nothing_and_a_finished_run_cannot_be_cancelled() -> None:
    run = started(spec(1))
    run.cancel()
    assert run.cancel() == ()
    done = started(spec(1))
    done.complete(1)
    with pytest.raises(IllegalTransition):
        done.cancel()


def test_cancelling_a_run_whose_siblings_still_finish_after_a_rejection_stops_them() -> None:
    run = started(gated(1), spec(2, needs=()))
    run.begin(2)
    run.ask(1)
    run.reject(1)
    assert (run.state.status, run.state.drain) == ("cancelling", "finish")
    run.cancel()
    assert (run.state.drain, run.state.reason) == ("kill", "rejected")
    assert run.cancel() == ()


def test_what_is_being_stopped_for_a_pause_is_not_told_to_finish_when_a_sibling_fails() -> None:
    run = started(spec(1, needs=()), spec(2, needs=(), effect=Effect.ONCE))
    run.begin(1)
    run.begin(2)
    run.pause()
    run.fail(2)
    assert (run.state.status, run.state.drain) == ("failing", "kill")
    run.interrupt(1)
    assert (run.state.status, run.statuses) == ("failed", ["cancelled", "failed"])


def test_ended_steps_close_in_the_order_of_their_numbers_whatever_the_hash_seed() -> None:
    run = started(*(spec(number, needs=()) for number in range(1, 40)))
    closed = [event.step_id for event in run.cancel() if event.step_id]
    assert closed == [run.id(number) for number in range(1, 40)]


# Undo


def test_only_a_finished_run_can_be_undone() -> None:
    run = started(spec(1))
    with pytest.raises(IllegalTransition):
        run.undo(2)


@pytest.mark.parametrize("ending", ["completed", "cancelled", "failed"])
def test_an_undone_run_keeps_its_status_and_gets_run_undone(ending: str) -> None:
    run = started(spec(1))
    bring_to(run, ending)
    run.undo(2)
    run.ask(2)
    assert next_wake(run.state) is None
    run.approve(2)
    assert next_wake(run.state) is not None
    run.compute(2, HASH)
    assert types(run.complete(2, result=CHANGE)) == ["step.completed", "run.undone"]
    assert run.state.status == ending
    assert run.state.undone_at == run.now
    assert (run.state.done, run.state.total) == (1, 1)


def test_an_undo_that_finds_nothing_to_take_back_has_undone_the_run_too() -> None:
    run = started(spec(1))
    run.complete(1)
    run.undo(2)
    run.ask(2)
    run.approve(2)
    assert "run.undone" in types(run.complete(2, HASH))


@pytest.mark.parametrize("stage", ["ready", "asking", "approved", "computed", "review", "retry"])
def test_one_undo_at_a_time(stage: str) -> None:
    run = started(spec(1))
    run.complete(1)
    run.undo(2, max_attempts=2)
    if stage == "retry":
        run.fail(2, retryable=True)
    if stage in ("asking", "approved", "computed", "review"):
        run.ask(2)
    if stage in ("approved", "computed", "review"):
        run.approve(2)
    if stage in ("computed", "review"):
        run.compute(2, HASH)
    if stage == "review":
        run.review(2)
    with pytest.raises(Conflict) as caught:
        run.undo(3)
    assert caught.value.reason_code == "undo_pending"


def test_an_undo_can_be_undone() -> None:
    run = started(spec(1))
    run.complete(1)
    for number in (2, 3):
        run.undo(number)
        to_the_end(run)
    assert run.statuses == ["completed", "completed", "completed"]


@pytest.mark.parametrize("outcome", ["rejected", "failed", "expired", "skipped"])
def test_an_undo_that_comes_to_nothing_leaves_the_run_as_it_was(outcome: str) -> None:
    run = started(spec(1))
    run.complete(1)
    run.undo(2)
    match outcome:
        case "rejected":
            run.ask(2)
            run.reject(2)
        case "failed":
            run.fail(2)
        case "expired":
            run.ask(2, expires_at=run.now + 1, on_expiry="pause")
            run.wait(1)
            run.expire()
        case _:
            run.skip(2)
    assert run.state.status == "completed"
    assert run.state.open == 0
    assert run.state.undone_at is None
    assert next_wake(run.state) is None
    assert run.undo(3)


def test_an_undo_under_review_is_tried_again_by_resume() -> None:
    run = started(spec(1))
    run.complete(1)
    run.undo(2)
    run.ask(2)
    run.approve(2)
    run.compute(2, HASH)
    run.review(2)
    assert next_wake(run.state) is None
    run.resume()
    assert run.status(2) == "computed"
    assert next_wake(run.state) is not None
    assert run.state.status == "completed"


def test_the_undo_command_takes_only_an_undo_step() -> None:
    run = started(spec(1))
    run.complete(1)
    with pytest.raises(IllegalTransition):
        run.do(c.Undo(PERSON, undo_spec(2)._replace(type="run_command")))


# Poison


def test_poison_puts_what_was_in_flight_before_a_person_and_pauses_the_run() -> None:
    run = started(spec(1, needs=()), spec(2, needs=()))
    run.begin(1)
    run.poison()
    assert run.statuses == ["needs_review", "pending"]
    assert (run.state.status, run.state.reason) == ("paused", "needs_review")
    assert run.step(1).reason == "poison"


def test_poison_suspects_what_was_about_to_start_when_nothing_was_recorded() -> None:
    run = started(spec(1, needs=()), spec(2, needs=()), spec(3))
    run.poison()
    assert run.statuses == ["needs_review", "needs_review", "pending"]


def test_poison_includes_a_set_whose_application_keeps_killing_workers() -> None:
    run = started(spec(1, effect=Effect.WORKSPACE))
    run.compute(1)
    run.poison()
    assert (run.status(1), run.state.status) == ("needs_review", "paused")
    run.resume()
    assert run.status(1) == "computed"


def test_poison_suspects_a_retry_that_was_due() -> None:
    run = started(spec(1, max_attempts=2))
    run.fail(1, retryable=True)
    run.poison()
    assert (run.status(1), run.state.status) == ("needs_review", "paused")


def test_poison_does_not_touch_a_run_that_stands_still() -> None:
    run = started(spec(1))
    run.pause()
    assert run.poison() == ()
    assert run.status(1) == "pending"
