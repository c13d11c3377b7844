"""The verbs: what each refuses, what asking twice does, and that a refused request leaves nothing behind."""

import asyncio
from typing import Any

import pytest

from stepgate.domain.errors import (
    Conflict,
    Forbidden,
    IllegalTransition,
    InvalidPlan,
    InvalidValue,
    NoSteps,
    NotFound,
    PathRefused,
    StepgateError,
)
from stepgate.domain.ids import RunId, StepId, new_id
from stepgate.domain.state import Actor
from stepgate.engine.engine import NewRun
from stepgate.storage.attachments import IdempotencyRow
from tests.worker.lab import PERSON, Lab

NOOP = {"type": "noop", "input": {}}
AGENT = Actor("model", "agent", "api")


@pytest.mark.parametrize(
    ("new", "error", "field"),
    [
        (NewRun(goal=""), InvalidValue, "goal"),
        (NewRun(goal="g", plan={}, steps=[]), InvalidValue, "steps"),
        (NewRun(goal="g", steps=[{"type": "nothing", "input": {}}]), InvalidPlan, None),
        (NewRun(goal="g", steps=[{**NOOP, "input": {"x": 1}}]), InvalidPlan, None),
        (NewRun(goal="g", labels={"a": 1}), InvalidValue, "labels.a"),
        (NewRun(goal="g", limits={"max_steps": 1}, steps=[NOOP, NOOP]), InvalidPlan, None),
        (NewRun(goal="g", workspace_path="/nowhere/at/all"), StepgateError, "workspace_path"),
        (NewRun(goal="g", workspace_path="relative"), PathRefused, "workspace_path"),
        (NewRun(goal="g", start=True), NoSteps, None),
    ],
)
async def test_a_request_that_is_refused_creates_nothing(
    lab: Lab, superuser: Any, new: NewRun, error: type[StepgateError], field: str | None
) -> None:
    with pytest.raises(error) as caught:
        await lab.stack.engine.create(new, PERSON)
    assert field is None or caught.value.field == field
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.runs") == 0
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.events") == 0


async def test_a_run_with_only_a_goal_waits_for_steps(lab: Lab) -> None:
    state = await lab.stack.engine.create(NewRun(goal="g", workspace_path=str(lab.workspace)), PERSON)
    run_id = state.info.id
    assert state.status == "created"
    for verb in (lab.engine.start, lab.engine.execute):
        with pytest.raises(NoSteps):
            await verb(run_id, PERSON)
    state, added = await lab.engine.add_steps(run_id, [NOOP], PERSON)
    assert (state.status, len(added)) == ("planned", 1)


async def test_asking_for_what_stands_changes_nothing(lab: Lab) -> None:
    run_id = await lab.create([NOOP])
    events = await lab.events(run_id)
    await lab.engine.start(run_id, PERSON)
    await lab.engine.resume(run_id, PERSON)
    assert await lab.events(run_id) == events
    await lab.engine.pause(run_id, PERSON)
    events = await lab.events(run_id)
    await lab.engine.pause(run_id, PERSON)
    assert await lab.events(run_id) == events
    await lab.engine.cancel(run_id, PERSON)
    events = await lab.events(run_id)
    await lab.engine.cancel(run_id, PERSON)
    assert await lab.events(run_id) == events
    await lab.verify(run_id)


async def test_execute_grants_the_lowest_numbered_step_and_then_has_nothing_ready(lab: Lab) -> None:
    run_id = await lab.create([{**NOOP, "key": "a"}, {**NOOP, "key": "b", "needs": []}], start=False)
    _, first = await lab.engine.execute(run_id, PERSON)
    _, second = await lab.engine.execute(run_id, PERSON)
    state = await lab.state(run_id)
    assert [first, second] == [state.keys["a"], state.keys["b"]]
    with pytest.raises(Conflict) as caught:
        await lab.engine.execute(run_id, PERSON)
    assert caught.value.reason_code == "nothing_ready"
    await lab.engine.start(run_id, PERSON)
    with pytest.raises(Conflict) as caught:
        await lab.engine.execute(run_id, PERSON)
    assert caught.value.reason_code == "already_started"


async def test_steps_added_side_by_side_all_join_with_numbers_of_their_own(lab: Lab) -> None:
    run_id = await lab.create([NOOP], start=False)
    steps = [[{**NOOP, "key": f"n{number}", "needs": []}] for number in range(4)]
    await asyncio.gather(*(lab.engine.add_steps(run_id, one, PERSON) for one in steps))
    state = await lab.state(run_id)
    assert sorted(step.spec.number for _, step in state.steps.items()) == [1, 2, 3, 4, 5]
    await lab.verify(run_id)


async def test_nothing_is_added_to_a_run_that_has_ended(lab: Lab) -> None:
    run_id = await lab.create([NOOP])
    await lab.engine.cancel(run_id, PERSON)
    with pytest.raises(IllegalTransition):
        await lab.engine.add_steps(run_id, [{**NOOP, "key": "late"}], PERSON)
    for verb in (lab.engine.start, lab.engine.pause, lab.engine.resume):
        with pytest.raises(IllegalTransition):
            await verb(run_id, PERSON)


async def test_an_agent_decides_nothing(lab: Lab) -> None:
    run_id, step_id = RunId(new_id()), StepId(new_id())
    with pytest.raises(Forbidden):
        await lab.engine.approve(run_id, step_id, AGENT, action_hash="a" * 64)
    with pytest.raises(Forbidden):
        await lab.engine.reject(run_id, step_id, AGENT, action_hash=None)


async def test_an_approval_names_its_action_unless_local_callers_are_trusted(lab: Lab) -> None:
    with pytest.raises(InvalidValue) as caught:
        await lab.engine.approve(RunId(new_id()), StepId(new_id()), PERSON, action_hash=None)
    assert caught.value.field == "action_hash"


@pytest.mark.parametrize("reason", ["x" * 2001, "a\x00", "\ud800"])
async def test_a_reason_that_cannot_be_kept_is_refused(lab: Lab, reason: str) -> None:
    run_id = await lab.create([NOOP], start=False)
    step_id = next(iter((await lab.state(run_id)).steps))
    with pytest.raises(InvalidValue) as caught:
        await lab.engine.skip(run_id, step_id, PERSON, reason)
    assert caught.value.field == "reason"


async def test_a_rejection_says_what_then(lab: Lab) -> None:
    with pytest.raises(InvalidValue) as caught:
        await lab.engine.reject(RunId(new_id()), StepId(new_id()), PERSON, action_hash=None, then="explode")
    assert caught.value.field == "then"


async def test_what_does_not_exist_is_not_found(lab: Lab) -> None:
    with pytest.raises(NotFound):
        await lab.engine.start(RunId(new_id()), PERSON)
    run_id = await lab.create([NOOP], start=False)
    with pytest.raises(NotFound):
        await lab.engine.skip(run_id, StepId(new_id()), PERSON, None)


async def test_an_idempotency_key_is_recorded_with_what_it_did_or_not_at_all(lab: Lab, superuser: Any) -> None:
    run_id = await lab.create([NOOP], start=False)
    row = IdempotencyRow("start", "k", "a" * 64, 200)
    await lab.engine.start(run_id, PERSON, row)
    events = await lab.events(run_id)
    with pytest.raises(Conflict) as caught:
        await lab.engine.pause(run_id, PERSON, row)
    assert caught.value.reason_code == "idempotency_in_use"
    assert await lab.events(run_id) == events
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.idempotency_keys") == 1
