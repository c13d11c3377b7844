"""Events are only ever added, by anyone, in every partition; the application's role may not do more than it must."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from stepgate.domain.ids import WorkspaceId, new_id
from stepgate.storage.committer import Committer
from stepgate.storage.database import APP_ROLE, Database
from tests.storage.building import chain, create

PARTITION_OF = "SELECT tableoid::regclass::text FROM stepgate.events WHERE run_id = $1 LIMIT 1"
INSERT = """
INSERT INTO stepgate.events (run_id, seq, type, actor, at, body, prev_hash, hash)
VALUES ($1, 1, 'run.created', 'ada', now(), '{}', decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'))
"""


def this_month() -> str:
    return f"stepgate.events_p{datetime.now(UTC):%Y_%m}"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET actor = 'eve'",
        "DELETE FROM {}",
        "TRUNCATE {}",
    ],
)
@pytest.mark.parametrize("where", ["stepgate.events", "this month", "stepgate.events_default"])
async def test_even_the_owner_is_refused_a_change(
    committer: Committer, workspace_id: WorkspaceId, superuser: Any, statement: str, where: str
) -> None:
    await create(committer, workspace_id, chain(1))
    await superuser.execute(INSERT, "01000000-0000-7000-8000-000000000000")
    target = this_month() if where == "this month" else where
    assert await superuser.fetchval(f"SELECT count(*) FROM {target}") > 0
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await superuser.execute(statement.format(target))


async def test_the_application_may_only_add_and_read_events(
    database: Database, committer: Committer, workspace_id: WorkspaceId
) -> None:
    await create(committer, workspace_id, chain(1))
    connection = await database.connect("test")
    try:
        assert await connection.fetchval("SELECT current_user") == APP_ROLE
        assert await connection.fetchval("SELECT count(*) FROM stepgate.events") == 3
        for statement in ("UPDATE stepgate.events SET actor = ''", "DELETE FROM stepgate.events"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("ALTER TABLE stepgate.runs DISABLE TRIGGER ALL")
    finally:
        await connection.close()


async def test_a_run_lies_in_the_partition_of_its_month(
    committer: Committer, workspace_id: WorkspaceId, superuser: Any
) -> None:
    state = await create(committer, workspace_id, chain(1))
    assert await superuser.fetchval(PARTITION_OF, state.info.id) == this_month()


async def test_a_run_from_a_month_without_a_partition_is_kept_too(superuser: Any) -> None:
    old = "01000000-0000-7000-8000-000000000000"
    await superuser.execute(INSERT, old)
    assert await superuser.fetchval(PARTITION_OF, old) == "stepgate.events_default"


async def test_partitions_are_made_ahead_and_only_once(superuser: Any) -> None:
    ensure = "SELECT stepgate.ensure_event_partitions($1)"
    count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'stepgate.events'::regclass"
    assert await superuser.fetchval(ensure, 12) == 0
    before = await superuser.fetchval(count)
    assert await superuser.fetchval(ensure, 15) == 3
    assert await superuser.fetchval(ensure, 15) == 0
    assert await superuser.fetchval(count) == before + 3


async def test_a_month_whose_events_lie_in_the_default_partition_stays_there(superuser: Any) -> None:
    future = await superuser.fetchval("SELECT stepgate.first_id(now() + interval '20 months')::text")
    await superuser.execute(INSERT, future)
    made = await superuser.fetchval("SELECT stepgate.ensure_event_partitions(24)")
    assert made == 11
    assert await superuser.fetchval(PARTITION_OF, future) == "stepgate.events_default"


async def test_a_new_partition_refuses_changes_as_well(superuser: Any) -> None:
    await superuser.execute("SELECT stepgate.ensure_event_partitions(14)")
    run_id = await superuser.fetchval("SELECT stepgate.first_id(now() + interval '14 months')::text")
    await superuser.execute(INSERT, run_id)
    partition = await superuser.fetchval(PARTITION_OF, run_id)
    assert partition not in ("stepgate.events_default", this_month())
    for statement in (f"DELETE FROM {partition}", f"TRUNCATE {partition}"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await superuser.execute(statement)


async def test_the_first_id_of_a_moment_comes_before_every_id_made_after_it(superuser: Any) -> None:
    low, high = await superuser.fetchrow(
        "SELECT stepgate.first_id(now() - age)::text, stepgate.first_id(now() + age)::text"
        " FROM (SELECT interval '1 minute' AS age) AS ages"
    )
    assert low < new_id() < high
