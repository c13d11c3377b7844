"""One workspace, several runs and a person: one change at a time, and nobody's work is overwritten."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from stepgate.domain.ids import RunId, new_id
from stepgate.worker import applying, worker
from stepgate.workspace.locks import ApplyMarks
from tests.fixtures.patience import PATIENCE_S
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, eventually, reading, statuses, step_of


def append(key: str, line: str) -> dict[str, Any]:
    """Reads the file, writes it with one line more; two of these at once would lose a line."""
    script = f'before=$(cat log 2>/dev/null); printf "%s\\n" "$before" {line} > log.new; mv log.new log'
    return {"key": key, "type": "run_command", "input": {"command": script}, "needs": []}


EDIT = {"key": "e", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}
READ = {"key": "r", "type": "read_file", "input": {"path": "a.txt"}}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that waits for its workspace does not look again by itself."""
    monkeypatch.setattr(worker, "FIRST_HELD_S", 3600.0)
    monkeypatch.setattr(worker, "LONGEST_HELD_S", 3600.0)


async def computed(lab: Lab, *more: dict[str, Any]) -> RunId:
    """A run whose edit is computed and not yet applied; call it while the workspace is being read."""
    run_id = await lab.create([EDIT, *more])
    await lab.approve(run_id, "e")
    await lab.until_step(run_id, "e", "computed")
    return run_id


@pytest.mark.usefixtures("patient")
async def test_changes_of_several_runs_in_one_workspace_never_interleave(open_lab: OpenLab) -> None:
    """Two workers, three runs, six commands: every line is there, so each saw what the one before had left.

    And none sleeps through the end of another's turn, however close it came to its own wait.
    """
    labs = [await open_lab(), await open_lab()]
    runs = [await labs[n % 2].create([append("a", f"{n}a"), append("b", f"{n}b")]) for n in range(3)]

    async def approve_all(run_id: RunId) -> None:
        """Whatever another run changes meanwhile is asked about again."""
        while (state := await labs[0].state(run_id)).status != "completed":
            for step_id in state.asking:
                step = state.steps[step_id]
                if step.approval is not None:
                    await labs[0].engine.approve(run_id, step_id, PERSON, action_hash=step.approval.action_hash)

    await asyncio.wait_for(asyncio.gather(*(approve_all(run_id) for run_id in runs)), PATIENCE_S)
    lines = (labs[0].workspace / "log").read_text().split()
    assert sorted(lines) == sorted(f"{n}{letter}" for n in range(3) for letter in "ab")
    revs = [await revisions(labs[0], run_id) for run_id in runs]
    pairs = [pair for run in revs for pair in run]
    assert len({before for before, _ in pairs}) == len(pairs), "two changes were computed on the same revision"
    for run_id in runs:
        await labs[0].verify(run_id)


async def revisions(lab: Lab, run_id: RunId) -> list[tuple[str | None, str | None]]:
    state = await lab.state(run_id)
    results = [step.result for _, step in state.steps.items()]
    return [(result.workspace_before, result.workspace_after) for result in results if result is not None]


