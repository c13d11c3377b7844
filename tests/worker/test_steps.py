"""What a run does from its first step to its last."""

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from stepgate.workspace.sandbox.levels import Level
from tests.worker.conftest import LoseLease, NoSandbox, OpenLab
from tests.worker.lab import PERSON, Lab, Plan, statuses, step_of
from tests.worker.steps import Kit


async def test_a_plan_of_all_five_types_runs_to_its_end(lab: Lab) -> None:
    (lab.workspace / "a.txt").write_text("hello\nworld\n")
    run_id = await lab.create(
        [
            {"key": "read", "type": "read_file", "input": {"path": "a.txt"}},
            {"key": "ask", "type": "analyze", "input": {"instruction": "what is it?"}},
            {
                "key": "edit",
                "type": "edit_file",
                "input": {"path": "a.txt", "content": "${{ steps.read.output.text }}!"},
            },
            {"key": "run", "type": "run_command", "input": {"argv": ["sh", "-c", "cat a.txt; echo new > b.txt"]}},
            {"key": "sum", "type": "summarize", "input": {"instruction": "say it"}},
        ]
    )
    await lab.approve(run_id, "edit")
    await lab.approve(run_id, "run")
    state = await lab.until_status(run_id, "completed")
    assert set(statuses(state).values()) == {"completed"}
    assert (lab.workspace / "a.txt").read_text() == "hello\nworld\n!"
    assert (lab.workspace / "b.txt").read_text() == "new\n"
    assert (await lab.output(run_id, "run"))["stdout"] == "hello\nworld\n!"
    await lab.verify(run_id)


async def test_references_carry_values_with_their_type_and_texts_in_place(lab: Lab) -> None:
    run_id = await lab.create(
        [
            {"key": "first", "type": "echo", "input": {"text": "four"}},
            {"key": "typed", "type": "count", "input": {"number": "${{ steps.first.output.size }}"}},
            {"key": "text", "type": "echo", "input": {"text": "it is ${{ steps.typed.output }} $${{ literally"}},
        ]
    )
    await lab.until_status(run_id, "completed")
    assert (await lab.output(run_id, "typed")) == {"number": 4}
    assert (await lab.output(run_id, "text"))["text"] == 'it is {"number":4} ${{ literally'


async def test_an_input_that_is_wrong_only_once_resolved_fails_naming_the_field(lab: Lab) -> None:
    run_id = await lab.create(
        [
            {"key": "first", "type": "echo", "input": {"text": "four"}},
            {"key": "bad", "type": "count", "input": {"number": "${{ steps.first.output.text }}"}},
        ]
    )
    step = step_of(await lab.until_status(run_id, "failed"), "bad")
    assert step.error is not None
    assert step.error["code"] == "invalid_input"
    assert step.error["field"] == "input.number"
    await lab.verify(run_id)


async def test_a_reference_to_what_a_skipped_step_did_not_say_fails_its_user(lab: Lab) -> None:
    run_id = await lab.create(
        [
            {"key": "left", "type": "hold", "input": {"name": "x"}, "gate": "ask"},
            {"key": "user", "type": "echo", "input": {"text": "${{ steps.left.output.name }}"}},
        ]
    )
    left = await lab.until_step(run_id, "left", "awaiting_approval")
    await lab.stack.engine.skip(run_id, left.id, PERSON, "not now")
    step = step_of(await lab.until_status(run_id, "failed"), "user")
    assert step.error is not None
    assert step.error["code"] == "reference_missing"


async def test_steps_that_need_nothing_of_each_other_run_side_by_side(lab: Lab) -> None:
    run_id = await lab.create(
        [
            {"key": "a", "type": "hold", "input": {"name": "a"}, "needs": []},
            {"key": "b", "type": "hold", "input": {"name": "b"}, "needs": []},
            {"key": "both", "type": "noop", "input": {}, "needs": ["a", "b"]},
        ]
    )
    await lab.until(run_id, lambda state: len(lab.kit.hold.inside) == 2)
    lab.kit.hold.open["b"].set()
    state = await lab.until_step(run_id, "b", "completed")
    assert (await lab.step(run_id, "both")).status == "pending", state
    lab.kit.hold.open["a"].set()
    await lab.until_status(run_id, "completed")
    assert lab.kit.hold.most == 2


