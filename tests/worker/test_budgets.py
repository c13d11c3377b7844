"""Budgets that hold: whatever is asked at once, in however many processes, nobody spends more than there is."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.domain.ids import RunId
from stepgate.domain.state import RunState
from stepgate.engine.engine import NewRun
from stepgate.engine.model_calls import JournaledModels
from stepgate.storage.budgets import SharedBudgets
from tests.fixtures.patience import PATIENCE_S
from tests.worker.conftest import LoseLease, OpenLab
from tests.worker.lab import PERSON, Lab, eventually, statuses, step_of
from tests.worker.test_takeover import Begin, begin
from tests.worker.upstream import SILENCE, Reply, Upstream, serving

__all__ = ["begin"]

ASK = {"key": "a", "type": "analyze", "input": {"instruction": "why?"}, "retry": {"max_attempts": 1}}
UNSAID = Reply(headers=(), usage=None)
"""An answer that says neither tokens nor cost: nobody knows, so its worst case counts."""
PRICED = {"model_prices": "m1=10:20", "model_max_output_tokens": 100}


@pytest.fixture
async def upstream(superuser: Any) -> AsyncIterator[Upstream]:
    async with serving(superuser) as served:
        yield served


@pytest.fixture
async def lab(open_lab: OpenLab, upstream: Upstream) -> Lab:
    return await open_lab(**upstream.settings, **PRICED)


def asks(count: int) -> list[dict[str, Any]]:
    """Steps that all ask at once."""
    return [{**ASK, "key": f"a{number}", "needs": []} for number in range(count)]


async def worst(lab: Lab) -> int:
    """How many tokens one of these calls may take, as its budget says."""
    run_id = await lab.create([ASK], limits={"tokens": 1_000_000})
    await lab.until_status(run_id, "completed")
    events = await lab.stack.queries.events(run_id, limit=200)
    (called,) = [event for event in events.items if event.type == "model.called"]
    return int(called.data["worst"]["tokens"])


async def alerts(lab: Lab, *run_ids: RunId) -> list[int]:
    found = []
    for run_id in run_ids:
        events = (await lab.stack.queries.events(run_id, limit=200)).items
        found += [event.data["percent"] for event in events if event.type == "budget.alerted"]
    return found


async def spent(superuser: Any) -> list[tuple[Any, ...]]:
    query = "SELECT spent_tokens, held_tokens, unknown_calls, told FROM stepgate.budgets ORDER BY id"
    return [tuple(row) for row in await superuser.fetch(query)]


async def until_called(upstream: Upstream, count: int) -> None:
    async def arrived() -> bool:
        return len(upstream.known) == count

    await eventually(arrived, lambda: upstream.known)


async def test_fifty_steps_at_once_make_the_ten_calls_that_their_run_can_pay(lab: Lab, upstream: Upstream) -> None:
    upstream.prepare(UNSAID)
    each = await worst(lab)
    before = len(upstream.known)
    run_id = await lab.create(asks(50), limits={"tokens": 10 * each})
    state = await lab.until_status(run_id, "paused")
    assert (state.reason, len(upstream.known) - before) == ("budget", 10)
    kinds = list(statuses(state).values())
    assert (kinds.count("completed"), kinds.count("pending")) == (10, 40)
    assert all(step.attempt == 0 for _, step in state.steps.items() if step.status == "pending")
    view = await lab.stack.queries.run(run_id)
    assert [one.kind for one in view.waiting_for] == ["budget"]
    assert view.budget is not None
    assert (view.budget.spent.tokens, view.budget.percent) == (10 * each, 100)
    assert await alerts(lab, run_id) == [50, 80, 100]
    await lab.verify(run_id)


async def test_a_run_goes_on_where_it_stood_when_somebody_pays(lab: Lab, upstream: Upstream) -> None:
    upstream.prepare(Reply())
    run_id = await lab.create([ASK, {**ASK, "key": "b"}], limits={"cost_usd": 0.251})
    state = await lab.until_status(run_id, "paused")
    assert statuses(state) == {"a": "completed", "b": "pending"}
    error = step_of(state, "b").error
    assert error is not None
    assert (error["code"], error["field"]) == ("budget_exhausted", "limits.cost_usd")
    assert "$0.001 are left" in error["message"]
    await lab.engine.extend_budget(run_id, PERSON, add_usd=Decimal("0.5"))
    assert (await lab.state(run_id)).phase == "paused"
    await lab.engine.resume(run_id, PERSON)
    state = await lab.until_status(run_id, "completed")
    assert (step_of(state, "b").attempt, state.usage.cost_usd) == (1, Decimal("0.5"))
    assert len(upstream.known) == 2
    await lab.verify(run_id)


async def test_a_model_without_a_price_is_not_asked_under_a_budget_of_money(
    open_lab: OpenLab, upstream: Upstream
) -> None:
    lab = await open_lab(**upstream.settings)
    run_id = await lab.create([ASK], limits={"cost_usd": "100"})
    error = step_of(await lab.until_status(run_id, "paused"), "a").error
    assert error is not None
    assert error["code"] == "price_unknown"
    assert upstream.known == []
    assert await alerts(lab, run_id) == []


async def test_the_offline_model_fits_into_a_budget_of_nothing(open_lab: OpenLab) -> None:
    lab = await open_lab()
    await SharedBudgets(lab.stack.database).set("default", ("", ""), Decimal(0), 0, "ada", daily=True)
    run_id = await lab.create([ASK], limits={"cost_usd": 0, "tokens": 0})
    await lab.until_status(run_id, "completed")


async def test_an_edit_that_nobody_can_pay_asks_no_question_without_a_preview(lab: Lab, upstream: Upstream) -> None:
    edit = {"key": "w", "type": "edit_file", "input": {"path": "a.txt", "instruction": "say hello"}}
    run_id = await lab.create([edit], limits={"tokens": 10})
    state = await lab.until_status(run_id, "paused")
    assert (statuses(state), step_of(state, "w").approvals) == ({"w": "pending"}, ())
    assert upstream.known == []
    await lab.verify(run_id)


async def test_where_no_router_says_the_cost_the_table_does(lab: Lab, upstream: Upstream) -> None:
    upstream.prepare(Reply(headers=()))
    run_id = await lab.create([ASK])
    await lab.until_status(run_id, "completed")
    cost = await lab.stack.costs.of_run(run_id)
    assert cost.total_cost_usd == "0.0002"
    assert [one.source for one in cost.by_source] == ["priced"]


async def test_calls_of_two_processes_hold_the_same_budget(
    open_lab: OpenLab, begin: Begin, upstream: Upstream, superuser: Any
) -> None:
    """Fifty calls in ten runs, ten of them paid for: each process makes five while the other's are under way."""
    upstream.prepare(UNSAID)
    lab = await open_lab(**upstream.settings, **PRICED)
    each = await worst(lab)
    await lab.worker.stop()
    upstream.known.clear()
    upstream.late = UNSAID
    upstream.prepare(SILENCE)
    await SharedBudgets(lab.stack.database).set("default", ("team", "blue"), None, 10 * each, "ada", daily=False)
    ids = [await lab.create(asks(5), labels={"team": "blue"}) for _ in range(10)]
    await begin(**upstream.settings, **PRICED, worker_batch_size=1).ready()
    await until_called(upstream, 5)
    second = await open_lab(**upstream.settings, **PRICED, worker_check_interval=0.1)
    await second.until(ids[-1], lambda state: state.phase in ("paused", "pausing"))
    await until_called(upstream, 10)
    upstream.awake.set()
    states = [await second.until(run_id, lambda state: state.phase in ("paused", "completed")) for run_id in ids]
    assert len(upstream.known) == 10
    assert {state.reason for state in states if state.phase == "paused"} == {"budget"}
    done = [status for state in states for status in statuses(state).values()]
    assert (done.count("completed"), done.count("pending")) == (10, 40)
    assert await spent(superuser) == [(10 * each, 0, 10, 100)]
    assert sorted(await alerts(second, *ids)) == [50, 80, 100]
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.budget_holds") == 0
    for run_id in ids:
        await second.verify(run_id)


