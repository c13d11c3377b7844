"""Model calls are known before they leave and settled when they are back; what is unknown is never taken for 0."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from stepgate.domain.errors import ModelUnavailable
from stepgate.engine.costs import CostFilter, Group
from stepgate.llm.offline import OfflineModel
from stepgate.llm.protocol import ModelAnswer, ModelRequest, OnText
from tests.worker.conftest import LoseLease, OpenLab
from tests.worker.lab import PERSON, Lab, eventually, statuses, step_of
from tests.worker.upstream import HALF, PRICE, SILENCE, Reply, Upstream, serving

ASK = {"key": "a", "type": "analyze", "input": {"instruction": "why?"}, "retry": {"max_attempts": 1}}
WRITE = {"key": "w", "type": "edit_file", "input": {"path": "a.txt", "instruction": "say hello"}}


@pytest.fixture
async def upstream(superuser: Any) -> AsyncIterator[Upstream]:
    async with serving(superuser) as served:
        yield served


@pytest.fixture
async def asking(open_lab: OpenLab, upstream: Upstream) -> Lab:
    """A process whose models are behind the upstream."""
    return await open_lab(**upstream.settings, model_tiers="simple=small")


async def calls(upstream: Upstream) -> list[tuple[str, Decimal | None, int | None]]:
    query = "SELECT status, cost_usd, tokens_input FROM stepgate.model_calls ORDER BY called_at, id"
    return [tuple(row) for row in await upstream.superuser.fetch(query)]


async def test_a_call_is_recorded_before_it_leaves_and_settled_when_it_is_back(asking: Lab, upstream: Upstream) -> None:
    run_id = await asking.create([ASK])
    state = await asking.until_status(run_id, "completed")
    assert upstream.known == [[("called", None)]]
    assert await calls(upstream) == [("ok", Decimal("0.25"), 10)]
    assert await asking.events(run_id, "a") == ["step.started", "model.called", "model.settled", "step.completed"]
    assert (state.usage.total_usd, state.usage.input, state.usage.output) == (Decimal("0.25"), 10, 5)
    cost = await asking.stack.costs.of_run(run_id)
    assert (cost.total_cost_usd, cost.calls, cost.unknown_calls) == ("0.25", 1, 0)
    await asking.verify(run_id)


async def test_everything_the_router_told_of_an_attempt_is_in_its_row(asking: Lab, upstream: Upstream) -> None:
    said = ("x-litellm-call-id: r1", "x-litellm-model-name: openai/gpt-4o-mini", "x-litellm-attempted-retries: 0")
    upstream.prepare(
        Reply(429, "slow", ("retry-after-ms: 1",)), Reply(headers=(PRICE, *said, "llm_provider-x-request-id: u1"))
    )
    run_id = await asking.create([{**ASK, "input": {"instruction": "why?", "tier": "simple"}}])
    await asking.until_status(run_id, "completed")
    rows = await upstream.superuser.fetch("SELECT * FROM stepgate.model_calls ORDER BY called_at, id")
    refused, answered = (dict(row) for row in rows)
    assert refused["request_hash"] == answered["request_hash"]
    assert (refused["status"], refused["http_status"], refused["cost_usd"]) == ("model_rate_limited", 429, 0)
    told = {
        name: answered[name] for name in ("router", "provider", "model_asked", "model_used", "status", "cost_source")
    }
    assert list(told.values()) == ["openai", "openai", "small", "gpt-4o-mini", "ok", "litellm.header"]
    assert [answered[f"tokens_{kind}"] for kind in ("input", "output", "cached", "reasoning")] == [10, 5, None, None]
    assert json.loads(answered["request_ids"]) == {"request": "r1", "response": "c1", "upstream": "u1"}
    assert (answered["finish_reason"], answered["cache_hit"], answered["retries"]) == ("stop", False, 0)
    assert answered["latency_ms"] >= 0
    assert answered["called_at"] <= answered["settled_at"]


async def test_a_router_that_answers_500_to_everything_is_asked_once_more_and_not_longer(
    open_lab: OpenLab, upstream: Upstream
) -> None:
    upstream.prepare(Reply(500, "it failed", ("retry-after-ms: 1",)))
    lab = await open_lab(**{**upstream.settings, "model_router": "smart_router", "model_default": None})
    number = {"type": "object", "properties": {"n": {"type": "integer"}}}
    run_id = await lab.create([{**ASK, "input": {"instruction": "why?", "schema": number}}])
    await lab.until_status(run_id, "failed")
    assert len(upstream.known) == 2


async def test_what_a_cache_avoided_is_kept_beside_the_cost_of_nothing(asking: Lab, upstream: Upstream) -> None:
    upstream.prepare(Reply(headers=(PRICE, "x-litellm-cache-key: k1")))
    run_id = await asking.create([ASK])
    await asking.until_status(run_id, "completed")
    cost = await asking.stack.costs.of_run(run_id)
    assert (cost.total_cost_usd, cost.avoided_cost_usd, cost.estimated_savings_usd) == ("0", "0.25", None)
    assert [(one.source, one.avoided_cost_usd) for one in cost.by_source] == [("router_cache", "0.25")]
    await asking.verify(run_id)


async def test_an_answer_is_shown_as_it_comes_and_only_the_whole_of_it_is_recorded(
    asking: Lab, upstream: Upstream
) -> None:
    upstream.prepare(HALF)
    run_id = await asking.create([ASK])
    await asking.until(run_id, lambda state: step_of(state, "a").status == "running")
    step_id = (await asking.step(run_id, "a")).id

    async def shown() -> bool:
        found = await asking.stack.queries.live_output(run_id, step_id, 0)
        return [(item.stream, item.text) for item in found.items] == [("model", "half ")]

    await eventually(shown, lambda: "nothing is shown")
    upstream.awake.set()
    await asking.until_status(run_id, "completed")
    output = await asking.stack.queries.output(run_id, step_id)
    assert output.output["text"] == "half an answer"
    assert (await asking.stack.queries.live_output(run_id, step_id, 0)).ended
    await asking.verify(run_id)


async def test_costs_over_runs_are_grouped_and_filtered(asking: Lab, upstream: Upstream) -> None:
    upstream.prepare(Reply(), Reply(headers=()), Reply())
    for team in ("blue", "red", "blue"):
        run_id = await asking.create([ASK], labels={"team": team})
        await asking.until_status(run_id, "completed")
    query = asking.stack.costs.over_runs
    by_team = await query(Group.LABEL, "team", CostFilter("default"))
    assert [(one.name, one.runs, one.calls, one.known_cost_usd, one.total_cost_usd) for one in by_team.items] == [
        ("blue", 2, 2, "0.5", "0.5"),
        ("red", 1, 1, "0", None),
    ]
    (day,) = (await query(Group.DAY, None, CostFilter("default", labels={"team": "blue"}))).items
    assert (day.runs, day.known_cost_usd, day.tokens.input) == (2, "0.5", 20)
    (model,) = (await query(Group.MODEL, None, CostFilter("default"))).items
    assert (model.name, model.unknown_calls) == ("m1", 1)
    assert [one.runs for one in (await query(Group.REQUESTER, None, CostFilter("default"))).items] == [3]
    after = datetime.now(UTC) + timedelta(hours=1)
    assert (await query(Group.DAY, None, CostFilter("default", since=after))).items == []
    assert len((await query(Group.DAY, None, CostFilter("default", until=after))).items) == 1


async def test_a_router_that_does_not_say_the_price_leaves_the_cost_unknown(asking: Lab, upstream: Upstream) -> None:
    upstream.prepare(Reply(headers=()))
    run_id = await asking.create([ASK])
    await asking.until_status(run_id, "completed")
    assert await calls(upstream) == [("ok", None, 10)]
    cost = await asking.stack.costs.of_run(run_id)
    assert (cost.total_cost_usd, cost.unknown_calls) == (None, 1)
    assert [(call.key, call.model, call.status) for call in cost.unknown] == [("a", "m1", "ok")]
    await asking.verify(run_id)


async def test_a_refusal_is_tried_again_when_its_hint_says_each_try_with_a_row_of_its_own(
    asking: Lab, upstream: Upstream
) -> None:
    upstream.prepare(
        Reply(429, "slow down", ("retry-after-ms: 20",)), Reply(503, "busy", ("retry-after-ms: 20",)), Reply()
    )
    run_id = await asking.create([ASK])
    state = await asking.until_status(run_id, "completed")
    assert step_of(state, "a").attempt == 1
    assert [len(known) for known in upstream.known] == [1, 2, 3]
    assert upstream.known[2][2] == ("called", None)
    rows = await calls(upstream)
    assert [row[0] for row in rows][2] == "ok"
    assert all(row[0] not in ("ok", "called") for row in rows[:2])
    await asking.verify(run_id)


async def test_a_hint_longer_than_a_worker_waits_puts_the_run_down_until_then(asking: Lab, upstream: Upstream) -> None:
    upstream.prepare(Reply(429, "come back later", ("retry-after: 1800",)), Reply())
    run_id = await asking.create([{**ASK, "retry": {"max_attempts": 2}}])
    state = await asking.until(run_id, lambda state: bool(state.retrying))
    step = step_of(state, "a")
    assert step.retry_at is not None
    assert step.retry_at - state.last_at == 1_800_000_000
    await asking.until_idle()
    assert len(upstream.known) == 1
    await asking.engine.cancel(run_id, PERSON)


async def test_an_error_that_asking_again_will_not_mend_fails_at_once(asking: Lab, upstream: Upstream) -> None:
    upstream.prepare(Reply(401, "who are you?"))
    run_id = await asking.create([{**ASK, "retry": {"max_attempts": 5}}])
    await asking.until_status(run_id, "failed")
    assert len(upstream.known) == 1
    await asking.verify(run_id)


async def test_a_call_that_is_stopped_by_its_time_limit_counts_as_unknown(asking: Lab, upstream: Upstream) -> None:
    upstream.prepare(SILENCE)
    run_id = await asking.create([{**ASK, "timeout": 0.3}])
    step = step_of(await asking.until_status(run_id, "failed"), "a")
    assert step.error is not None
    assert step.error["code"] == "timeout"
    assert await calls(upstream) == [("interrupted", None, None)]
    cost = await asking.stack.costs.of_run(run_id)
    assert (cost.total_cost_usd, cost.known_cost_usd, cost.unknown_calls) == (None, "0", 1)
    await asking.verify(run_id)


async def test_a_call_that_is_cancelled_with_its_run_counts_as_unknown(asking: Lab, upstream: Upstream) -> None:
    upstream.prepare(SILENCE)
    run_id = await asking.create([ASK])
    await called(upstream, 1)
    await asking.engine.cancel(run_id, PERSON)
    await asking.until_status(run_id, "cancelled")
    assert await calls(upstream) == [("interrupted", None, None)]
    await asking.verify(run_id)


async def called(upstream: Upstream, count: int) -> None:
    async def arrived() -> bool:
        return len(upstream.known) == count

    await eventually(arrived, lambda: upstream.known)


async def test_a_crash_between_call_and_answer_leaves_an_unknown_call_and_not_a_free_one(
    open_lab: OpenLab, lose_lease: LoseLease, upstream: Upstream
) -> None:
    upstream.prepare(SILENCE, Reply())
    lost = await open_lab(**upstream.settings)
    run_id = await lost.create([ASK])
    await called(upstream, 1)
    await lose_lease(lost)
    successor = await open_lab(**upstream.settings)
    state = await successor.until_status(run_id, "completed")
    assert step_of(state, "a").attempt == 1
    upstream.awake.set()
    await lost.until_idle()
    assert await calls(upstream) == [("lost", None, None), ("ok", Decimal("0.25"), 10)]
    cost = await successor.stack.costs.of_run(run_id)
    assert (cost.total_cost_usd, cost.known_cost_usd, cost.unknown_calls) == (None, "0.25", 1)
    await successor.verify(run_id)


async def test_a_fault_of_the_client_itself_settles_the_call_as_unknown(
    lab: Lab, superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: OfflineModel, request: ModelRequest) -> ModelAnswer:
        raise KeyError("choices")

    monkeypatch.setattr(OfflineModel, "complete", broken)
    run_id = await lab.create([ASK])
    step = step_of(await lab.until_status(run_id, "failed"), "a")
    assert step.error is not None
    assert step.error["code"] == "internal"
    rows = await superuser.fetch("SELECT status, cost_usd FROM stepgate.model_calls")
    assert [tuple(row) for row in rows] == [("internal", None)]
    await lab.verify(run_id)


async def test_a_request_the_router_cannot_take_at_all_costs_nothing(
    lab: Lab, superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: OfflineModel, request: ModelRequest, on_text: OnText | None) -> ModelAnswer:
        raise ModelUnavailable("no such model here", code="no_model")

    monkeypatch.setattr(OfflineModel, "complete", refuse)
    run_id = await lab.create([ASK])
    await lab.until_status(run_id, "failed")
    rows = await superuser.fetch("SELECT status, cost_usd FROM stepgate.model_calls")
    assert [tuple(row) for row in rows] == [("no_model", Decimal(0))]
    assert (await lab.stack.costs.of_run(run_id)).total_cost_usd == "0"


async def test_what_a_model_wrote_is_shown_first_and_applied_as_it_was_approved(
    open_lab: OpenLab, upstream: Upstream
) -> None:
    """It is asked once: neither the approval nor another worker asks it again."""
    upstream.prepare(Reply(text=json.dumps({"content": "hello\n"})), Reply(text=json.dumps({"content": "evil\n"})))
    lab = await open_lab(**upstream.settings)
    run_id = await lab.create([WRITE])
    asked = await lab.until_step(run_id, "w", "awaiting_approval")
    await lab.worker.stop()
    types = await lab.events(run_id, "w")
    assert types == ["step.preparing", "model.called", "model.settled", "step.prepared", "approval.requested"]
    view = await lab.stack.queries.step(run_id, asked.id)
    assert view.approval is not None
    assert view.approval.rendering is not None
    assert "+hello" in view.approval.rendering["diff"]
    again = await open_lab(**upstream.settings)
    await again.approve(run_id, "w")
    await again.until_status(run_id, "completed")
    assert (again.workspace / "a.txt").read_text() == "hello\n"
    assert len(upstream.known) == 1
    await again.verify(run_id)


async def test_a_pause_stops_a_model_that_writes_and_the_step_is_as_before(asking: Lab, upstream: Upstream) -> None:
    upstream.prepare(SILENCE, Reply(text=json.dumps({"content": "hello\n"})))
    run_id = await asking.create([WRITE])
    await called(upstream, 1)
    await asking.until_step(run_id, "w", "preparing")
    await asking.engine.pause(run_id, PERSON)
    state = await asking.until_status(run_id, "paused")
    assert statuses(state) == {"w": "pending"}
    await asking.engine.resume(run_id, PERSON)
    await asking.approve(run_id, "w")
    await asking.until_status(run_id, "completed")
    assert (await calls(upstream))[0][0] == "interrupted"
    await asking.verify(run_id)


async def test_a_model_that_takes_too_long_to_write_leaves_a_question_without_a_preview(
    asking: Lab, upstream: Upstream
) -> None:
    upstream.prepare(SILENCE)
    run_id = await asking.create([{**WRITE, "timeout": 0.3}])
    step = await asking.until_step(run_id, "w", "awaiting_approval")
    assert step.approval is not None
    assert step.approval.risk == "high"
    view = await asking.stack.queries.step(run_id, step.id)
    assert view.approval is not None
    assert view.approval.rendering is not None
    assert "took longer" in view.approval.rendering["no_preview"]
    assert not (asking.workspace / "a.txt").exists()


async def test_a_worker_killed_while_a_model_writes_starts_the_preparation_again(
    open_lab: OpenLab, lose_lease: LoseLease, upstream: Upstream
) -> None:
    upstream.prepare(SILENCE, Reply(text=json.dumps({"content": "hello\n"})))
    lost = await open_lab(**upstream.settings)
    run_id = await lost.create([WRITE])
    await lost.until_step(run_id, "w", "preparing")
    await called(upstream, 1)
    await lose_lease(lost)
    successor = await open_lab(**upstream.settings)
    await successor.approve(run_id, "w")
    await successor.until_status(run_id, "completed")
    assert (successor.workspace / "a.txt").read_text() == "hello\n"
    await successor.verify(run_id)


async def test_while_a_model_writes_another_run_can_change_the_workspace(asking: Lab, upstream: Upstream) -> None:
    upstream.prepare(SILENCE)
    writing = await asking.create([WRITE])
    await called(upstream, 1)
    other = await asking.create([{"key": "e", "type": "edit_file", "input": {"path": "b.txt", "content": "b\n"}}])
    await asking.approve(other, "e")
    await asking.until_status(other, "completed")
    assert (await asking.step(writing, "w")).status == "preparing"
    await asking.engine.cancel(writing, PERSON)
    await asking.until_status(writing, "cancelled")