async def test_no_more_steps_of_a_type_run_at_once_than_its_limit(open_lab: OpenLab) -> None:
    lab = await open_lab(concurrency="hold=2,*=8")
    steps = [{"key": f"h{n}", "type": "hold", "input": {"name": f"h{n}"}, "needs": []} for n in range(6)]
    runs = [await lab.create(steps[:3]), await lab.create(steps[3:])]
    for _ in range(6):
        await lab.until(runs[0], lambda state: len(lab.kit.hold.inside) == 2 or sum(lab.kit.hold.begun.values()) == 6)
        begun = {name for name, count in lab.kit.hold.begun.items() if count and not lab.kit.hold.open[name].is_set()}
        lab.kit.hold.open[begun.pop()].set()
    for run_id in runs:
        await lab.until_status(run_id, "completed")
    assert lab.kit.hold.most == 2


async def test_a_step_that_waits_for_its_turn_has_not_begun(open_lab: OpenLab) -> None:
    lab = await open_lab(concurrency="hold=1,*=8")
    steps: Plan = [{"key": name, "type": "hold", "input": {"name": name}, "needs": []} for name in ("a", "b")]
    run_id = await lab.create(steps)
    await lab.until(run_id, lambda state: "running" in statuses(state).values() and len(lab.kit.hold.inside) == 1)
    await lab.create([{"type": "noop", "input": {}}])
    assert sorted(statuses(await lab.state(run_id)).values()) == ["pending", "running"]
    for name in ("a", "b"):
        lab.kit.hold.open[name].set()
    await lab.until_status(run_id, "completed")


async def test_a_failed_step_is_tried_again_after_its_backoff_and_wakes_by_itself(lab: Lab) -> None:
    retry = {"max_attempts": 3, "backoff": 0.2}
    run_id = await lab.create([{"key": "f", "type": "flaky", "input": {"number": 2}, "retry": retry}])
    step = step_of(await lab.until_status(run_id, "completed"), "f")
    assert step.attempt == 3
    assert (await lab.output(run_id, "f")) == {"tries": 3}
    assert (await lab.events(run_id, "f")) == ["step.retried", "step.retried", "step.completed"]
    page = await lab.stack.queries.events(run_id, limit=200)
    at = [event.at for event in page.items if event.step_id == step.id]
    assert at == sorted(at)
    await lab.verify(run_id)


async def test_a_host_whose_clock_is_wrong_retries_in_time_and_records_the_database_s_time(
    lab: Lab, superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clock skew between hosts breaks sleeps: no wall clock of a host decides anything here."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400)
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + 86_400) * 1e9))
    retry = {"max_attempts": 2, "backoff": 0.1}
    run_id = await lab.create([{"key": "f", "type": "flaky", "input": {"number": 1}, "retry": retry}])
    await lab.until_status(run_id, "completed")
    query = "SELECT max(abs(extract(epoch FROM at - clock_timestamp()))) FROM stepgate.events WHERE run_id = $1"
    assert await superuser.fetchval(query, run_id) < 60


async def test_many_runs_at_once_need_no_more_connections_than_one(lab: Lab, superuser: Any) -> None:
    """Connection exhaustion: the pool, the committer, the doorbell and the heartbeat, however many runs there are."""
    plan: Plan = [
        {"key": "a", "type": "echo", "input": {"text": "x"}},
        {"key": "b", "type": "echo", "input": {"text": "${{ steps.a.output.text }}"}},
        {"key": "c", "type": "hold", "input": {"name": "c"}},
    ]
    runs = [await lab.create(plan) for _ in range(60)]
    await lab.until(runs[0], lambda state: len(lab.kit.hold.inside) == 60)
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert await superuser.fetchval(query) <= 8
    lab.kit.hold.open["c"].set()
    for run_id in runs:
        await lab.until_status(run_id, "completed")
    assert await superuser.fetchval(query) <= 8


