"""Cancel, pause, resume and shutdown: what runs ends at once, what is computed is brought to its end."""

import asyncio
import random
from typing import Any

import pytest

from stepgate.domain.ids import RunId
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, processes, reading, statuses, step_of, until_processes

EDIT = {"key": "e", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}


@pytest.fixture
def marker() -> str:
    """A number of seconds that no other test sleeps for."""
    return f"6{random.randrange(10)}.{random.randrange(10**9):09}"


def sleeper(marker: str) -> dict[str, Any]:
    """Sleeps, with a child that wants to outlive it, unless the workspace holds a file."""
    script = f"ls | grep -q . || {{ setsid sleep {marker} & sleep {marker}; }}; echo done > out"
    return {"key": "c", "type": "run_command", "input": {"command": script}, "timeout": 100}


async def sleeping(lab: Lab, marker: str) -> RunId:
    """A run whose command sleeps: the shell and two more processes."""
    run_id = await lab.create([sleeper(marker), {"key": "after", "type": "noop", "input": {}}])
    await lab.approve(run_id, "c")
    await lab.until_step(run_id, "c", "running")
    found = await until_processes(f"sleep\0{marker}", 2)
    assert found
    return run_id


async def test_cancel_kills_the_whole_tree_and_ends_the_run(lab: Lab, marker: str) -> None:
    run_id = await sleeping(lab, marker)
    await lab.engine.cancel(run_id, PERSON)
    state = await lab.until_status(run_id, "cancelled")
    assert processes(marker) == set()
    assert statuses(state) == {"c": "cancelled", "after": "cancelled"}
    assert list(lab.workspace.iterdir()) == []
    await lab.verify(run_id)


async def test_pause_kills_the_tree_and_uses_up_no_attempt_and_resume_runs_it_again(lab: Lab, marker: str) -> None:
    run_id = await sleeping(lab, marker)
    await lab.engine.pause(run_id, PERSON)
    state = await lab.until_status(run_id, "paused")
    assert processes(marker) == set()
    step = step_of(state, "c")
    assert (step.status, step.attempt, step.authorised) == ("approved", 0, True)
    (lab.workspace / "wake").write_text("")
    await lab.engine.resume(run_id, PERSON)
    state = await lab.until_status(run_id, "completed")
    assert step_of(state, "c").attempt == 1
    assert (lab.workspace / "out").read_text() == "done\n"
    await lab.verify(run_id)


async def test_a_resumed_run_does_not_repeat_what_it_has_done(lab: Lab) -> None:
    lab.kit.hold.open["done"].set()
    run_id = await lab.create(
        [
            {"key": "done", "type": "hold", "input": {"name": "done"}},
            {"key": "e", "type": "run_command", "input": {"command": "echo line >> log"}},
            {"key": "open", "type": "hold", "input": {"name": "open"}},
        ]
    )
    await lab.approve(run_id, "e")
    await lab.until_step(run_id, "open", "running")
    for _ in range(3):
        await lab.engine.pause(run_id, PERSON)
        await lab.until_status(run_id, "paused")
        await lab.engine.resume(run_id, PERSON)
        await lab.until_step(run_id, "open", "running")
    lab.kit.hold.open["open"].set()
    await lab.until_status(run_id, "completed")
    assert (lab.kit.hold.begun["done"], lab.kit.hold.begun["open"]) == (1, 4)
    assert (lab.workspace / "log").read_text() == "line\n"
    await lab.verify(run_id)


async def test_shutdown_kills_the_tree_and_marks_nothing_cancelled(open_lab: OpenLab, marker: str) -> None:
    lab = await open_lab()
    run_id = await sleeping(lab, marker)
    await lab.worker.stop()
    assert processes(marker) == set()
    state = await lab.state(run_id)
    step = step_of(state, "c")
    assert (state.status, step.status, step.attempt) == ("running", "approved", 0)
    (lab.workspace / "wake").write_text("")
    await open_lab()
    state = await lab.until_status(run_id, "completed")
    assert step_of(state, "c").attempt == 1
    assert "step.cancelled" not in await lab.events(run_id)
    await lab.verify(run_id)


async def test_shutdown_gives_every_run_back_at_once(open_lab: OpenLab, superuser: Any) -> None:
    lab = await open_lab()
    runs = [await lab.create([{"key": "h", "type": "hold", "input": {"name": "h"}}]) for _ in range(5)]
    await lab.until(runs[0], lambda state: len(lab.kit.hold.inside) == 5)
    await lab.worker.stop()
    assert lab.kit.hold.inside == set()
    for run_id in runs:
        assert statuses(await lab.state(run_id)) == {"h": "pending"}
    query = "SELECT count(*) FROM stepgate.runs WHERE worker_id IS NOT NULL OR lost_leases > 0"
    assert await superuser.fetchval(query) == 0
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.workers") == 0


