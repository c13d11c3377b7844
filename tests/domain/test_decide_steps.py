"""What a worker may report of a step, and what becomes of it."""

from decimal import Decimal

import pytest

from stepgate.domain import commands as c
from stepgate.domain.errors import IllegalTransition
from stepgate.domain.state import Effect
from stepgate.domain.wake import next_wake
from tests.domain.driving import to_the_end
from tests.domain.runs import (
    CHANGE,
    HASH,
    NO_TOKENS,
    SECOND,
    WORKER,
    gated,
    planned,
    refusal,
    spec,
    started,
    types,
)

HOUR = 3600 * SECOND


def test_a_step_waits_for_all_its_needs() -> None:
    run = started(spec(1, needs=()), spec(2, needs=()), spec(3, needs=[1, 2]))
    run.complete(1)
    assert run.step(3).blocked == 1
    assert run.id(3) not in run.state.ready
    run.complete(2)
    assert run.id(3) in run.state.ready


def test_a_blocked_step_takes_no_report_of_any_kind() -> None:
    run = started(spec(1), spec(2, effect=Effect.WORKSPACE))
    for action in (run.prepare, run.ask, run.begin, run.compute, run.complete, run.fail, run.review):
        with pytest.raises(IllegalTransition):
            action(2)
    assert run.interrupt(2) == ()


def test_nothing_of_a_run_that_nobody_started_can_be_reported() -> None:
    run = planned(spec(1))
    for action in (run.prepare, run.ask, run.begin, run.compute, run.complete, run.fail, run.review):
        with pytest.raises(IllegalTransition):
            action(1)


def test_a_step_that_cannot_last_needs_one_event_at_its_end() -> None:
    run = started(spec(1), spec(2))
    run.complete(1)
    assert types(run.complete(2))[:1] == ["step.completed"]
    assert (run.step(2).attempt, run.step(2).started_at) == (1, run.now)


def test_a_workspace_step_is_computed_then_completed() -> None:
    run = started(spec(1, effect=Effect.WORKSPACE))
    assert types(run.compute(1)) == ["run.started", "step.computed"]
    assert run.status(1) == "computed"
    assert run.state.workspace_rev is None
    run.complete(1, result=CHANGE)
    assert run.state.workspace_rev == "rev-1"


def test_a_change_set_is_never_completed_without_having_been_recorded_as_computed() -> None:
    run = started(spec(1, effect=Effect.WORKSPACE))
    with pytest.raises(IllegalTransition):
        run.complete(1, result=CHANGE)
    run.begin(1)
    with pytest.raises(IllegalTransition):
        run.complete(1, result=CHANGE)


def test_a_computed_step_completes_only_with_the_set_that_was_recorded() -> None:
    run = started(spec(1, effect=Effect.WORKSPACE))
    run.compute(1)
    with pytest.raises(IllegalTransition):
        run.complete(1, result=CHANGE._replace(change_set_digest="e" * 64))
    run.complete(1, result=CHANGE)


def test_a_step_that_runs_once_completes_only_after_its_start_was_recorded() -> None:
    run = started(spec(1, effect=Effect.ONCE))
    with pytest.raises(IllegalTransition):
        run.complete(1)
    run.begin(1)
    run.complete(1)


def test_a_lost_worker_s_step_begins_again_in_the_same_attempt() -> None:
    run = started(spec(1, max_attempts=1))
    run.begin(1)
    event = run.begin(1)[0]
    assert (event.data["again"], event.data["attempt"]) == (True, 1)
    run.complete(1)
    assert run.step(1).attempt == 1


def test_a_computed_set_survives_a_lost_worker_and_is_applied_by_the_next() -> None:
    run = started(spec(1, effect=Effect.WORKSPACE))
    run.compute(1)
    assert next_wake(run.state) is not None
    run.complete(1, result=CHANGE)
    assert run.state.status == "completed"


def test_preparing_may_be_taken_up_again_and_then_begins_if_no_question_is_needed() -> None:
    run = started(spec(1))
    run.prepare(1)
    run.prepare(1)
    run.begin(1)
    assert (run.status(1), run.step(1).attempt) == ("running", 1)


# Late results