async def test_a_retry_that_is_due_does_not_wait_for_a_sibling_that_runs(lab: Lab) -> None:
    run_id = await lab.create(
        [
            {"key": "long", "type": "hold", "input": {"name": "long"}, "needs": []},
            {
                "key": "f",
                "type": "flaky",
                "input": {"number": 1},
                "needs": [],
                "retry": {"max_attempts": 2, "backoff": 0.05},
            },
        ]
    )
    await lab.until_step(run_id, "f", "completed")
    assert (await lab.step(run_id, "long")).status == "running"
    lab.kit.hold.open["long"].set()
    await lab.until_status(run_id, "completed")


async def test_attempts_that_are_used_up_fail_the_step_and_keep_what_it_said(lab: Lab) -> None:
    retry = {"max_attempts": 2, "backoff": 0.01}
    run_id = await lab.create([{"key": "f", "type": "flaky", "input": {"number": 9}, "retry": retry}])
    step = step_of(await lab.until_status(run_id, "failed"), "f")
    assert (step.attempt, step.error and step.error["code"]) == (2, "flaky")
    assert (await lab.output(run_id, "f")) == {"said": "try 2"}
    await lab.verify(run_id)


async def test_a_step_over_its_time_limit_is_stopped_and_fails(lab: Lab) -> None:
    run_id = await lab.create([{"key": "h", "type": "hold", "input": {"name": "h"}, "timeout": 0.05}])
    step = step_of(await lab.until_status(run_id, "failed"), "h")
    assert step.error is not None
    assert (step.error["code"], step.error["field"]) == ("timeout", "timeout")
    assert lab.kit.hold.stopped == ["h"]


async def test_a_command_over_its_time_limit_fails_and_changes_nothing(lab: Lab) -> None:
    run_id = await lab.create(
        [
            {
                "key": "c",
                "type": "run_command",
                "input": {"argv": ["sh", "-c", "echo half > half.txt; sleep 60"]},
                "timeout": 0.3,
            }
        ]
    )
    await lab.approve(run_id, "c")
    step = step_of(await lab.until_status(run_id, "failed"), "c")
    assert step.error is not None
    assert step.error["code"] == "timeout"
    assert not (lab.workspace / "half.txt").exists()
    await lab.verify(run_id)


async def test_a_failure_the_plan_allows_counts_as_done(lab: Lab) -> None:
    run_id = await lab.create(
        [
            {"key": "bad", "type": "refusing", "input": {}, "on_error": "continue"},
            {"key": "next", "type": "noop", "input": {}},
        ]
    )
    state = await lab.until_status(run_id, "completed")
    assert statuses(state) == {"bad": "failed", "next": "completed"}
    error = step_of(state, "bad").error
    assert error == {"code": "invalid_value", "message": "this cannot be (name another)", "field": "input.name"}


async def test_after_a_failure_siblings_finish_and_dependents_are_cancelled(lab: Lab) -> None:
    run_id = await lab.create(
        [
            {"key": "sibling", "type": "hold", "input": {"name": "s"}, "needs": []},
            {"key": "gate", "type": "hold", "input": {"name": "g"}, "needs": []},
            {"key": "bad", "type": "refusing", "input": {}, "needs": ["gate"]},
            {"key": "after", "type": "noop", "input": {}, "needs": ["bad"]},
        ]
    )
    await lab.until(run_id, lambda state: len(lab.kit.hold.inside) == 2)
    lab.kit.hold.open["g"].set()
    await lab.until_status(run_id, "failing")
    lab.kit.hold.open["s"].set()
    state = await lab.until_status(run_id, "failed")
    assert statuses(state) == {"sibling": "completed", "gate": "completed", "bad": "failed", "after": "cancelled"}
    await lab.verify(run_id)


async def test_an_output_that_is_too_large_fails_its_step(open_lab: OpenLab) -> None:
    lab = await open_lab(max_output_bytes=1000)
    run_id = await lab.create([{"key": "l", "type": "large", "input": {"number": 100_000}}])
    step = step_of(await lab.until_status(run_id, "failed"), "l")
    assert step.error is not None
    assert (step.error["code"], step.error["field"]) == ("output_too_large", "output")
    assert (await lab.output(run_id, "l")) is None


