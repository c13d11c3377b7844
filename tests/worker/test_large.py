"""A run of ten thousand steps: each costs what a step of a small run costs."""

import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from stepgate.domain import evolve as evolving
from stepgate.domain.ids import RunId
from stepgate.storage.committer import Committer
from stepgate.storage.steps import Steps
from stepgate.worker.driver import Driver
from tests.worker.conftest import OpenLab
from tests.worker.lab import Lab, Plan

MANY = 10_000
CHUNK_BYTES = 4 * 1024 * 1024
"""What one state of the run and the inputs of its open steps may take, generously."""


def chain(count: int) -> Plan:
    return [{"key": f"n{number}", "type": "noop", "input": {}} for number in range(count)]


def wide(count: int) -> Plan:
    return [{"key": f"n{number}", "type": "noop", "input": {}, "needs": []} for number in range(count)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the worker did what must not grow with the run."""
    counts = Counter[str]()

    def count(owner: Any, name: str, size: Any = None) -> None:
        original = getattr(owner, name)

        def wrapped(self: Any, *args: Any, **more: Any) -> Any:
            counts[name] += 1 if size is None else size(self)
            return original(self, *args, **more)

        monkeypatch.setattr(owner, name, wrapped)

    count(Driver, "_fill", lambda driver: len(driver.handle.state.ready) + len(driver.handle.state.in_flight))
    count(Committer, "submit")
    count(Committer, "refresh")
    count(Steps, "input")
    count(Steps, "outputs")
    original = evolving.evolve

    def evolve(state: Any, event: Any) -> Any:
        counts["evolve"] += 1
        return original(state, event)

    monkeypatch.setattr("stepgate.domain.decide.turn.evolve", evolve)
    return counts


async def finished(lab: Lab, run_id: RunId) -> None:
    """Seldom looked at: reading a large run is not what is counted."""
    await lab.until_idle()
    await lab.until_status(run_id, "completed")


@pytest.mark.parametrize(("plan", "count"), [(chain, MANY // 4), (wide, MANY)], ids=["in a row", "side by side"])
async def test_ten_thousand_steps_cost_ten_thousand_times_one(
    open_lab: OpenLab, counted: Counter[str], plan: Callable[[int], Plan], count: int
) -> None:
    lab = await open_lab(worker=False)
    run_id = await lab.create(plan(count))
    await lab.stack.start_worker()
    await finished(lab, run_id)
    state = await lab.state(run_id)
    assert (state.status, state.done, state.open) == ("completed", count, 0)
    assert counted["submit"] == count
    assert counted["evolve"] <= count + 10
    assert counted["_fill"] <= 3 * count
    assert counted["input"] == counted["outputs"] == 0
    assert counted["refresh"] <= 5
    query = await lab.stack.queries.verify(run_id)
    assert query.verified


async def test_the_worker_keeps_no_more_of_a_large_run_than_its_state(open_lab: OpenLab) -> None:
    lab = await open_lab(worker=False)
    run_id = await lab.create(chain(2000))
    await lab.stack.start_worker()
    tracemalloc.start()
    try:
        await finished(lab, run_id)
        lab.stack.committer._direct._cache.clear()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < CHUNK_BYTES
