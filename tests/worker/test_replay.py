"""A run is replayed out of its record: no model, no question, nothing touched; and the first difference is named."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain import canonical
from stepgate.domain.identity import DEFAULT_TENANT
from stepgate.domain.ids import RunId
from stepgate.domain.state import Actor
from stepgate.engine.engine import NewRun
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, step_of
from tests.worker.rules import PREVIEW, policy_file, rule
from tests.worker.upstream import Reply, Upstream, serving

BEFORE = {"a.txt": "old\n", "b.txt": "b\n"}
EDIT = {"key": "edit", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}
COMMAND = {"key": "command", "type": "run_command", "input": {"command": "cat a.txt; echo more >> a.txt; rm b.txt"}}
LOOK = {"key": "look", "type": "read_file", "input": {"path": "a.txt"}}


def files(folder: Path) -> Mapping[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill(lab: Lab) -> None:
    for name, text in BEFORE.items():
        (lab.workspace / name).write_text(text)


async def ended(lab: Lab, *steps: Mapping[str, Any], asking: tuple[str, ...] = (), **more: Any) -> RunId:
    fill(lab)
    run_id = await lab.create(steps, **more)
    for key in asking:
        await lab.approve(run_id, key)
    await lab.until_status(run_id, "completed")
    return run_id


async def replayed(lab: Lab, run_id: RunId, **more: Any) -> Any:
    """The report, once everything about the replay is in order."""
    state, _ = await lab.engine.replay(run_id, PERSON, **more)
    made = state.info.id
    await lab.until_status(made, "completed")
    await lab.verify(made)
    await lab.until_idle()
    assert list((lab.stack.copies.path / "aside").iterdir()) == []
    return await lab.output(made, "replay")


@pytest.fixture
async def upstream(superuser: Any) -> AsyncIterator[Upstream]:
    async with serving(superuser) as served:
        yield served


@pytest.mark.parametrize("mode", ["in_place", "isolated"])
async def test_every_step_comes_out_the_same_and_the_workspace_is_not_touched(lab: Lab, mode: str) -> None:
    run_id = await ended(lab, EDIT, COMMAND, LOOK, asking=("edit", "command"), workspace_mode=mode)
    today = files(lab.workspace)
    report = await replayed(lab, run_id)
    assert report == {"run_id": run_id, "steps": 3, "agreed": 3, "taken": [], "divergence": None}
    assert files(lab.workspace) == today
    assert (await lab.stack.queries.approvals(DEFAULT_TENANT)).items == []


async def test_models_answer_out_of_the_record_and_none_is_called(open_lab: OpenLab, upstream: Upstream) -> None:
    lab = await open_lab(**upstream.settings)
    plan = {"steps": [{**LOOK, "key": "planned", "why": "to see it"}]}
    upstream.prepare(Reply(text=json.dumps(plan)), Reply(text="an analysis"), Reply(text='{"content": "hello\\n"}'))
    run_id = await ended(
        lab,
        {"key": "plan", "type": "plan", "input": {}, "gate": "ask"},
        {"key": "ask", "type": "analyze", "input": {"instruction": "what is it?"}, "gate": "ask"},
        {"key": "write", "type": "edit_file", "input": {"path": "a.txt", "instruction": "say hello"}},
        LOOK,
        asking=("plan", "ask", "write"),
    )
    asked = len(upstream.known)
    report = await replayed(lab, run_id)
    assert (report["agreed"], report["taken"], report["divergence"]) == (5, [], None)
    assert len(upstream.known) == asked == 3


async def test_a_file_that_the_run_read_and_somebody_changed_is_the_first_difference(lab: Lab) -> None:
    run_id = await ended(lab, {**LOOK, "input": {"path": "b.txt"}}, EDIT, asking=("edit",))
    (lab.workspace / "b.txt").write_text("other\n")
    report = await replayed(lab, run_id)
    assert (report["agreed"], report["steps"]) == (0, 2)
    found = report["divergence"]
    assert (found["step"], found["what"], found["names"]) == ("look", "output", ["sha256", "size", "text"])
    assert found["expected"] != found["found"]


async def test_a_command_that_does_otherwise_is_named_by_what_it_printed_or_changed(lab: Lab) -> None:
    clock = {"key": "clock", "type": "run_command", "input": {"command": "date +%s%N"}}
    run_id = await ended(lab, clock, asking=("clock",))
    found = (await replayed(lab, run_id))["divergence"]
    assert (found["step"], found["what"], found["names"]) == ("clock", "output", ["stdout"])
    assert (await replayed(lab, run_id, printed=False))["divergence"] is None

    stamp = {"key": "stamp", "type": "run_command", "input": {"command": "date +%s%N > stamp"}}
    run_id = await ended(lab, stamp, asking=("stamp",))
    found = (await replayed(lab, run_id, printed=False))["divergence"]
    assert (found["step"], found["names"]) == ("stamp", ["files"])


async def test_a_command_that_would_not_be_the_approved_one_is_not_run(open_lab: OpenLab) -> None:
    lab = await open_lab()
    run_id = await ended(lab, COMMAND, asking=("command",))
    await lab.until_idle()
    await lab.worker.stop()
    other = await open_lab(command_timeout_s=7)
    report = await replayed(other, run_id)
    assert (report["divergence"]["step"], report["divergence"]["what"]) == ("command", "action")


async def test_without_a_sandbox_no_command_is_run_again(open_lab: OpenLab, no_sandbox: Any) -> None:
    lab = await open_lab()
    run_id = await ended(lab, COMMAND, asking=("command",))
    await lab.worker.stop()
    with no_sandbox():
        bare = await open_lab()
    report = await replayed(bare, run_id)
    assert (report["divergence"]["what"], report["divergence"]["found"]) == ("sandbox", "none")


async def test_an_answer_that_was_not_kept_leaves_its_step_to_the_record(open_lab: OpenLab, upstream: Upstream) -> None:
    lab = await open_lab(**upstream.settings)
    run_id = await ended(lab, {"key": "ask", "type": "analyze", "input": {"instruction": "what?"}}, LOOK)
    (call,) = await lab.worker._tools.answers.of_run(run_id)
    assert call.answer_sha256 is not None
    body = canonical.loads(lab.stack.blobs.get(call.answer_sha256))
    assert (body["text"], body["model"]) == ("an answer", "m1")
    await asyncio.to_thread(lab.stack.blobs.path_of(call.answer_sha256).unlink)
    report = await replayed(lab, run_id)
    assert (report["agreed"], report["taken"], report["divergence"]) == (1, ["ask"], None)


async def test_a_fork_is_replayed_from_where_it_began(lab: Lab) -> None:
    run_id = await ended(lab, EDIT, COMMAND, LOOK, asking=("edit", "command"))
    made = (await lab.engine.fork(run_id, "command", PERSON, start=True)).info.id
    await lab.approve(made, "command")
    await lab.until_status(made, "completed")
    report = await replayed(lab, made)
    assert (report["steps"], report["agreed"], report["taken"]) == (3, 2, ["fork"])


async def test_a_start_that_cannot_be_made_again_fails_with_the_paths(lab: Lab) -> None:
    run_id = await ended(lab, EDIT, asking=("edit",))
    (lab.workspace / "a.txt").write_text("mine\n")
    state, _ = await lab.engine.replay(run_id, PERSON)
    failed = step_of(await lab.until_status(state.info.id, "failed"), "replay")
    assert failed.error is not None
    assert (failed.error["code"], failed.error["paths"]) == ("workspace_conflict", ["a.txt"])


async def asked_by(lab: Lab, who: str, **labels: str) -> Any:
    """What one question costs a run of this requester."""
    step = {"key": "ask", "type": "analyze", "input": {"instruction": "what is it?"}}
    new = NewRun(goal="try it", workspace_path=str(lab.workspace), steps=[step], labels=labels, start=True)
    run_id = (await lab.engine.create(new, Actor(who, "person", "cli"))).info.id
    await lab.until_status(run_id, "completed")
    await lab.verify(run_id)
    cost = await lab.stack.costs.of_run(run_id)
    return cost.by_source[0].source, cost.total_cost_usd, cost.avoided_cost_usd


PAID, FREE = ("litellm.header", "0.25", None), ("cache", "0", "0.25")


async def test_a_requesters_answers_are_used_again_where_that_is_set_and_by_nobody_else(
    open_lab: OpenLab, upstream: Upstream
) -> None:
    lab = await open_lab(**upstream.settings, model_cache="requester")
    assert [await asked_by(lab, who) for who in ("ada", "ada", "bob", "ada")] == [PAID, FREE, PAID, FREE]
    assert len(upstream.known) == 2
    await lab.worker.stop()
    labelled = await open_lab(**upstream.settings, model_cache="label:team")
    assert await asked_by(labelled, "ada") == PAID, "a run without the label shares nothing"
    asked = [("ada", "x"), ("bob", "x"), ("bob", "y")]
    assert [await asked_by(labelled, who, team=team) for who, team in asked] == [PAID, FREE, PAID]


async def test_what_policy_denies_today_is_not_run_again(open_lab: OpenLab, tmp_path: Path) -> None:
    lab = await open_lab()
    run_id = await ended(lab, COMMAND, asking=("command",))
    await lab.worker.stop()
    strict = await open_lab(policy=policy_file(tmp_path, rule("deny", executor="run_command")))
    found = (await replayed(strict, run_id))["divergence"]
    assert (found["step"], found["what"]) == ("command", "policy")


async def test_a_command_that_was_run_ahead_of_its_question_is_held_to_the_action_that_was_previewed(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    lab = await open_lab(policy=policy_file(tmp_path, PREVIEW))
    run_id = await ended(lab, COMMAND, asking=("command",))
    report = await replayed(lab, run_id)
    assert (report["agreed"], report["divergence"]) == (1, None)
