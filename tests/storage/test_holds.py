"""Budgets that runs share, under many hands: held in all of them or in none, counted once, never overspent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

import pytest

from stepgate.domain.budget import Charge
from stepgate.domain.errors import LeaseLost
from stepgate.domain.ids import CallId, RunId, WorkspaceId, new_id
from stepgate.storage.budgets import BudgetRow, SharedBudgets
from stepgate.storage.claim import Claims
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from stepgate.storage.holds import Holds
from tests.storage.building import chain, claim_one, create

WORST = Charge(Decimal("0.1"), 100)
ALL, CORE = ("", ""), ("team", "core")


@pytest.fixture
async def others(database_url: str) -> AsyncIterator[list[Database]]:
    """Two processes, as far as the database can tell."""
    async with AsyncExitStack() as exits:
        opened = []
        for _ in range(2):
            database = Database(database_url)
            await database.open()
            exits.push_async_callback(database.close)
            opened.append(database)
        yield opened


@pytest.fixture
async def run(committer: Committer, claims: Claims, workspace_id: WorkspaceId) -> tuple[RunId, int]:
    """A claimed run of the label `team=core`, and its lease's number."""
    made = await create(committer, workspace_id, chain(1))
    claim = await claim_one(claims)
    return made.info.id, claim.handle.epoch or 0


def call() -> CallId:
    return CallId(new_id())


async def budget(
    database: Database, label: tuple[str, str] = ALL, *, usd: str | None = None, tokens: int | None = None
) -> BudgetRow:
    limit = None if usd is None else Decimal(usd)
    return await SharedBudgets(database).set("default", label, limit, tokens, "ada", daily=label == ALL)


async def standing(database: Database) -> list[tuple[Any, ...]]:
    rows = await SharedBudgets(database).page("default", "00000000-0000-0000-0000-000000000000", 10)
    return [(row.spent_usd, row.spent_tokens, row.held_usd, row.held_tokens, row.unknown_calls) for row in rows]


async def test_of_fifty_calls_from_two_processes_ten_are_held(
    others: list[Database], database: Database, run: tuple[RunId, int]
) -> None:
    await budget(database, usd="1")
    await budget(database, CORE, tokens=5000)
    holds = [Holds(other) for other in others]
    ids = [call() for _ in range(50)]
    found = await asyncio.gather(*(holds[n % 2].hold(*run, id_, WORST) for n, id_ in enumerate(ids)))
    held = [id_ for id_, one in zip(ids, found, strict=True) if one.shortage is None]
    assert len(held) == 10
    assert sum(len(one.alerts) for one in found) == 3
    assert await standing(database) == [(0, 0, 1, 1000, 0), (0, 0, 1, 1000, 0)]
    spent = Charge(Decimal("0.04"), 7)
    twice = [holds[n].settle(id_, spent) for id_ in held for n in (0, 1)]
    await asyncio.gather(*twice)
    assert await standing(database) == [(Decimal("0.4"), 70, 0, 0, 0)] * 2


async def test_what_does_not_fit_into_one_budget_is_held_in_none(database: Database, run: tuple[RunId, int]) -> None:
    await budget(database, usd="1")
    await budget(database, CORE, usd="0.05")
    found = await Holds(database).hold(*run, call(), WORST)
    assert found.shortage is not None
    assert (found.name, found.shortage.left) == ("the budget of team=core", Decimal("0.05"))
    assert [alert.percent for alert in found.alerts] == [100]
    assert await standing(database) == [(0, 0, 0, 0, 0)] * 2


async def test_a_lease_that_is_lost_holds_nothing(database: Database, run: tuple[RunId, int]) -> None:
    await budget(database, usd="1")
    with pytest.raises(LeaseLost):
        await Holds(database).hold(run[0], run[1] - 1, call(), WORST)
    assert await standing(database) == [(0, 0, 0, 0, 0)]


async def test_a_run_that_shares_no_budget_is_told_so(database: Database, run: tuple[RunId, int]) -> None:
    await budget(database, ("team", "edge"), usd="0")
    found = await Holds(database).hold(*run, call(), WORST)
    assert (found.budgets, found.shortage, found.alerts) == (0, None, [])


async def test_what_yesterday_held_is_not_counted_today(
    database: Database, run: tuple[RunId, int], superuser: Any
) -> None:
    await budget(database, tokens=150)
    holds, first, second = Holds(database), call(), call()
    await holds.hold(*run, first, WORST)
    await superuser.execute("UPDATE stepgate.budgets SET day = day - 1; UPDATE stepgate.budget_holds SET day = day - 1")
    assert (await holds.hold(*run, second, WORST)).shortage is None
    await holds.settle(first, WORST)
    assert await standing(database) == [(0, 0, Decimal("0.1"), 100, 0)]
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.budget_holds") == 1


async def test_other_limits_keep_what_is_spent_and_tell_anew_what_they_put_out_of_reach(
    database: Database, run: tuple[RunId, int]
) -> None:
    made = await budget(database, tokens=100)
    holds, first = Holds(database), call()
    await holds.hold(*run, first, WORST)
    alerts = await holds.settle(first, Charge(Decimal("0.1"), 90), unknown=True)
    assert [alert.percent for alert in alerts] == [50, 80]
    changed = await budget(database, tokens=175)
    assert (changed.id, changed.spent_tokens, changed.unknown_calls) == (made.id, 90, 1)
    second = call()
    await holds.hold(*run, second, Charge(None, 80))
    assert [alert.percent for alert in await holds.settle(second, Charge(None, 60))] == [80]


async def test_a_budget_that_is_removed_takes_its_holds_along(
    database: Database, run: tuple[RunId, int], superuser: Any
) -> None:
    made = await budget(database, tokens=100)
    holds, first = Holds(database), call()
    await holds.hold(*run, first, WORST)
    assert await SharedBudgets(database).remove("other", made.id) is None
    assert await SharedBudgets(database).remove("default", made.id) is not None
    assert await holds.settle(first, WORST) == []
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.budget_holds") == 0