def test_a_late_result_of_a_cancelled_step_is_recorded_as_discarded() -> None:
    run = started(spec(1))
    run.begin(1)
    run.cancel()
    run.interrupt(1)
    assert run.state.status == "cancelled"
    event = run.complete(1)[0]
    assert (event.type, event.data["what"], event.data["output_sha256"]) == ("step.discarded", "result", "0" * 64)
    assert run.fail(1)[0].type == "step.discarded"
    assert run.compute(1)[0].type == "step.discarded"
    assert run.status(1) == "cancelled"


def test_a_late_result_leaves_its_cost() -> None:
    run = started(spec(1))
    run.begin(1)
    run.call_model(1)
    run.cancel()
    run.interrupt(1)
    run.settle_model(1, cost=Decimal("0.5"), source="router")
    assert run.status(1) == "cancelled"
    assert run.state.usage.total_usd == Decimal("0.5")


def test_a_result_that_comes_while_its_run_is_being_stopped_is_discarded_and_the_step_given_back() -> None:
    run = started(spec(1, effect=Effect.WORKSPACE))
    run.begin(1)
    run.pause()
    assert types(run.compute(1)) == ["step.discarded", "step.retried", "run.paused"]
    assert (run.status(1), run.step(1).attempt) == ("pending", 0)


@pytest.mark.parametrize("report", ["compute", "complete", "fail", "review"])
def test_a_report_of_a_step_never_recorded_as_started_is_discarded_once_the_run_stands_still(report: str) -> None:
    run = started(spec(1, effect=Effect.WORKSPACE, max_attempts=2), spec(2))
    run.pause()
    match report:
        case "compute":
            events = run.compute(1)
        case "complete":
            events = run.complete(1)
        case "review":
            events = run.review(1)
        case _:
            events = run.fail(1, retryable=True)
    assert types(events) == ["step.discarded"]
    assert (run.state.status, run.status(1), run.step(1).attempt) == ("paused", "pending", 0)


def test_a_finished_step_never_changes() -> None:
    run = started(spec(1), spec(2))
    run.complete(1)
    before = run.step(1)
    run.complete(1)
    run.fail(1)
    run.interrupt(1)
    run.review(1)
    for command in (c.Begin(WORKER, run.id(1)), c.Prepare(WORKER, run.id(1)), c.Skip(WORKER, run.id(1))):
        assert isinstance(refusal(run, command), IllegalTransition)
    assert run.step(1) == before


# Failing


def test_a_failed_step_lets_its_siblings_finish_and_cancels_its_dependents() -> None:
    run = started(spec(1, needs=()), spec(2, needs=()), spec(3, needs=[1]), spec(4, needs=[2]))
    run.begin(1)
    run.begin(2)
    run.fail(1)
    assert (run.state.status, run.state.drain) == ("failing", "finish")
    assert run.statuses == ["failed", "running", "cancelled", "cancelled"]
    run.complete(2)
    assert (run.state.status, run.state.reason) == ("failed", "step_failed")
    assert run.statuses == ["failed", "completed", "cancelled", "cancelled"]


def test_a_sibling_lost_while_its_run_fails_is_begun_again_to_its_end() -> None:
    run = started(spec(1, needs=()), spec(2, needs=()))
    run.begin(1)
    run.begin(2)
    run.fail(1)
    run.begin(2)
    run.complete(2)
    assert run.statuses == ["failed", "completed"]


def test_a_sibling_stopped_while_its_run_fails_is_cancelled_with_it() -> None:
    run = started(spec(1, needs=()), spec(2, needs=()), spec(3, needs=()))
    for number in (1, 2, 3):
        run.begin(number)
    run.fail(1)
    run.interrupt(2)
    assert (run.status(2), run.step(2).reason) == ("cancelled", "run_failed")
    assert run.state.status == "failing"


def test_a_failure_with_on_error_continue_counts_as_done() -> None:
    run = started(spec(1, on_error="continue"), spec(2))
    run.fail(1)
    assert run.statuses == ["failed", "pending"]
    run.complete(2)
    assert run.state.status == "completed"


def test_a_step_that_ran_once_and_failed_while_its_run_was_being_stopped_has_failed() -> None:
    run = started(spec(1, effect=Effect.ONCE))
    run.begin(1)
    run.pause()
    run.fail(1)
    assert (run.status(1), run.state.status) == ("failed", "failed")


# Retries