async def test_a_computed_set_is_applied_to_its_end_though_the_run_is_cancelled(lab: Lab) -> None:
    with reading(lab.workspace):
        run_id = await lab.create([EDIT, {"key": "after", "type": "noop", "input": {}}])
        await lab.approve(run_id, "e")
        await lab.until_step(run_id, "e", "computed")
        await lab.engine.cancel(run_id, PERSON)
        state = await lab.until_status(run_id, "cancelling")
        assert statuses(state) == {"e": "computed", "after": "cancelled"}
        assert not (lab.workspace / "a.txt").exists()
    state = await lab.until_status(run_id, "cancelled")
    assert statuses(state) == {"e": "completed", "after": "cancelled"}
    assert (lab.workspace / "a.txt").read_text() == "new\n"
    await lab.verify(run_id)


async def test_shutdown_applies_what_is_computed_before_it_ends(lab: Lab) -> None:
    with reading(lab.workspace):
        run_id = await lab.create([EDIT, {"key": "after", "type": "noop", "input": {}}])
        await lab.approve(run_id, "e")
        await lab.until_step(run_id, "e", "computed")
        stopping = asyncio.create_task(lab.worker.stop())
        await asyncio.wait([stopping], timeout=0)
        assert not stopping.done()
    await stopping
    assert statuses(await lab.state(run_id)) == {"e": "completed", "after": "pending"}
    assert (lab.workspace / "a.txt").read_text() == "new\n"


async def test_a_result_that_comes_after_the_cancel_is_discarded_and_recorded_so(lab: Lab) -> None:
    run_id = await lab.create([{"key": "b", "type": "brief", "input": {"name": "b"}}])
    await lab.until(run_id, lambda state: bool(lab.kit.brief.inside))
    await lab.engine.cancel(run_id, PERSON)
    assert (await lab.state(run_id)).status == "cancelled"
    lab.kit.brief.open["b"].set()
    await lab.until_idle()
    assert statuses(await lab.state(run_id)) == {"b": "cancelled"}
    assert (await lab.events(run_id, "b"))[-1] == "step.discarded"
    assert await lab.output(run_id, "b") is None
    await lab.verify(run_id)


async def test_a_result_that_comes_after_the_pause_is_made_again_after_the_resume(lab: Lab) -> None:
    run_id = await lab.create([{"key": "b", "type": "brief", "input": {"name": "b"}}])
    await lab.until(run_id, lambda state: bool(lab.kit.brief.inside))
    await lab.engine.pause(run_id, PERSON)
    lab.kit.brief.open["b"].set()
    await lab.until_idle()
    assert statuses(await lab.state(run_id)) == {"b": "pending"}
    await lab.engine.resume(run_id, PERSON)
    await lab.until_status(run_id, "completed")
    assert lab.kit.brief.begun["b"] == 2
    await lab.verify(run_id)


async def test_a_step_skipped_while_it_is_being_prepared_is_not_asked_about(lab: Lab) -> None:
    run_id = await lab.create([{"key": "b", "type": "brief", "input": {"name": "b"}}])
    await lab.until(run_id, lambda state: bool(lab.kit.brief.inside))
    await lab.engine.skip(run_id, (await lab.step(run_id, "b")).id, PERSON, None)
    lab.kit.brief.open["b"].set()
    state = await lab.until_status(run_id, "completed")
    assert statuses(state) == {"b": "skipped"}
    await lab.until_idle()
    await lab.verify(run_id)


async def test_cancel_and_pause_and_resume_of_a_run_that_waits_for_a_person_need_no_worker(open_lab: OpenLab) -> None:
    lab = await open_lab()
    run_id = await lab.create([EDIT])
    await lab.until_step(run_id, "e", "awaiting_approval")
    await lab.worker.stop()
    assert (await lab.engine.pause(run_id, PERSON)).status == "paused"
    assert (await lab.engine.resume(run_id, PERSON)).status == "awaiting_approval"
    assert (await lab.engine.cancel(run_id, PERSON)).status == "cancelled"
    await lab.verify(run_id)


async def test_steps_added_to_a_run_in_hand_are_taken_up(lab: Lab) -> None:
    run_id = await lab.create([{"key": "h", "type": "hold", "input": {"name": "h"}}])
    await lab.until(run_id, lambda state: bool(lab.kit.hold.inside))
    await lab.engine.add_steps(run_id, [{"key": "late", "type": "echo", "input": {"text": "x"}, "needs": []}], PERSON)
    await lab.until_step(run_id, "late", "completed")
    lab.kit.hold.open["h"].set()
    await lab.until_status(run_id, "completed")