async def test_a_run_under_another_label_pays_for_itself(lab: Lab, upstream: Upstream) -> None:
    await SharedBudgets(lab.stack.database).set("default", ("team", "blue"), Decimal(0), None, "ada", daily=True)
    free = await lab.create([ASK], labels={"team": "red"})
    await lab.until_status(free, "completed")
    blue = await lab.create([ASK], labels={"team": "blue"})
    state = await lab.until_status(blue, "paused")
    error = step_of(state, "a").error
    assert error is not None
    assert "the daily budget of team=blue" in error["message"]


async def test_a_call_that_was_lost_with_its_worker_counts_as_its_worst_case(
    open_lab: OpenLab, lose_lease: LoseLease, upstream: Upstream, superuser: Any
) -> None:
    upstream.prepare(SILENCE, Reply())
    lost = await open_lab(**upstream.settings, **PRICED)
    await SharedBudgets(lost.stack.database).set("default", ("", ""), None, 1_000_000, "ada", daily=True)
    run_id = await lost.create([ASK], limits={"tokens": 1_000_000})
    await until_called(upstream, 1)
    ((_, held, _, _),) = await spent(superuser)
    await lose_lease(lost)
    successor = await open_lab(**upstream.settings, **PRICED)
    state: RunState = await successor.until_status(run_id, "completed")
    upstream.awake.set()
    await lost.until_idle()
    assert state.budget.spent.tokens == held + 15
    assert await spent(superuser) == [(held + 15, 0, 1, 0)]
    await successor.verify(run_id)


