"""What a fork keeps and what it begins anew, decided from a run's state alone."""

from collections.abc import Callable
from decimal import Decimal

import pytest

from stepgate.domain import commands as c
from stepgate.domain import forking
from stepgate.domain.decide import decide
from stepgate.domain.errors import Conflict, InvalidValue
from stepgate.domain.state import FORK, NO_USAGE, Effect, StepState, Usage
from stepgate.domain.states import CLOSED
from tests.domain import driving, invariants
from tests.domain.runs import HASH, OUTPUT, PERSON, SECOND, WORKER, Run, gated, info, spec, started


def keys(steps: tuple[StepState, ...]) -> list[str]:
    return [step.spec.key for step in steps]


def forked(run: Run, from_step: str, written: dict[int, list[str]] | None = None) -> Run:
    """The fork as its own run, as its journal begins."""
    first = forking.named(run.state, from_step)
    parts = forking.split(run.state, first, {run.id(number): names for number, names in (written or {}).items()})
    prologue = spec(1, key=FORK, needs=(), effect=Effect.WORKSPACE, type_=FORK)._replace(id=run.id(99))
    specs, inherited = forking.taken_over(parts, prologue)
    decision = decide(None, c.Create(PERSON, info(), specs, inherited), SECOND)
    return Run(decision.state, list(decision.events))


def done(run: Run, *numbers: int) -> Run:
    for number in numbers:
        run.complete(number)
    return run


def test_lower_numbers_that_ended_are_kept_and_all_else_begins_anew_behind_the_prologue() -> None:
    run = forked(done(started(spec(1), spec(2), spec(3)), 1, 2), "s2")
    stands = {step.spec.key: (step.status.value, step.spec.number) for step in run.state.steps.values()}
    assert stands == {"fork": ("pending", 1), "s1": ("completed", 2), "s2": ("pending", 3), "s3": ("pending", 4)}
    by_key = {step.spec.key: step for step in run.state.steps.values()}
    assert by_key["s2"].spec.needs == (by_key["fork"].id, by_key["s1"].id)
    assert by_key["s3"].spec.needs == (by_key["s2"].id,)
    invariants.check_history(run.state, run.events)
    run.start()
    driving.to_the_end(run)
    assert all(step.status in CLOSED for step in run.state.steps.values())


def left_out(run: Run) -> None:
    run.skip(1)


def refused(run: Run) -> None:
    run.ask(1)
    run.reject(1, then="skip")


def passed_over(run: Run) -> None:
    run.fail(1)


@pytest.mark.parametrize(("how", "stands"), [(left_out, "skipped"), (refused, "skipped"), (passed_over, "failed")])
def test_a_step_that_ended_without_an_output_stays_so(how: Callable[[Run], None], stands: str) -> None:
    run = started(spec(1, on_error="continue"), spec(2))
    how(run)
    fork = forked(run, "s2")
    kept = next(step for step in fork.state.steps.values() if step.spec.key == "s1")
    assert (kept.status, kept.reason, kept.approvals, kept.result) == (stands, "inherited", (), None)


def test_a_branch_that_had_not_ended_begins_anew_though_its_number_is_lower() -> None:
    run = done(started(spec(1, needs=()), spec(2, needs=()), spec(3, needs=(2,))), 2)
    run.fail(1)
    parts = forking.split(run.state, forking.named(run.state, "3"), {})
    assert (keys(parts.kept), keys(parts.anew)) == (["s2"], ["s1", "s3"])


def test_what_a_planning_step_wrote_is_left_to_it_where_it_plans_again() -> None:
    run = started(spec(1), spec(2, type_="plan"), spec(3, needs=(1,)))
    done(run, 1)
    run.begin(2)
    run.do(c.Complete(WORKER, run.id(2), OUTPUT, None, (spec(4, key="written", needs=(2,)),)))
    assert keys(forking.split(run.state, forking.named(run.state, "s2"), {run.id(2): ["written"]}).anew) == ["s2", "s3"]
    assert keys(forking.split(run.state, forking.named(run.state, "written"), {}).kept) == ["s1", "s2"]
    with pytest.raises(Conflict):
        forking.split(run.state, forking.named(run.state, "written"), {run.id(9): ["written"]})
    run.add(spec(5, needs=(4,)))
    with pytest.raises(Conflict) as caught:
        forking.split(run.state, forking.named(run.state, "s2"), {run.id(2): ["written"]})
    assert caught.value.reason_code == "cannot_fork"


@pytest.mark.parametrize("name", ["ghost", "0", "7", "", "fork", "-1", "²"])
def test_only_steps_of_the_plan_are_named(name: str) -> None:
    run = forked(done(started(spec(1), spec(2)), 1), "s2")
    with pytest.raises(InvalidValue) as caught:
        forking.named(run.state, name)
    assert caught.value.field == "from_step"


def test_what_was_paid_goes_along_from_fork_to_fork_and_is_no_part_of_what_the_fork_pays() -> None:
    run = started(spec(1), spec(2))
    run.begin(1)
    run.call_model(1)
    run.settle_model(1, cost=Decimal("0.25"), source="router", model="m")
    run.complete(1)
    once = forked(run, "s2")
    twice = forked(once, "s2")
    for fork in (once, twice):
        assert fork.state.usage == NO_USAGE
        (kept,) = [step for step in fork.state.steps.values() if step.inherited is not None]
        assert kept.inherited == Usage(calls=1, priced=1, cost_usd=Decimal("0.25"), source="router", model="m")
        origin = {"inherited": forking.usage_data(kept.inherited)}
        state = fork.state._replace(info=fork.state.info._replace(origin=origin))
        assert forking.paid_with(state).cost_usd == Decimal("0.25")


def test_an_approval_is_no_inheritance() -> None:
    run = started(gated(1), spec(2))
    run.ask(1)
    run.approve(1)
    run.complete(1, HASH)
    fork = forked(run, "s1")
    assert all(step.approvals == () for step in fork.state.steps.values())
    kept = forked(run, "s2")
    assert all(step.approvals == () for step in kept.state.steps.values())


def test_usages_are_added_and_what_nobody_told_stays_unknown() -> None:
    one = Usage(1, 1, Decimal(1), 5, None, None, None, "a", "m")
    other = Usage(2, 1, Decimal(2), None, 7, None, None, "b", None)
    assert forking.added((NO_USAGE, one, other)) == Usage(3, 2, Decimal(3), 5, 7, None, None, "mixed", "m")
    assert forking.usage_from(forking.usage_data(other)) == other


def test_more_than_can_be_held_at_once_is_refused_by_its_size() -> None:
    step = done(started(spec(1)), 1).step(1)
    forking.check_size([step])
    assert step.result is not None
    large = step._replace(result=step.result._replace(output_size=forking.MOST_BYTES))
    with pytest.raises(Conflict) as caught:
        forking.check_size([step, large])
    assert caught.value.reason_code == "run_too_large"