@pytest.mark.usefixtures("patient")
async def test_a_run_that_waits_for_its_workspace_holds_no_worker_and_goes_on_when_it_is_free(
    open_lab: OpenLab, superuser: Any
) -> None:
    """The workers look once an hour: only the end of the other run's turn can wake the one that waits."""
    lab, other = await open_lab(), await open_lab()
    waiting = await lab.create([{**EDIT, "input": {"path": "b.txt", "content": "b\n"}}])
    with reading(lab.workspace):
        first = await computed(lab)
        await other.approve(waiting, "e")
        query = "SELECT held_for FROM stepgate.runs WHERE id = $1 AND worker_id IS NULL"

        async def held() -> bool:
            return bool(await superuser.fetchval(query, waiting) == "workspace")

        await eventually(held, lambda: "the second run does not wait for the workspace")
        assert statuses(await lab.state(waiting)) == {"e": "approved"}
        run = await lab.stack.queries.run(waiting)
        assert [reason.kind for reason in run.waiting_for] == ["workspace"]
    await lab.until_status(first, "completed")
    await lab.approve(waiting, "e")  # the first run moved the workspace, so the action is another one now
    await lab.until_status(waiting, "completed")
    assert sorted(path.name for path in lab.workspace.iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("end", ["fails", "changes nothing", "is paused"])
async def test_however_a_step_ends_the_next_run_has_the_workspace_at_once(lab: Lab, end: str) -> None:
    script = {"fails": "exit 1", "changes nothing": "true", "is paused": "sleep 60"}[end]
    first = await lab.create([{"key": "c", "type": "run_command", "input": {"command": script}}])
    second = await lab.create([EDIT])
    await lab.until_step(second, "e", "awaiting_approval")
    await lab.approve(first, "c")
    if end == "is paused":
        await lab.until_step(first, "c", "running")
        await lab.approve(second, "e")
        await lab.until_step(second, "e", "approved")
        await lab.engine.pause(first, PERSON)
    else:
        await lab.approve(second, "e")
    await lab.until_status(second, "completed")
    assert (lab.workspace / "a.txt").read_text() == "new\n"


async def test_runs_in_different_workspaces_do_not_wait_for_each_other(lab: Lab) -> None:
    elsewhere = lab.workspace.with_name("elsewhere")
    elsewhere.mkdir()
    with reading(lab.workspace):
        first = await computed(lab)
        second = await lab.create([EDIT], workspace=elsewhere)
        await lab.approve(second, "e")
        await lab.until_status(second, "completed")
    await lab.until_status(first, "completed")


@pytest.mark.usefixtures("patient")
async def test_a_person_s_file_is_not_overwritten_and_nobody_reads_until_they_decide(lab: Lab) -> None:
    """They write the path of a computed set before it is applied."""
    target = lab.workspace / "a.txt"
    target.write_text("old\n")
    with reading(lab.workspace):
        first = await computed(lab, {"key": "after", "type": "noop", "input": {}})
        target.write_text("mine\n")
    state = await lab.until_status(first, "paused")
    step = step_of(state, "e")
    assert (state.reason, step.status) == ("needs_review", "needs_review")
    assert step.error is not None
    assert (step.error["code"], step.error["paths"]) == ("workspace_conflict", ["a.txt"])
    assert target.read_text() == "mine\n"
    reader = await lab.create([READ])
    run = await lab.until_held(reader)
    assert [reason.kind for reason in run.waiting_for] == ["workspace"]
    assert statuses(await lab.state(reader)) == {"r": "pending"}

    target.write_text("old\n")
    await lab.engine.resume(first, PERSON)
    state = await lab.until_status(first, "completed")
    assert statuses(state) == {"e": "completed", "after": "completed"}
    assert target.read_text() == "new\n"
    await lab.until_status(reader, "completed")
    assert (await lab.output(reader, "r"))["text"] == "new\n"
    await lab.verify(first)


async def test_resumed_without_being_restored_the_step_is_put_before_the_person_again(lab: Lab) -> None:
    target = lab.workspace / "a.txt"
    with reading(lab.workspace):
        run_id = await computed(lab)
        target.write_text("mine\n")
    await lab.until_status(run_id, "paused")
    await lab.engine.resume(run_id, PERSON)
    await lab.until(run_id, lambda state: state.status == "paused" and len(state.review) == 1)
    assert target.read_text() == "mine\n"
    events = await lab.events(run_id, "e")
    assert events.count("step.needs_review") == 2


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("verb", ["skip", "cancel"])
async def test_a_person_who_gives_the_change_up_lets_the_others_go_on(lab: Lab, verb: str) -> None:
    target = lab.workspace / "a.txt"
    with reading(lab.workspace):
        first = await computed(lab)
        target.write_text("mine\n")
    await lab.until_status(first, "paused")
    reader = await lab.create([READ])
    await lab.until_held(reader)
    writer = await lab.create([{**EDIT, "input": {"path": "b.txt", "content": "b\n"}}])
    await lab.until_held(writer)
    if verb == "skip":
        await lab.engine.skip(first, (await lab.step(first, "e")).id, PERSON, "keep mine")
        await lab.engine.resume(first, PERSON)
    else:
        await lab.engine.cancel(first, PERSON)
    await lab.until_status(first, "completed" if verb == "skip" else "cancelled")
    await lab.until_status(reader, "completed")
    assert (await lab.output(reader, "r"))["text"] == "mine\n"
    await lab.approve(writer, "e")
    await lab.until_status(writer, "completed")
    assert target.read_text() == "mine\n"
    await lab.verify(first)


async def test_a_file_that_keeps_changing_under_a_command_goes_to_a_person(lab: Lab) -> None:
    """It reads what somebody else writes all the time: what it computes is never what was there."""
    target = lab.workspace / "busy"
    target.write_text("0")
    script = "cat busy; sleep 0.2; echo x >> busy"
    run_id = await lab.create([{"key": "c", "type": "run_command", "input": {"argv": ["sh", "-c", script]}}])
    await lab.approve(run_id, "c")
    number = 0

    async def over() -> bool:
        nonlocal number
        number += 1
        target.write_text(f"{number}")
        return (await lab.state(run_id)).status in ("paused", "completed", "failed", "awaiting_approval")

    await eventually(over, lambda: "it goes on for ever")
    state = await lab.state(run_id)
    step = step_of(state, "c")
    assert step.status in ("needs_review", "awaiting_approval"), step
    assert target.read_text() == f"{number}"


async def test_a_workspace_that_is_gone_fails_the_step_and_says_so(lab: Lab) -> None:
    elsewhere = lab.workspace.with_name("elsewhere")
    elsewhere.mkdir()
    run_id = await lab.create([READ], workspace=elsewhere, start=False)
    elsewhere.rmdir()
    await lab.engine.start(run_id, PERSON)
    step = step_of(await lab.until_status(run_id, "failed"), "r")
    assert step.error is not None
    assert (step.error["code"], step.error["field"]) == ("workspace_unavailable", "workspace_path")


async def test_a_workspace_that_became_a_link_leads_nowhere_else(lab: Lab) -> None:
    path, elsewhere = lab.workspace.with_name("swapped"), lab.workspace.with_name("elsewhere")
    path.mkdir()
    elsewhere.mkdir()
    edit = {"key": "e", "type": "edit_file", "input": {"path": "new", "content": "x"}}
    run_id = await lab.create([edit], workspace=path)
    await lab.until_step(run_id, "e", "awaiting_approval")
    await lab.until_idle()
    path.rename(path.with_name("moved"))
    path.symlink_to(elsewhere)
    await lab.approve(run_id, "e")
    step = step_of(await lab.until_status(run_id, "failed"), "e")
    assert step.error is not None
    assert (step.error["code"], step.error["field"]) == ("workspace_unavailable", "workspace_path")
    assert list(elsewhere.iterdir()) == []


async def test_a_set_that_cannot_be_applied_goes_to_a_person_and_is_applied_when_it_can_be(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug or a full disk in the middle: the step has not failed, because half of its effect may be there."""

    def broken(*args: Any) -> None:
        raise ZeroDivisionError("in the middle")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(applying, "apply", broken)
        run_id = await lab.create([EDIT])
        await lab.approve(run_id, "e")
        step = step_of(await lab.until_status(run_id, "paused"), "e")
    assert step.error is not None
    assert (step.status, step.error["code"]) == ("needs_review", "internal")
    assert "ZeroDivisionError" in step.error["message"]
    assert "applying failed unexpectedly" in [entry["event"] for entry in logs]
    reader = await lab.create([READ])
    await lab.until_held(reader)
    await lab.engine.resume(run_id, PERSON)
    await lab.until_status(run_id, "completed")
    await lab.until_status(reader, "completed")
    assert (await lab.output(reader, "r"))["text"] == "new\n"
    await lab.verify(run_id)


async def test_a_mark_whose_set_was_settled_holds_nobody_up(lab: Lab) -> None:
    """Its worker died between the last record and the removal of the mark, or in another life of this state folder."""
    run_id = await lab.create([EDIT, {**READ, "needs": ["e"]}], start=False)
    workspace_id = (await lab.state(run_id)).info.workspace_id
    ApplyMarks(lab.stack.settings.state_dir).begin(workspace_id, new_id())
    await lab.engine.start(run_id, PERSON)
    await lab.approve(run_id, "e")
    await lab.until_status(run_id, "completed")