async def test_a_call_stopped_before_it_left_holds_nothing(
    lab: Lab, upstream: Upstream, superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await SharedBudgets(lab.stack.database).set("default", ("", ""), None, 1_000_000, "ada", daily=True)
    at_it, go_on = asyncio.Event(), asyncio.Event()
    spending = lab.worker._tools.spending
    hold = spending.holds.hold

    async def slow(*arguments: Any) -> Any:
        held = await hold(*arguments)
        at_it.set()
        await go_on.wait()
        return held

    take_back = JournaledModels._take_back

    async def stopped(*arguments: Any) -> None:
        go_on.set()
        await take_back(*arguments)

    monkeypatch.setattr(spending.holds, "hold", slow)
    monkeypatch.setattr(JournaledModels, "_take_back", stopped)
    run_id = await lab.create([ASK])
    await asyncio.wait_for(at_it.wait(), PATIENCE_S)
    await lab.engine.pause(run_id, PERSON)
    await lab.until_status(run_id, "paused")
    assert await spent(superuser) == [(0, 0, 0, 0)]
    assert upstream.known == []
    await lab.verify(run_id)


async def test_what_no_worker_will_look_at_again_is_counted_when_the_next_one_starts(
    open_lab: OpenLab, upstream: Upstream, superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was away just when the call was to be counted, and the run has ended."""
    lab = await open_lab(**upstream.settings, **PRICED)
    await SharedBudgets(lab.stack.database).set("default", ("", ""), None, 1_000_000, "ada", daily=True)

    async def away(*arguments: Any, **more: Any) -> Any:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(lab.worker._tools.spending.holds, "settle", away)
        await lab.until_status(await lab.create([ASK]), "completed")
    assert (await spent(superuser))[0][0] == 0
    await lab.until_idle()
    await open_lab(**upstream.settings, **PRICED)
    assert await spent(superuser) == [(15, 0, 0, 0)]


async def test_what_could_not_be_counted_is_counted_when_the_run_goes_on(
    lab: Lab, upstream: Upstream, superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was away just when the call was to be counted, and no other call of the run is open."""
    await SharedBudgets(lab.stack.database).set("default", ("", ""), None, 1_000_000, "ada", daily=True)

    async def away(*arguments: Any, **more: Any) -> Any:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(lab.worker._tools.spending.holds, "settle", away)
        gated = {"key": "b", "type": "edit_file", "input": {"path": "b.txt", "content": "b"}}
        run_id = await lab.create([ASK, gated])
        await lab.until_step(run_id, "b", "awaiting_approval")
        await lab.until_idle()
    assert (await spent(superuser))[0][0] == 0
    await lab.approve(run_id, "b")
    await lab.until_status(run_id, "completed")
    assert await spent(superuser) == [(15, 0, 0, 0)]


async def test_a_plan_that_a_model_writes_is_paid_like_any_call(lab: Lab, upstream: Upstream) -> None:
    steps = [{"key": "look", "type": "read_file", "input": {"path": "a.txt"}, "why": "to see it"}]
    (lab.workspace / "a.txt").write_text("x")
    upstream.prepare(Reply(text=json.dumps({"steps": steps})))
    new = NewRun(goal="look", workspace_path=str(lab.workspace), limits={"tokens": 10})
    run_id = (await lab.engine.create(new, PERSON)).info.id
    await lab.engine.start(run_id, PERSON)
    state = await lab.until_status(run_id, "paused")
    assert (state.reason, upstream.known) == ("budget", [])
    await lab.engine.extend_budget(run_id, PERSON, add_tokens=100_000)
    await lab.engine.resume(run_id, PERSON)
    state = await lab.until_status(run_id, "completed")
    assert "look" in statuses(state)
    assert (await lab.stack.costs.of_run(run_id)).total_cost_usd == "0.25"
    await lab.verify(run_id)


async def test_an_answer_that_was_kept_fits_into_a_budget_of_nothing(open_lab: OpenLab, upstream: Upstream) -> None:
    lab = await open_lab(**upstream.settings, **PRICED, model_cache="requester")
    await lab.until_status(await lab.create([ASK]), "completed")
    run_id = await lab.create([ASK], limits={"tokens": 0})
    await lab.until_status(run_id, "completed")
    assert len(upstream.known) == 1
    await lab.verify(run_id)


async def test_a_day_begins_with_nothing_spent(lab: Lab, upstream: Upstream, superuser: Any) -> None:
    upstream.prepare(UNSAID)
    each = await worst(lab)
    await SharedBudgets(lab.stack.database).set("default", ("", ""), None, each, "ada", daily=True)
    first = await lab.create([ASK])
    await lab.until_status(first, "completed")
    second = await lab.create([ASK])
    await lab.until_status(second, "paused")
    await superuser.execute("UPDATE stepgate.budgets SET day = day - 1")
    await lab.engine.resume(second, PERSON)
    await lab.until_status(second, "completed")
    assert await spent(superuser) == [(each, 0, 1, 100)]
    assert await alerts(lab, first, second) == [50, 80, 100, 50, 80, 100]


async def test_an_alert_is_told_once_although_its_worker_was_lost_before_it_could(
    open_lab: OpenLab, lose_lease: LoseLease, upstream: Upstream, superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await open_lab(**upstream.settings, **PRICED)
    await SharedBudgets(lost.stack.database).set("default", ("", ""), None, 2000, "ada", daily=True)
    settled, never = asyncio.Event(), asyncio.Event()
    spending = lost.worker._tools.spending
    settle = spending.holds.settle

    async def half(*arguments: Any, **more: Any) -> Any:
        found = await settle(*arguments, **more)
        settled.set()
        await never.wait()
        return found

    upstream.prepare(Reply(usage=(1000, 10)), Reply(usage=(1, 1)))
    monkeypatch.setattr(spending.holds, "settle", half)
    run_id = await lost.create([ASK])
    await asyncio.wait_for(settled.wait(), PATIENCE_S)
    await lose_lease(lost)
    successor = await open_lab(**upstream.settings, **PRICED)
    await successor.until_status(run_id, "completed")
    assert await alerts(successor, run_id) == [50]
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.budget_holds") == 0
    never.set()
    await lost.until_idle()
    assert await alerts(successor, run_id) == [50]
    await successor.verify(run_id)
