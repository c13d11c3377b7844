"""A step costs the same in a run of 10,000 steps as in a run of 10: counted in calls, so that no clock decides."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from stepgate.domain import journal, projection
from stepgate.domain.state import Effect
from tests.domain.runs import CHANGE, HASH, SECOND, Run, gated, spec, started

SMALL, LARGE = 10, 10_000
EXTRA_CALLS = 4
"""What a larger map or set may cost in calls at most: none are expected, since both are tries."""


def calls(action: Callable[[], object]) -> int:
    """How many Python and C functions the action calls."""
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def recorded(run: Run, action: Callable[[], object], number: int) -> int:
    """The cost of a step as its worker pays it: decided, folded, chained, and its rows made."""

    def whole() -> None:
        before = len(run.events)
        action()
        journal.seal(run.state.info.id, journal.Head(), run.events[before:])
        projection.run_row(run.state)
        projection.step_row(run.state.info.id, run.step(number))

    return calls(whole)


def chain(size: int) -> Run:
    run = started(*(spec(number) for number in range(1, size + 1)))
    for number in range(1, 5):
        run.complete(number)
    return run


def wide(size: int) -> Run:
    run = started(*(spec(number, needs=()) for number in range(1, size + 1)))
    run.complete(1)
    return run


def asking(size: int) -> Run:
    """Every step waits for an answer, each until another time."""
    run = started(*(gated(number, needs=()) for number in range(1, size + 1)))
    for number in range(1, size + 1):
        run.ask(number, f"{number:064x}", expires_at=(10 + number) * SECOND)
    return run


def retrying(size: int) -> Run:
    run = started(*(spec(number, needs=(), max_attempts=3, backoff_ms=1000) for number in range(1, size + 1)))
    for number in range(1, size + 1):
        run.fail(number, retryable=True)
    run.wait(SECOND)
    return run


def in_flight(size: int) -> Run:
    run = started(*(spec(number, needs=(), effect=Effect.WORKSPACE) for number in range(1, size + 1)))
    for number in range(1, size + 1):
        run.begin(number)
    return run


SHAPES: dict[str, tuple[Callable[[int], Run], Callable[[Run], object]]] = {
    "complete in a chain": (chain, lambda run: run.complete(5)),
    "complete among many ready steps": (wide, lambda run: run.complete(5)),
    "begin among many ready steps": (wide, lambda run: run.begin(5)),
    "ask among many ready steps": (wide, lambda run: run.ask(5)),
    "approve among many questions": (asking, lambda run: run.approve(5, f"{5:064x}")),
    "approve the question that would expire first": (asking, lambda run: run.approve(1, f"{1:064x}")),
    "skip among many questions": (asking, lambda run: run.skip(5)),
    "begin again among many retries": (retrying, lambda run: run.begin(5)),
    "fail again among many retries": (retrying, lambda run: run.fail(5, retryable=True)),
    "compute among many in flight": (in_flight, lambda run: run.compute(5)),
    "interrupt among many in flight": (in_flight, lambda run: run.interrupt(5)),
    "add a step": (wide, lambda run: run.add(spec(len(run.state.steps) + 1, needs=[5]))),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_step_costs_the_same_in_a_large_run(name: str) -> None:
    build, action = SHAPES[name]
    small, large = build(SMALL), build(LARGE)
    few = recorded(small, lambda: action(small), 5)
    many = recorded(large, lambda: action(large), 5)
    assert many <= few + EXTRA_CALLS


def test_the_end_of_a_step_costs_as_many_calls_as_it_has_dependents_and_no_more() -> None:
    def ends(dependents: int) -> int:
        waiting = (spec(number, needs=[1]) for number in range(2, dependents + 2))
        run = started(spec(1), *waiting)
        return recorded(run, lambda: run.complete(1), 1)

    one, hundred = ends(1), ends(100)
    assert (hundred - one) % 99 == 0
    assert (hundred - one) // 99 < 20


def test_taking_up_a_question_s_approval_costs_nothing_for_earlier_revisions_of_others() -> None:
    def approves(revisions: int) -> int:
        run = started(gated(1, needs=()), gated(2, needs=(), effect=Effect.WORKSPACE))
        for revision in range(revisions):
            run.ask(1, f"{revision:064x}")
        run.ask(2)
        run.approve(2)
        return recorded(run, lambda: run.compute(2, HASH, CHANGE), 2)

    assert approves(50) == approves(1)
