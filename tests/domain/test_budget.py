"""A run's budget: what may still be spent, whatever is asked of it at once, and when people are told."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain import commands as c
from stepgate.domain.budget import FREE, Alert, Charge, charged
from stepgate.domain.decide import decide
from stepgate.domain.errors import BudgetExhausted, Forbidden, IllegalTransition, InvalidValue
from stepgate.domain.evolve import fold
from stepgate.domain.limits import RunLimits
from stepgate.domain.projection import run_row
from stepgate.domain.state import Actor
from stepgate.domain.states import EventType as E
from tests.domain.runs import DIGEST, NO_TOKENS, PERSON, SECOND, WORKER, Run, fault, info, spec, types

AGENT = Actor("bot", "agent", "api")
WORST = Charge(Decimal("0.1"), 100)


def limited(count: int = 60, **limits: Any) -> Run:
    """A started run of independent steps that have all begun."""
    specs = tuple(spec(number, needs=()) for number in range(1, count + 1))
    about = info()._replace(limits=RunLimits(**limits).model_dump(mode="json", exclude_none=True))
    made = decide(None, c.Create(PERSON, about, specs), SECOND)
    run = Run(made.state, list(made.events))
    run.start()
    for number in range(1, count + 1):
        run.begin(number)
    return run


def call(run: Run, number: int, worst: Charge | None = WORST) -> None:
    run.do(c.CallModel(WORKER, run.id(number), f"call-{number}", DIGEST, "openai", "m", worst))


def settle(run: Run, number: int, cost: str | None = None, tokens: int | None = None) -> tuple[Any, ...]:
    counts = NO_TOKENS if tokens is None else {**NO_TOKENS, "input": tokens, "output": 0}
    known = None if cost is None else Decimal(cost)
    source = "unknown" if cost is None else "priced"
    return run.do(c.SettleModel(WORKER, run.id(number), f"call-{number}", "ok", "m", known, source, counts, 3))


def stop(run: Run, number: int) -> tuple[Any, ...]:
    return run.do(c.StopForBudget(WORKER, run.id(number), fault("budget_exhausted"), own=True))


def told(run: Run) -> list[int]:
    return [event.data["percent"] for event in run.events if event.type is E.BUDGET_ALERTED]


def made(run: Run, numbers: range) -> int:
    """How many of these calls were let through."""
    count = 0
    for number in numbers:
        try:
            call(run, number)
        except BudgetExhausted:
            continue
        count += 1
    return count


@pytest.mark.parametrize("limits", [{"cost_usd": "1"}, {"tokens": 1000}, {"cost_usd": 1.0, "tokens": 5000}])
def test_of_fifty_calls_at_once_only_those_are_made_that_fit_at_their_worst(limits: dict[str, Any]) -> None:
    run = limited(**limits)
    assert made(run, range(1, 51)) == 10
    assert run.state.budget.shortage(FREE) is None


def test_what_a_call_did_not_use_is_there_for_the_next() -> None:
    run = limited(cost_usd="0.25")
    assert made(run, range(1, 4)) == 2
    settle(run, 1, "0.01", 10)
    call(run, 4)
    assert run.state.budget.spent == Charge(Decimal("0.01"), 10)
    assert run.state.budget.held == Charge(Decimal("0.2"), 200)


def test_a_call_whose_cost_nobody_knows_counts_as_its_worst_case_for_it_may_have_been_billed() -> None:
    run = limited(cost_usd="0.25")
    call(run, 1)
    settle(run, 1)
    assert run.state.budget.spent == WORST
    assert run.state.usage.unknown == 1
    assert made(run, range(2, 5)) == 1


@pytest.mark.parametrize(
    ("cost", "source", "tokens", "counts"),
    [
        (None, "unknown", NO_TOKENS, WORST),
        (Decimal("0.2"), "usage.cost", NO_TOKENS, Charge(Decimal("0.2"), 100)),
        (None, "unknown", {**NO_TOKENS, "input": 3, "output": 4}, Charge(Decimal("0.1"), 7)),
        (None, "unknown", {**NO_TOKENS, "input": 3}, WORST),
        (Decimal(0), "unbilled", NO_TOKENS, FREE),
        (Decimal(0), "router_cache", {**NO_TOKENS, "input": 3, "output": 4}, Charge(Decimal(0), 7)),
    ],
)
def test_what_counts_for_a_call(cost: Decimal | None, source: str, tokens: Any, counts: Charge) -> None:
    assert charged(WORST, cost, source, tokens) == counts


def test_a_price_that_nobody_knows_fits_into_no_budget_of_money_and_into_one_of_tokens() -> None:
    unpriced = Charge(None, 100)
    with pytest.raises(BudgetExhausted) as refused:
        call(limited(cost_usd="100"), 1, unpriced)
    assert (refused.value.reason_code, refused.value.field) == ("price_unknown", "limits.cost_usd")
    with pytest.raises(BudgetExhausted):
        call(limited(tokens=1000), 1, None)
    call(limited(tokens=100), 1, unpriced)


def test_a_free_call_fits_into_a_budget_of_nothing() -> None:
    run = limited(cost_usd=0, tokens=0)
    call(run, 1, FREE)
    assert made(run, range(2, 4)) == 0


def test_a_refused_call_pauses_the_run_once_what_runs_beside_it_has_finished() -> None:
    run = limited(3, cost_usd="0.1")
    call(run, 1)
    assert made(run, range(2, 3)) == 0
    assert types(stop(run, 2)) == ["step.retried", "run.pausing", *["budget.alerted"] * 3]
    assert told(run) == [50, 80, 100]
    assert (run.status(2), run.step(2).attempt, run.step(2).reason) == ("pending", 0, "budget")
    stop(run, 3)
    assert (run.state.phase, run.state.drain) == ("pausing", "finish")
    settle(run, 1, "0.1")
    run.complete(1)
    assert (run.state.phase, run.state.reason) == ("paused", "budget")
    assert run.state.finished is False


def test_who_extends_a_budget_adds_to_it_and_resets_nothing() -> None:
    run = limited(3, cost_usd="0.15", tokens=1000)
    call(run, 1)
    settle(run, 1, "0.1", 50)
    stop(run, 2)
    stop(run, 3)
    run.complete(1)
    (event,) = run.do(c.ExtendBudget(PERSON, Decimal("0.1"), 5))
    assert (event.actor, event.data["added"]) == (PERSON, {"cost_usd": "0.1", "tokens": 5})
    assert event.data["limit"] == {"cost_usd": "0.25", "tokens": 1005}
    assert (run.state.phase, run.state.budget.spent) == ("paused", Charge(Decimal("0.1"), 50))
    run.resume()
    run.begin(2)
    run.begin(3)
    assert made(run, range(2, 4)) == 1


@pytest.mark.parametrize(
    ("limits", "more", "field"),
    [
        ({"tokens": 5}, {"add_usd": Decimal(1)}, "add_usd"),
        ({"cost_usd": "5"}, {"add_tokens": 1}, "add_tokens"),
        ({"cost_usd": "5"}, {}, "add_usd"),
        ({"cost_usd": "5"}, {"add_usd": Decimal(0)}, "add_usd"),
        ({}, {"add_usd": Decimal(1)}, "add_usd"),
    ],
)
def test_there_must_be_a_limit_to_add_to_and_something_to_add(
    limits: dict[str, Any], more: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidValue) as refused:
        limited(1, **limits).do(c.ExtendBudget(PERSON, **more))
    assert refused.value.field == field


def test_an_agent_extends_no_budget() -> None:
    run = limited(1, cost_usd="1")
    with pytest.raises(Forbidden, match="agent"):
        run.do(c.ExtendBudget(AGENT, Decimal(1)))
    assert run.state.budget.cost_usd == Decimal(1)


def test_a_run_that_has_ended_has_no_budget_to_extend() -> None:
    run = limited(1, cost_usd="1")
    run.complete(1)
    with pytest.raises(IllegalTransition):
        run.do(c.ExtendBudget(PERSON, Decimal(1)))


def test_people_are_told_at_each_threshold_once_and_anew_after_it_was_put_out_of_reach() -> None:
    run = limited(9, cost_usd="1", tokens=10_000)
    for number, cost in enumerate(("0.49", "0.01", "0.01", "0.3"), 1):
        call(run, number)
        settle(run, number, cost, 10)
    assert told(run) == [50, 80]
    run.do(c.ExtendBudget(PERSON, Decimal(1)))
    call(run, 5)
    settle(run, 5, "0.19", 10)
    assert told(run) == [50, 80, 50]
    call(run, 6)
    settle(run, 6, "5")
    assert told(run) == [50, 80, 50, 80, 100]
    assert made(run, range(7, 9)) == 0


def test_the_limit_that_is_nearer_to_its_end_decides_when_people_are_told() -> None:
    run = limited(1, cost_usd="100", tokens=150)
    call(run, 1)
    settle(run, 1, "0.01", 120)
    assert told(run) == [50, 80]


def test_a_call_that_is_too_dear_for_what_is_left_is_told_of_as_the_end_and_as_nothing_else() -> None:
    run = limited(2, cost_usd="0.1")
    call(run, 1, Charge(Decimal("0.01"), 1))
    assert made(run, range(2, 3)) == 0
    stop(run, 2)
    stop(run, 1)
    assert told(run) == [100]


def test_an_alert_of_a_shared_budget_is_told_once_in_a_run() -> None:
    run = limited(1)
    alert = Alert(50, Decimal(1), None, FREE, "b1", "label+day", "team=blue", "2026-01-31")
    for percent, count in ((50, 1), (50, 1), (80, 2), (50, 2)):
        run.do(c.AlertBudget(WORKER, alert._replace(percent=percent)))
        assert len(told(run)) == count
    run.do(c.AlertBudget(WORKER, alert._replace(day="2026-02-01")))
    run.do(c.AlertBudget(WORKER, alert._replace(budget_id="b2")))
    assert told(run) == [50, 80, 50, 50]
    assert run.state.budget.data() is None


@given(
    st.lists(st.tuples(st.integers(1, 8), st.sampled_from(["call", "settle", "extend"]), st.integers(0, 20))),
    st.integers(0, 40),
)
def test_no_order_of_events_overspends(moves: list[tuple[int, str, int]], limit: int) -> None:
    """As long as no call costs more than its worst case; and the journal alone tells the same."""
    run = limited(8, tokens=limit)
    before, calls = run.state, 0
    start = len(run.events)
    open_calls: dict[str, tuple[int, int]] = {}
    for number, move, amount in moves:
        budget = run.state.budget
        match move:
            case "call":
                calls += 1
                command = c.CallModel(WORKER, run.id(number), f"c{calls}", DIGEST, "r", None, Charge(None, amount))
                try:
                    run.do(command)
                except BudgetExhausted:
                    assert budget.spent.tokens + budget.held.tokens + amount > (budget.tokens or 0)
                else:
                    open_calls[f"c{calls}"] = (number, amount)
            case "settle" if open_calls:
                call_id, (of, worst) = open_calls.popitem()
                counts = {**NO_TOKENS, "input": min(amount, worst), "output": 0}
                run.do(c.SettleModel(WORKER, run.id(of), call_id, "ok", None, None, "unknown", counts, 1))
            case "extend" if amount:
                run.do(c.ExtendBudget(PERSON, add_tokens=amount))
            case _:
                pass
        budget = run.state.budget
        assert budget.spent.tokens + budget.held.tokens <= (budget.tokens or 0)
    assert fold(run.events[start:], before) == run.state
    assert run_row(run.state).budget is not None


@pytest.mark.parametrize(
    "wrong", [{"cost_usd": "-1"}, {"cost_usd": "x"}, {"cost_usd": True}, {"tokens": -1}, {"tokens": 1.5}]
)
def test_limits_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RunLimits(**wrong)


def test_an_amount_is_kept_as_it_was_written() -> None:
    for written in (0.1, "0.1", "0.100"):
        assert RunLimits(cost_usd=written).model_dump(mode="json", exclude_none=True) == {"cost_usd": "0.1"}