async def test_a_bug_in_a_step_type_is_recorded_and_logged_and_not_swallowed(lab: Lab) -> None:
    with capture_logs() as logs:
        run_id = await lab.create([{"key": "b", "type": "broken", "input": {}}])
        step = step_of(await lab.until_status(run_id, "failed"), "b")
    assert step.error == {"code": "internal", "message": "ZeroDivisionError: a bug in a step type", "field": None}
    (entry,) = [entry for entry in logs if entry["event"] == "step failed unexpectedly"]
    assert (entry["log_level"], entry["run_id"], entry["step"], entry["exc_info"]) == ("error", run_id, "b", True)


@pytest.mark.parametrize("status", ["pending", "running"])
async def test_a_step_type_this_worker_lacks_pauses_the_run_until_one_has_it(
    open_lab: OpenLab, lose_lease: LoseLease, status: str
) -> None:
    full = await open_lab(worker=False)
    run_id = await full.create([{"key": "h", "type": "hold", "input": {"name": "h"}}])
    if status == "running":
        await full.stack.start_worker()
        await full.until(run_id, lambda state: bool(full.kit.hold.inside))
        await lose_lease(full)
    lacking = await open_lab(kit=Kit(without="hold"))
    state = await lacking.until_status(run_id, "paused")
    assert (state.reason, statuses(state)) == ("executor_missing", {"h": "pending"})
    await lacking.until_idle()
    await lacking.worker.stop()
    able = await open_lab()
    able.kit.hold.open["h"].set()
    await able.engine.resume(run_id, PERSON)
    state = await able.until_status(run_id, "completed")
    assert step_of(state, "h").attempt == 1
    await able.verify(run_id)


async def test_without_a_sandbox_no_command_runs_and_the_run_waits_for_one(
    open_lab: OpenLab, no_sandbox: NoSandbox
) -> None:
    with no_sandbox():
        bare = await open_lab()
    assert bare.stack.sandbox is None
    plan = [{"key": "c", "type": "run_command", "input": {"argv": ["sh", "-c", "echo yes > done.txt"]}}]
    run_id = await bare.create(plan)
    state = await bare.until_status(run_id, "paused")
    assert (state.reason, statuses(state)) == ("sandbox_unavailable", {"c": "pending"})
    await bare.until_idle()
    await bare.worker.stop()
    able = await open_lab()
    await able.engine.resume(run_id, PERSON)
    await able.approve(run_id, "c")
    await able.until_status(run_id, "completed")
    assert (able.workspace / "done.txt").read_text() == "yes\n"
    await able.verify(run_id)


async def test_a_step_that_wants_a_stronger_sandbox_waits_for_a_worker_that_has_it(open_lab: OpenLab) -> None:
    weak = await open_lab(sandbox_levels=(Level.BWRAP_NOPROC,))
    assert weak.stack.sandbox is not None
    wanted = {"argv": ["sh", "-c", "echo yes > done.txt"], "sandbox": "bwrap-full"}
    run_id = await weak.create([{"key": "c", "type": "run_command", "input": wanted}])
    state = await weak.until_status(run_id, "paused")
    assert (state.reason, statuses(state)) == ("sandbox_unavailable", {"c": "pending"})
    run = await weak.stack.queries.run(run_id)
    assert [reason.kind for reason in run.waiting_for] == ["sandbox"]
    await weak.until_idle()
    await weak.worker.stop()
    strong = await open_lab()
    await strong.engine.resume(run_id, PERSON)
    await strong.approve(run_id, "c")
    await strong.until_status(run_id, "completed")
    assert (strong.workspace / "done.txt").read_text() == "yes\n"
    await strong.verify(run_id)


async def test_a_sandbox_lost_after_the_approval_pauses_the_run_and_keeps_the_approval(
    open_lab: OpenLab, no_sandbox: NoSandbox
) -> None:
    able = await open_lab()
    run_id = await able.create([{"key": "c", "type": "run_command", "input": {"argv": ["true"]}}])
    await able.until_step(run_id, "c", "awaiting_approval")
    await able.until_idle()
    await able.worker.stop()
    await able.approve(run_id, "c")
    with no_sandbox():
        bare = await open_lab()
    state = await bare.until_status(run_id, "paused")
    assert (state.reason, statuses(state)) == ("sandbox_unavailable", {"c": "approved"})
    await bare.until_idle()
    await bare.worker.stop()
    await (await open_lab()).engine.resume(run_id, PERSON)
    await able.until_status(run_id, "completed")