def test_the_wait_before_a_retry_doubles_and_is_capped() -> None:
    run = started(spec(1, max_attempts=40, backoff_ms=1000))
    waits = []
    for _ in range(16):
        run.fail(1, retryable=True)
        retry_at = run.step(1).retry_at
        assert retry_at is not None
        waits.append(retry_at - run.now)
        run.now = retry_at
    assert waits[:5] == [SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND, 16 * SECOND]
    assert waits[-1] == HOUR == max(waits)


def test_a_hint_from_outside_is_followed_within_the_same_cap() -> None:
    run = started(spec(1, max_attempts=9, backoff_ms=1000))
    run.fail(1, retryable=True, retry_after_ms=1500)
    assert run.step(1).retry_at == run.now + 1500_000
    run.wait(2 * SECOND)
    run.fail(1, retryable=True, retry_after_ms=10**12)
    assert run.step(1).retry_at == run.now + HOUR


@pytest.mark.parametrize("hint", [0, -5])
def test_a_hint_that_says_at_once_is_followed(hint: int) -> None:
    run = started(spec(1, max_attempts=9, backoff_ms=1000))
    run.fail(1, retryable=True, retry_after_ms=hint)
    assert run.step(1).retry_at == run.now


def test_a_retry_waits_for_its_time() -> None:
    run = started(spec(1, max_attempts=2, backoff_ms=1000))
    run.fail(1, retryable=True)
    assert next_wake(run.state) == run.now + SECOND
    with pytest.raises(IllegalTransition):
        run.begin(1)
    run.wait(SECOND)
    run.begin(1)
    assert (run.step(1).attempt, run.step(1).retry_at) == (2, None)


def test_a_retry_that_ends_without_a_recorded_start_leaves_no_retry_time_behind() -> None:
    for action in ("complete", "fail", "compute", "review", "prepare"):
        run = started(spec(1, max_attempts=2, effect=Effect.WORKSPACE))
        run.fail(1, retryable=True)
        getattr(run, action)(1)
        assert run.step(1).retry_at is None, action


def test_the_last_attempt_fails_for_good() -> None:
    run = started(spec(1, max_attempts=2))
    run.fail(1, retryable=True)
    run.fail(1, retryable=True)
    assert (run.status(1), run.step(1).attempt, run.step(1).reason) == ("failed", 2, "boom")


def test_an_error_that_is_not_retryable_is_not_retried() -> None:
    run = started(spec(1, max_attempts=5))
    run.fail(1)
    assert run.status(1) == "failed"


def test_nothing_is_retried_in_a_run_that_is_ending() -> None:
    failing = started(spec(1, needs=()), spec(2, needs=(), max_attempts=5))
    failing.begin(1)
    failing.begin(2)
    failing.fail(1)
    failing.fail(2, retryable=True)
    assert failing.statuses == ["failed", "failed"]
    rejected = started(gated(1), spec(2, needs=(), max_attempts=5))
    rejected.begin(2)
    rejected.ask(1)
    rejected.reject(1)
    rejected.fail(2, retryable=True)
    assert (rejected.statuses, rejected.state.status) == (["rejected", "failed"], "cancelled")


def test_a_started_step_that_runs_once_is_never_retried_by_itself() -> None:
    run = started(spec(1, effect=Effect.ONCE, max_attempts=5))
    run.begin(1)
    run.fail(1, retryable=True)
    assert run.status(1) == "failed"


def test_a_step_that_runs_once_is_retried_while_it_has_not_begun() -> None:
    run = started(spec(1, effect=Effect.ONCE, max_attempts=2))
    run.fail(1, retryable=True)
    assert run.status(1) == "pending"
    run.begin(1)
    run.complete(1)
    assert run.state.status == "completed"


def test_an_interrupted_step_that_runs_once_goes_to_a_person_and_not_to_a_silent_retry() -> None:
    run = started(spec(1, effect=Effect.ONCE))
    run.begin(1)
    run.pause()
    run.interrupt(1)
    assert (run.status(1), run.step(1).reason) == ("needs_review", "lost_end")
    assert run.state.status == "paused"


def test_a_shutdown_during_a_step_that_runs_once_pauses_its_run_for_review() -> None:
    run = started(spec(1, effect=Effect.ONCE))
    run.begin(1)
    run.interrupt(1)
    assert (run.state.status, run.state.reason) == ("paused", "needs_review")


def test_a_step_that_runs_once_may_be_given_back_before_it_began() -> None:
    run = started(spec(1, effect=Effect.ONCE))
    run.prepare(1)
    run.interrupt(1)
    assert run.status(1) == "pending"
    assert run.id(1) in run.state.ready


