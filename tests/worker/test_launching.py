"""An approved command's sandbox is set up while its approval is looked at anew; the command waits for the outcome."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.ids import RunId
from stepgate.executors.base import Context, Prepared
from stepgate.executors.command_params import RunCommandParams
from stepgate.executors.run_command import RunCommand
from stepgate.workspace.sandbox.running import Running
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, step_of
from tests.worker.rules import policy_file, rule

Prepare = Callable[[RunCommand, Context, RunCommandParams], Awaitable[Prepared]]


def command(script: str) -> Mapping[str, Any]:
    return {"key": "c", "type": "run_command", "input": {"command": script}}


class Looks:
    """Stops the worker's looks at an action once somebody approved it, until `go_on`."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.waits = False
        self.at_it = asyncio.Event()
        self.go_on = asyncio.Event()

    def around(self, prepare: Prepare) -> Prepare:
        async def stopped(executor: RunCommand, context: Context, params: RunCommandParams) -> Prepared:
            if self.waits:
                self.at_it.set()
                await self.go_on.wait()
            return await prepare(executor, context, params)

        return stopped

    async def approve(self, run_id: RunId) -> Running:
        """The sandbox that was set up for it, while the look lasts."""
        await self.lab.until_step(run_id, "c", "awaiting_approval")
        self.waits = True
        await self.lab.approve(run_id, "c")
        await self.at_it.wait()
        (running,) = self.live()
        assert await asyncio.shield(running._first) > 0
        return running

    def live(self) -> list[Running]:
        sandbox = self.lab.stack.sandbox
        assert sandbox is not None
        return list(sandbox._live)

    async def nothing_is_left(self) -> None:
        await self.lab.until_idle()
        assert self.live() == []
        assert list(self.lab.worker._tools.layers.path.iterdir()) == []


@pytest.fixture
async def looks(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Looks]:
    found = Looks(lab)
    monkeypatch.setattr(RunCommand, "prepare", found.around(RunCommand.prepare))
    yield found
    found.go_on.set()


async def test_the_sandbox_is_there_before_the_start_is_recorded_and_the_command_is_not(looks: Looks) -> None:
    lab = looks.lab
    run_id = await lab.create([command("echo begun; echo made > made")])
    running = await looks.approve(run_id)
    first = running._process
    assert os.fstat(first)
    assert running._layer.untouched()
    assert "step.started" not in await lab.events(run_id, "c")
    looks.go_on.set()
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "made").read_text() == "made\n"
    assert (await lab.output(run_id, "c"))["stdout"] == "begun\n"
    await looks.nothing_is_left()
    await lab.verify(run_id)


async def test_a_command_whose_file_changed_since_the_approval_never_begins(looks: Looks) -> None:
    lab = looks.lab
    (lab.workspace / "a.sh").write_text("echo one > out\n")
    run_id = await lab.create([command("sh a.sh")])
    await looks.approve(run_id)
    (lab.workspace / "a.sh").write_text("echo two > out\n")
    looks.go_on.set()
    step = await lab.until_step(run_id, "c", "awaiting_approval")
    assert len(step.approvals) == 2
    assert "step.started" not in await lab.events(run_id, "c")
    await looks.nothing_is_left()
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "out").read_text() == "two\n"
    await lab.verify(run_id)


@pytest.mark.parametrize(("end", "status"), [("cancel", "cancelled"), ("pause", "paused")])
async def test_a_run_stopped_during_the_look_leaves_no_sandbox(looks: Looks, end: str, status: str) -> None:
    lab = looks.lab
    run_id = await lab.create([command("echo made > made")])
    await looks.approve(run_id)
    await getattr(lab.engine, end)(run_id, PERSON)
    await lab.until_status(run_id, status)
    looks.go_on.set()
    await looks.nothing_is_left()
    assert list(lab.workspace.iterdir()) == []
    assert "step.started" not in await lab.events(run_id, "c")
    await lab.verify(run_id)


