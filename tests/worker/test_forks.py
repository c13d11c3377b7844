"""A fork keeps what ended before a step and begins anew from there, on a private copy of the folder as it was then."""

from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.errors import Conflict, Forbidden, InvalidValue, WorkspaceConflict
from stepgate.domain.identity import DEFAULT_TENANT
from stepgate.domain.ids import RunId
from stepgate.domain.state import Actor
from stepgate.engine.costs import CostFilter, Group
from stepgate.engine.queries import RunFilter
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, statuses, step_of
from tests.worker.rules import policy_file, rule
from tests.worker.upstream import Upstream, serving

BEFORE = {"a.txt": "old\n", "b.txt": "b\n"}
PLAN: list[dict[str, Any]] = [
    {"key": "look", "type": "read_file", "input": {"path": "a.txt"}},
    {"key": "first", "type": "edit_file", "input": {"path": "a.txt", "content": "first\n"}},
    {"key": "second", "type": "run_command", "input": {"command": "cat a.txt; echo second > a.txt; rm b.txt"}},
    {"key": "last", "type": "read_file", "input": {"path": "a.txt"}},
]
GATED = ("first", "second")


def files(folder: Path) -> Mapping[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def copy_of(lab: Lab, run_id: RunId) -> Path:
    return lab.stack.copies.folder_of(run_id)


async def ended(lab: Lab, **more: Any) -> RunId:
    """A run of the plan, approved to its end."""
    for name, text in BEFORE.items():
        (lab.workspace / name).write_text(text)
    run_id = await lab.create(PLAN, **more)
    for key in GATED:
        await lab.approve(run_id, key)
    await lab.until_status(run_id, "completed")
    return run_id


async def fork(lab: Lab, run_id: RunId, from_step: str) -> RunId:
    made: RunId = (await lab.engine.fork(run_id, from_step, PERSON, start=True)).info.id
    return made


async def undo(lab: Lab, run_id: RunId, to: str | None = None) -> None:
    state, step_id = await lab.engine.undo(run_id, PERSON, to)
    key = state.steps[step_id].spec.key
    await lab.approve(run_id, key)
    await lab.until_step(run_id, key, "completed")


@pytest.mark.parametrize("mode", ["in_place", "isolated"])
async def test_finished_steps_are_kept_and_the_rest_begins_anew_where_the_workspace_was(lab: Lab, mode: str) -> None:
    run_id = await ended(lab, workspace_mode=mode)
    today = files(lab.workspace)
    made = await fork(lab, run_id, "second")
    state = await lab.until_status(made, "awaiting_approval")
    assert statuses(state) == {
        "fork": "completed",
        "look": "completed",
        "first": "completed",
        "second": "awaiting_approval",
        "last": "pending",
    }
    assert files(copy_of(lab, made)) == {"a.txt": "first\n", "b.txt": "b\n"}
    assert step_of(state, "first").approvals == (), "no approval is taken over"
    assert await lab.events(made, "first") == ["step.inherited"]
    assert await lab.output(made, "first") == await lab.output(run_id, "first")
    await lab.approve(made, "second")
    state = await lab.until_status(made, "completed")
    assert (await lab.output(made, "second"))["stdout"] == "first\n"
    assert (await lab.output(made, "last"))["text"] == "second\n"
    assert files(lab.workspace) == today
    await lab.verify(made)
    await lab.verify(run_id)


async def test_the_journal_says_where_it_comes_from(lab: Lab) -> None:
    run_id = await ended(lab)
    verified = await lab.stack.queries.verify(run_id)
    made = await fork(lab, run_id, "3")
    run = await lab.stack.queries.run(made)
    assert run.forked_from is not None
    assert run.forked_from.model_dump() == {
        "run_id": run_id,
        "from_step": "second",
        "head_seq": verified.events,
        "head_hash": verified.head_hash,
    }
    first = (await lab.stack.queries.events(made, limit=1)).items[0]
    assert (first.type, first.data["origin"]["head_hash"]) == ("run.created", verified.head_hash)


async def test_a_fork_is_undone_delivered_and_forked_again(lab: Lab) -> None:
    run_id = await ended(lab)
    made = await fork(lab, run_id, "second")
    await lab.approve(made, "second")
    await lab.until_status(made, "completed")
    again = await fork(lab, made, "last")
    state = await lab.until_status(again, "completed")
    assert set(statuses(state)) == set(statuses(await lab.state(made)))
    assert files(copy_of(lab, again)) == {"a.txt": "second\n"}
    await lab.verify(again)

    earlier = await fork(lab, made, "first")
    state = await lab.until_status(earlier, "awaiting_approval")
    assert files(copy_of(lab, earlier)) == BEFORE
    assert step_of(state, "first").status == "awaiting_approval"
    await lab.reject(earlier, "first", "abort")
    await lab.until_status(earlier, "cancelled")
    delivered, step_id = await lab.engine.deliver(earlier, PERSON)
    await lab.approve(delivered.info.id, delivered.steps[step_id].spec.key)
    await lab.until_status(delivered.info.id, "completed")
    assert files(lab.workspace) == BEFORE, "what the fork took back is part of its result"

    await undo(lab, made, "fork")
    assert files(copy_of(lab, made)) == {"a.txt": "first\n", "b.txt": "b\n"}
    await undo(lab, made)
    assert files(copy_of(lab, made)) == {"a.txt": "second\n"}, "as the folder was when the copy was made"


async def test_an_undone_run_can_be_forked_too(lab: Lab) -> None:
    run_id = await ended(lab)
    await undo(lab, run_id)
    with pytest.raises(InvalidValue):
        await fork(lab, run_id, "undo-5")
    assert files(lab.workspace) == BEFORE
    made = await fork(lab, run_id, "second")
    await lab.until_step(made, "second", "awaiting_approval")
    assert files(copy_of(lab, made)) == {"a.txt": "first\n", "b.txt": "b\n"}


async def test_a_fork_after_a_failure_goes_on_where_that_was(lab: Lab) -> None:
    run_id = await lab.create(
        [
            {"key": "one", "type": "edit_file", "input": {"path": "a.txt", "content": "1\n"}},
            {"key": "two", "type": "count", "input": {"number": "${{ steps.one.output.diff }}"}},
            {"key": "three", "type": "echo", "input": {"text": "x"}},
        ]
    )
    await lab.approve(run_id, "one")
    await lab.until_status(run_id, "failed")
    made = await fork(lab, run_id, "two")
    state = await lab.until_status(made, "failed")
    assert step_of(state, "two").error == step_of(await lab.state(run_id), "two").error
    await lab.verify(made)


async def test_files_that_somebody_changed_are_named_and_nothing_is_made(lab: Lab) -> None:
    run_id = await ended(lab)
    (lab.workspace / "a.txt").write_text("mine\n")
    before = len((await lab.stack.queries.runs(RunFilter(DEFAULT_TENANT))).items)
    with pytest.raises(WorkspaceConflict) as caught:
        await fork(lab, run_id, "second")
    assert caught.value.details["paths"] == ["a.txt"]
    assert len((await lab.stack.queries.runs(RunFilter(DEFAULT_TENANT))).items) == before


async def test_a_former_content_that_is_gone_is_named(lab: Lab) -> None:
    run_id = await ended(lab)
    bodies = await lab.stack.queries.diff(run_id)
    sha256 = next(one["before"]["sha256"] for one in bodies.files if one["path"] == "b.txt")
    lab.stack.blobs.path_of(sha256).unlink()
    with pytest.raises(Conflict) as caught:
        await fork(lab, run_id, "second")
    assert (caught.value.reason_code, caught.value.details["paths"]) == ("cannot_fork", ["b.txt"])


async def test_what_changes_between_the_request_and_the_copy_fails_the_first_step_with_the_paths(lab: Lab) -> None:
    run_id = await ended(lab)
    made = (await lab.engine.fork(run_id, "second", PERSON)).info.id
    (lab.workspace / "b.txt").write_text("mine\n")
    await lab.engine.start(made, PERSON)
    failed = step_of(await lab.until_status(made, "failed"), "fork")
    assert failed.error is not None
    assert (failed.error["code"], failed.error["paths"]) == ("workspace_conflict", ["b.txt"])


@pytest.fixture
async def upstream(superuser: Any) -> AsyncIterator[Upstream]:
    async with serving(superuser) as served:
        yield served


async def test_what_was_paid_is_inherited_and_not_summed_twice(open_lab: OpenLab, upstream: Upstream) -> None:
    lab = await open_lab(**upstream.settings)
    ask = [{"key": key, "type": "analyze", "input": {"instruction": key}} for key in ("one", "two")]
    run_id = await lab.create(ask)
    await lab.until_status(run_id, "completed")
    made = await fork(lab, run_id, "two")
    again = await fork(lab, made, "two")
    for fork_id in (made, again):
        await lab.until_status(fork_id, "completed")
        cost = await lab.stack.costs.of_run(fork_id)
        assert (cost.calls, cost.total_cost_usd) == (1, "0.25")
        assert cost.inherited is not None
        assert (cost.inherited.calls, cost.inherited.total_cost_usd, cost.inherited.tokens.input) == (1, "0.25", 10)
        await lab.verify(fork_id)
    assert len(upstream.known) == 4
    assert "fork (fork)" not in upstream.asked[-1], "what prepared the copy is no material"
    (day,) = (await lab.stack.costs.over_runs(Group.DAY, None, CostFilter(DEFAULT_TENANT))).items
    assert Decimal(day.known_cost_usd) == 4 * Decimal("0.25")


async def test_where_another_person_must_approve_it_is_not_who_asked_for_the_step_before(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    four_eyes = rule("ask", approvals={"exclude_requester": True}, executor="edit_file")
    lab = await open_lab(policy=policy_file(tmp_path, four_eyes))
    run_id = await lab.create([PLAN[1]])
    bob = Actor("bob", "person", "cli")
    made = (await lab.engine.fork(run_id, "first", bob, start=True)).info.id
    asked = await lab.until_step(made, "first", "awaiting_approval")
    assert asked.approval is not None
    for who in (bob, PERSON):
        with pytest.raises(Forbidden):
            await lab.engine.approve(made, asked.id, who, action_hash=asked.approval.action_hash)
    await lab.engine.approve(made, asked.id, Actor("eve", "person", "cli"), action_hash=asked.approval.action_hash)
    await lab.until_status(made, "completed")


async def test_nor_who_edited_it_there(open_lab: OpenLab, tmp_path: Path) -> None:
    four_eyes = rule("ask", approvals={"exclude_requester": True}, executor="edit_file")
    lab = await open_lab(policy=policy_file(tmp_path, four_eyes))
    run_id = await lab.create([PLAN[1]])
    asked = await lab.until_step(run_id, "first", "awaiting_approval")
    assert asked.approval is not None
    bob, eve = Actor("bob", "person", "cli"), Actor("eve", "person", "cli")
    new_input = {"path": "a.txt", "content": "bob was here"}
    await lab.engine.edit(run_id, asked.id, bob, action_hash=asked.approval.action_hash, new_input=new_input)
    made = (await lab.engine.fork(run_id, "first", PERSON, start=True)).info.id
    again = await lab.until_step(made, "first", "awaiting_approval")
    assert again.approval is not None
    with pytest.raises(Forbidden):
        await lab.engine.approve(made, again.id, bob, action_hash=again.approval.action_hash)
    await lab.engine.approve(made, again.id, eve, action_hash=again.approval.action_hash)
    await lab.until_status(made, "completed")


async def test_what_a_fork_keeps_is_asked_for_by_who_asked_for_it_before(lab: Lab) -> None:
    bob, cyd = Actor("bob", "person", "cli"), Actor("cyd", "person", "cli")
    run_id = await lab.create([{"key": "begin", "type": "noop", "input": {}}], start=False)
    await lab.engine.add_steps(run_id, [PLAN[1], {"key": "end", "type": "noop", "input": {}}], bob)
    await lab.engine.start(run_id, PERSON)
    await lab.approve(run_id, "first")
    await lab.until_status(run_id, "completed")
    made = await lab.engine.fork(run_id, "end", cyd)
    again = await lab.engine.fork(made.info.id, "end", cyd)
    for state in (made, again):
        assert set(state.requesters(step_of(state, "fork"))) == {"cyd", PERSON.id, "bob"}
