"""A run with only a goal: created, planning, planned; and each plan that a step writes is a revision of the run's."""

import pytest

from stepgate.domain import commands as c
from stepgate.domain.errors import Conflict, Forbidden, IllegalTransition, StaleSteps
from stepgate.domain.quorum import Quorum
from stepgate.domain.state import Gate
from stepgate.domain.states import RunStatus, StepStatus
from tests.domain import driving, invariants
from tests.domain.runs import HASH, OUTPUT, PERSON, WORKER, Run, gated, planned, planning, spec, started, types

NEXT = (spec(2, needs=[1]), spec(3, needs=[2]))


def write(run: Run, action_hash: str | None = None) -> None:
    run.do(c.Complete(WORKER, run.id(1), OUTPUT, action_hash, NEXT))


def test_started_it_is_planned_and_goes_on_by_itself() -> None:
    run = planning()
    assert run.state.status is RunStatus.PLANNING
    assert [event.type.value for event in run.events] == ["run.created", "run.planning", "step.added", "run.queued"]
    run.begin(1)
    assert run.state.status is RunStatus.PLANNING
    write(run)
    assert (run.state.phase, run.state.revision, run.state.total) == (RunStatus.QUEUED, 1, 3)
    assert types(run.events)[-2:] == ["step.completed", "run.planned"]
    driving.to_the_end(run)
    assert run.state.phase is RunStatus.COMPLETED
    invariants.check_history(run.state, run.events)


def test_executed_it_is_planned_and_waits_for_the_next_word() -> None:
    run = planning(only_next=True)
    run.begin(1)
    write(run)
    assert (run.state.phase, run.state.allowance) == (RunStatus.PLANNED, None)
    invariants.check_state(run.state)
    run.do(c.Execute(PERSON))
    assert run.step(2).granted
    run.start()
    driving.to_the_end(run)
    assert run.state.phase is RunStatus.COMPLETED


def test_the_plan_itself_can_be_asked_about() -> None:
    run = planning(gate=Gate.ASK)
    run.ask(1)
    assert (run.state.phase, run.state.status) == (RunStatus.PLANNING, RunStatus.AWAITING_APPROVAL)
    run.approve(1)
    write(run, HASH)
    assert run.state.phase is RunStatus.RUNNING or run.state.phase is RunStatus.QUEUED
    rejected = planning(gate=Gate.ASK)
    rejected.ask(1)
    rejected.reject(1)
    assert rejected.state.phase is RunStatus.CANCELLED


def test_nobody_adds_steps_while_it_is_planned_and_it_is_planned_once() -> None:
    run = planning()
    for command in (c.AddSteps(PERSON, (spec(2),)), c.Plan(PERSON, spec(2))):
        with pytest.raises(IllegalTransition):
            run.do(command)
    for other in (planned(spec(1)), started(spec(1))):
        with pytest.raises(IllegalTransition):
            other.do(c.Plan(PERSON, spec(2)))


def test_it_is_paused_resumed_cancelled_and_fails_while_it_is_planned() -> None:
    run = planning()
    run.begin(1)
    run.pause()
    run.interrupt(1)
    run.resume()
    assert types(run.events)[-2:] == ["run.paused", "run.resumed"]
    assert run.state.status == "planning"
    run.begin(1)
    run.fail(1)
    assert run.state.status == "failed"
    stopped = planning()
    stopped.cancel()
    assert stopped.state.phase is RunStatus.CANCELLED
    skipped = planning()
    skipped.skip(1)
    assert skipped.state.phase is RunStatus.COMPLETED
    for each in (run, stopped, skipped):
        invariants.check_state(each.state)
        invariants.check_history(each.state, each.events)


def test_a_plan_written_later_is_the_next_revision() -> None:
    run = started(spec(1, type_="plan"))
    run.begin(1)
    write(run)
    assert (run.state.phase, run.state.revision) == (RunStatus.RUNNING, 2)
    assert run.step(2).status is StepStatus.PENDING
    assert run.state.ready


def test_steps_that_come_too_late_are_left_out() -> None:
    run = started(spec(1, needs=()), gated(2, needs=()))
    run.begin(1)
    run.ask(2)
    run.reject(2)
    assert run.state.phase is RunStatus.CANCELLING
    run.do(c.Complete(WORKER, run.id(1), OUTPUT, None, (spec(3, needs=[1]),)))
    assert (run.state.phase, run.state.total) == (RunStatus.CANCELLED, 2)


def replan(run: Run, number: int, *, most: int = 3) -> None:
    planner = spec(len(run.state.steps) + 1, needs=(), type_="plan")
    run.do(c.Reject(PERSON, run.id(number), HASH, "not so", "replan", planner=planner, most_replans=most))


def asked() -> Run:
    """Step 1 is done, step 2 asks, step 3 waits for it, step 4 runs beside them."""
    run = started(spec(1), gated(2), spec(3), spec(4, needs=()))
    run.complete(1)
    run.begin(4)
    run.ask(2)
    return run


