"""A worker and a person who do what the run says it waits for, and nothing else."""

from collections.abc import Callable, Iterable

from stepgate.domain import commands as c
from stepgate.domain.expiry import next_look
from stepgate.domain.quorum import Authority
from stepgate.domain.state import ApprovalStatus, Effect, RunState, StepState
from stepgate.domain.states import DRAINING, StepStatus
from stepgate.domain.wake import next_wake, startable
from tests.domain.invariants import waits_for
from tests.domain.runs import CHANGE, OUTPUT, PERSON, WORKER, Run, question, spec

MOVES_PER_STEP = 12
MOST_PLANNED = 14


Present = Callable[[StepState], str]
"""The hash of what a step would do if it began now."""


def unmoved(step: StepState) -> str:
    return f"{step.spec.number:x}".rjust(64, "0")


def work(run: Run, present: Present = unmoved) -> None:
    """Works until the run asks for nobody's work any more.

    Fails where it is awake with nothing to do, where work changes nothing, and where it never comes to rest.
    """
    for _ in range(MOVES_PER_STEP * (len(run.state.steps) + 2)):
        wake = next_wake(run.state)
        if wake is None:
            return
        run.now = max(run.now, wake)
        command = next_command(run, present)
        assert command is not None, "awake, but there is nothing to do"
        assert run.do(command), f"{command} changed nothing"
    raise AssertionError("the run never comes to rest")


def next_command(run: Run, present: Present = unmoved) -> c.Command | None:
    state = run.state
    steps = sorted((step for _, step in state.steps.items()), key=lambda step: step.spec.number)
    for step in steps:
        match step.status:
            case StepStatus.COMPUTED:
                assert step.result is not None
                return c.Complete(WORKER, step.id, step.result)
            case StepStatus.RUNNING if state.drain == "kill":
                return c.Interrupt(WORKER, step.id)
            case StepStatus.RUNNING:
                return finish(run, step)
            case StepStatus.PREPARING if state.phase in DRAINING:
                return c.Interrupt(WORKER, step.id)
            case StepStatus.PREPARING:
                return take_up(run, step, present)
            case _:
                pass
    if any(question_due(step, run.now) for step in steps):
        return c.Expire(WORKER)
    ready = [step for step in steps if startable(state, step, run.now)]
    return take_up(run, ready[0], present) if ready else None


def question_due(step: StepState, now: int) -> bool:
    asked = None if step.approval is None else next_look(step.approval)
    return asked is not None and asked <= now


def take_up(run: Run, step: StepState, present: Present) -> c.Command:
    approval = step.approval
    if not step.authorised or (approval is not None and approval.action_hash != present(step)):
        run.questions += 1
        return c.Ask(WORKER, step.id, question(present(step), number=run.questions))
    if step.spec.effect is Effect.ONCE or step.status is StepStatus.PREPARING:
        return c.Begin(WORKER, step.id, None if approval is None else approval.action_hash)
    return finish(run, step)


def finish(run: Run, step: StepState) -> c.Command:
    """A step that plans adds another one, as long as there are few."""
    hash_ = None if step.approval is None else step.approval.action_hash
    if step.spec.effect is Effect.WORKSPACE:
        return c.Compute(WORKER, step.id, CHANGE, hash_)
    number = len(run.state.steps) + 1
    plans = step.spec.type == "plan" and number <= MOST_PLANNED
    steps = (spec(number, needs=[step.spec.number]),) if plans else ()
    return c.Complete(WORKER, step.id, OUTPUT, hash_, steps)


def answer(run: Run) -> None:
    """Gives the run what it waits for, so that it goes on."""
    state = run.state
    match waits_for(state):
        case "created":
            run.add(spec(1))
        case "planned" | "execute":
            run.start()
        case "paused":
            run.resume()
        case "approval":
            step = first(s for s in state.steps.values() if s.approval and s.approval.status is ApprovalStatus.OPEN)
            assert step.approval is not None
            another = PERSON._replace(id=f"person-{len(step.approval.voices)}")
            run.do(c.Approve(another, step.id, step.approval.action_hash, None, Authority(("admin",))))
        case "review":
            run.do(c.Skip(PERSON, first(state.steps[step_id] for step_id in state.review).id))
        case other:
            raise AssertionError(f"nobody can help a run that waits for {other}")


def first(steps: Iterable[StepState]) -> StepState:
    """The lowest-numbered, so that a failure comes again."""
    return min(steps, key=lambda step: step.spec.number)


def at_rest(state: RunState) -> bool:
    return waits_for(state) == "finished"


def to_the_end(run: Run, present: Present = unmoved) -> None:
    """Worker and person by turns until nothing is left; fails where the run does not get there."""
    for _ in range(3 * len(run.state.steps) + 6):
        work(run, present)
        if at_rest(run.state):
            return
        answer(run)
    raise AssertionError(f"the run does not end: {run.state.phase}, waits for {waits_for(run.state)}")