def test_an_interrupted_step_of_a_running_run_is_ready_again_and_not_cancelled() -> None:
    run = started(spec(1))
    run.begin(1)
    run.interrupt(1)
    assert run.status(1) == "pending"
    assert run.id(1) in run.state.ready
    to_the_end(run)


# Review


def test_a_review_pauses_the_run_after_its_siblings_have_finished() -> None:
    run = started(spec(1, needs=()), spec(2, needs=()))
    run.begin(1)
    run.begin(2)
    run.review(1)
    assert (run.state.status, run.state.drain) == ("pausing", "finish")
    run.complete(2)
    assert (run.state.status, run.state.reason) == ("paused", "needs_review")


def test_a_step_under_review_can_be_skipped() -> None:
    run = started(spec(1), spec(2))
    run.review(1)
    run.skip(1)
    run.resume()
    run.complete(2)
    assert run.state.status == "completed"


# Cost


def test_an_open_call_counts_as_unknown_and_makes_the_total_unknown() -> None:
    run = started(spec(1))
    run.begin(1)
    run.call_model(1)
    assert (run.state.usage.unknown, run.state.usage.total_usd) == (1, None)


def test_unknown_stays_unknown_and_is_never_zero() -> None:
    run = started(spec(1))
    run.begin(1)
    run.call_model(1)
    run.settle_model(1, cost=None)
    usage = run.state.usage
    assert (usage.unknown, usage.total_usd, usage.input, usage.output) == (1, None, None, None)


def test_a_known_zero_is_zero() -> None:
    run = started(spec(1))
    run.begin(1)
    run.call_model(1)
    run.settle_model(1, cost=Decimal(0), source="offline")
    assert (run.state.usage.unknown, run.state.usage.total_usd) == (0, Decimal(0))


def test_costs_are_summed_exactly_by_step_and_by_run() -> None:
    run = started(spec(1, needs=()), spec(2, needs=()))
    for number in (1, 2):
        run.begin(number)
        for call in range(10):
            run.call_model(number, f"{number}-{call}")
            run.settle_model(number, f"{number}-{call}", cost=Decimal("0.000000000001"), source="router")
    assert run.step(1).usage.total_usd == Decimal("0.00000000001")
    assert run.state.usage.total_usd == Decimal("0.00000000002")


def test_token_counts_that_are_known_are_summed_and_the_others_left_out() -> None:
    run = started(spec(1))
    run.begin(1)
    counts: tuple[dict[str, int | None], ...] = ({"input": 5, "output": None}, {"input": 7, "output": 2})
    for index, known in enumerate(counts):
        run.call_model(1, f"call-{index}")
        run.settle_model(1, f"call-{index}", tokens={**NO_TOKENS, **known}, source="router")
    usage = run.state.usage
    assert (usage.input, usage.output, usage.cached, usage.reasoning) == (12, 2, None, None)


def test_cost_sources_that_differ_are_mixed_and_the_last_model_is_named() -> None:
    run = started(spec(1))
    run.begin(1)
    for call, source, model in (("a", "router", "m1"), ("b", "prices", "m2"), ("c", "prices", None)):
        run.call_model(1, call)
        run.settle_model(1, call, cost=Decimal(1), source=source, model=model)
    assert (run.step(1).usage.source, run.step(1).usage.model) == ("mixed", "m2")


def test_a_call_is_settled_once() -> None:
    run = started(spec(1))
    run.begin(1)
    run.call_model(1)
    run.settle_model(1, cost=Decimal(1), source="router")
    assert run.settle_model(1, cost=Decimal(1), source="router") == ()
    assert run.settle_model(1, "never-made", cost=Decimal(1), source="router") == ()
    assert (run.state.usage.calls, run.state.usage.cost_usd) == (1, Decimal(1))


def test_no_model_is_called_for_a_step_that_has_ended() -> None:
    run = started(spec(1), spec(2))
    run.complete(1)
    with pytest.raises(IllegalTransition):
        run.call_model(1)


def test_an_approved_step_takes_the_hash_of_its_question_only() -> None:
    run = started(gated(1, effect=Effect.WORKSPACE))
    run.ask(1)
    run.approve(1)
    run.compute(1, HASH)
    assert run.status(1) == "computed"