def test_a_rejection_can_replace_what_is_left_by_a_new_revision() -> None:
    run = asked()
    replan(run, 2)
    stands = {step.spec.number: step.status.value for step in run.state.steps.values()}
    assert stands == {1: "completed", 2: "rejected", 3: "cancelled", 4: "running", 5: "pending"}
    assert run.step(3).reason == "replanned"
    run.complete(4)
    run.begin(5)
    run.do(c.Complete(WORKER, run.id(5), OUTPUT, None, (spec(6, needs=[5]),)))
    assert (run.state.revision, run.state.status) == (2, "running")
    run.complete(6)
    assert run.state.status == "completed"
    invariants.check_history(run.state, run.events)


def test_no_step_is_added_that_waits_for_one_that_is_gone() -> None:
    run = asked()
    replan(run, 2)
    run.complete(4)
    run.begin(5)
    for gone in (2, 3):
        waiting = spec(6, needs=[gone])
        with pytest.raises(StaleSteps):
            run.do(c.Complete(WORKER, run.id(5), OUTPUT, None, (waiting,)))
        with pytest.raises(StaleSteps):
            run.do(c.AddSteps(PERSON, (waiting,)))
    run.do(c.AddSteps(PERSON, (spec(6, needs=[1]),)))


def test_the_same_rejection_again_plans_once_and_another_is_refused() -> None:
    run = asked()
    replan(run, 2)
    before = len(run.events)
    replan(run, 2)
    assert len(run.events) == before
    with pytest.raises(Conflict):
        run.reject(2, then="abort")


def test_a_run_is_planned_anew_only_so_often() -> None:
    run = asked()
    with pytest.raises(Conflict) as caught:
        replan(run, 2, most=0)
    assert caught.value.reason_code == "replans_used_up"
    assert run.step(2).status is StepStatus.AWAITING_APPROVAL
    replan(run, 2, most=1)
    run.begin(5)
    run.do(c.Complete(WORKER, run.id(5), OUTPUT, None, (gated(6, needs=[5]),)))
    run.ask(6)
    with pytest.raises(Conflict):
        replan(run, 6, most=1)


def test_a_planner_defined_on_older_steps_is_refused_and_a_paused_run_is_resumed_first() -> None:
    run = asked()
    stale = c.Reject(PERSON, run.id(2), HASH, "no", "replan", planner=spec(4, needs=()), most_replans=3)
    with pytest.raises(StaleSteps):
        run.do(stale)
    run.pause()
    with pytest.raises(IllegalTransition):
        replan(run, 2)


def test_of_a_run_that_goes_step_by_step_the_planner_is_let_go_and_nothing_else() -> None:
    run = planned(gated(1), spec(2))
    run.do(c.Execute(PERSON))
    run.ask(1)
    replan(run, 1)
    assert run.step(3).granted
    run.begin(3)
    run.do(c.Complete(WORKER, run.id(3), OUTPUT, None, (spec(4, needs=[3]),)))
    assert set(run.state.held) == {run.id(4)}


def test_a_plan_that_is_asked_about_can_be_written_anew() -> None:
    run = planning(gate=Gate.ASK)
    run.ask(1)
    replan(run, 1)
    run.begin(2)
    run.do(c.Complete(WORKER, run.id(2), OUTPUT, None, (spec(3, needs=[2]),)))
    assert (run.state.phase, run.state.revision) == (RunStatus.QUEUED, 1)


def test_whoever_told_the_planner_what_to_plan_asked_for_its_steps() -> None:
    bob, cyd = PERSON._replace(id="bob"), PERSON._replace(id="cyd")
    added, edited = started(spec(1)), started(gated(1, type_="plan"))
    added.do(c.AddSteps(bob, (spec(2, type_="plan"),)))
    added.complete(1)
    added.begin(2)
    added.do(c.Complete(WORKER, added.id(2), OUTPUT, None, (gated(3, needs=[2]),)))
    edited.ask(1)
    edited.edit(1, by=bob)
    edited.ask(1)
    edited.approve(1)
    edited.do(c.Begin(WORKER, edited.id(1), HASH))
    edited.do(c.Complete(WORKER, edited.id(1), OUTPUT, HASH, (gated(2, needs=[1]),)))
    redone = asked()
    planner = spec(5, needs=(), type_="plan")
    redone.do(c.Reject(bob, redone.id(2), HASH, "do this", "replan", planner=planner, most_replans=3))
    redone.complete(4)
    redone.begin(5)
    redone.do(c.Complete(WORKER, redone.id(5), OUTPUT, None, (gated(6, needs=[5]),)))
    for run, number in ((added, 3), (edited, 2), (redone, 6)):
        run.ask(number, required=Quorum(exclude_requester=True))
        for person in (PERSON, bob):
            with pytest.raises(Forbidden) as caught:
                run.approve(number, by=person)
            assert caught.value.reason_code == "requester_excluded"
        run.approve(number, by=cyd)
        assert run.step(number).status is StepStatus.APPROVED
        invariants.check_history(run.state, run.events)