async def test_a_worker_stopped_during_the_look_leaves_no_sandbox_and_the_next_one_goes_on(looks: Looks) -> None:
    lab = looks.lab
    run_id = await lab.create([command("echo made > made")])
    await looks.approve(run_id)
    await lab.worker.stop()
    await looks.nothing_is_left()
    assert list(lab.workspace.iterdir()) == []
    looks.go_on.set()
    await lab.worker.start()
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "made").read_text() == "made\n"


async def test_an_action_that_nobody_can_look_at_again_does_not_begin(looks: Looks) -> None:
    lab = looks.lab
    (lab.workspace / "a.sh").write_text("echo approved\n")
    looks.waits = True
    run_id = await lab.create([{**command("sh a.sh"), "timeout": 1}])
    step = await lab.until_step(run_id, "c", "awaiting_approval")
    assert step.approval is not None
    (lab.workspace / "a.sh").write_text("echo EVIL > evil\n")
    await lab.engine.approve(run_id, step.id, PERSON, action_hash=step.approval.action_hash)
    state = await lab.until(run_id, lambda state: step_of(state, "c").status in ("needs_review", "completed"))
    assert (step_of(state, "c").status, step_of(state, "c").reason) == ("needs_review", "drifted")
    assert not (lab.workspace / "evil").exists()
    await looks.nothing_is_left()


async def test_a_file_behind_a_link_is_held_to_what_was_approved(lab: Lab) -> None:
    (lab.workspace / "target").write_text("echo one > out\n")
    (lab.workspace / "a.sh").symlink_to("target")
    run_id = await lab.create([command("sh a.sh")])
    step = await lab.until_step(run_id, "c", "awaiting_approval")
    assert step.approval is not None
    (lab.workspace / "target").write_text("echo two > out\n")
    await lab.engine.approve(run_id, step.id, PERSON, action_hash=step.approval.action_hash)
    await lab.until(run_id, lambda state: len(step_of(state, "c").approvals) == 2)
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "out").read_text() == "two\n"


async def test_a_file_behind_a_link_that_changes_while_the_command_runs_makes_it_ask_again(lab: Lab) -> None:
    (lab.workspace / "target").write_text("echo one > out\n")
    (lab.workspace / "a.sh").symlink_to("target")
    (lab.workspace / "go").write_text("no\n")
    # Not named as such, so that only the target is held to the approval.
    run_id = await lab.create([command("f=g; until read x < ${f}o && [ $x = yes ]; do :; done; sh a.sh")])
    await lab.approve(run_id, "c")
    await lab.until_step(run_id, "c", "running")
    sandbox = lab.stack.sandbox
    assert sandbox is not None
    assert len(sandbox._live) <= 1  # the one that did not fit is gone
    (lab.workspace / "target").write_text("echo two > out\n")
    (lab.workspace / "go").write_text("yes\n")
    step = await lab.until_step(run_id, "c", "awaiting_approval")
    assert len(step.approvals) == 2
    assert not (lab.workspace / "out").exists()


async def test_a_command_that_newer_rules_deny_never_begins(open_lab: OpenLab, tmp_path: Path) -> None:
    policy = policy_file(tmp_path, rule("ask", executor="run_command"))
    lab = await open_lab(policy=policy)
    run_id = await lab.create([command("echo made > made")])
    step = await lab.until_step(run_id, "c", "awaiting_approval")
    assert step.approval is not None
    await lab.worker.stop()
    policy_file(tmp_path, rule("deny", executor="run_command"))
    other = await open_lab(policy=policy)
    await other.engine.approve(run_id, step.id, PERSON, action_hash=step.approval.action_hash)
    state = await other.until_status(run_id, "failed")
    error = step_of(state, "c").error
    assert error is not None
    assert error["code"] == "denied"
    assert list(other.workspace.iterdir()) == []
