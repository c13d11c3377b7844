"""Where the database cannot be used the message says why, never with the password; its time is ours."""

import asyncio
import time
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from stepgate.domain import commands as c
from stepgate.domain.errors import Conflict, DatabaseUnavailable, SchemaMismatch
from stepgate.domain.ids import WorkspaceId
from stepgate.storage import migrations, schema
from stepgate.storage.clock import DatabaseClock
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from stepgate.storage.errors import is_lost, is_transient, translate
from tests.storage.building import PERSON, chain, create


async def test_a_database_that_is_down_is_named_without_its_password() -> None:
    database = Database("postgresql://ada:secret@127.0.0.1:1/stepgate")
    with pytest.raises(DatabaseUnavailable) as refused:
        await database.open()
    assert "127.0.0.1:1" in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_a_database_that_does_not_exist_is_unavailable(database_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        await Database(database_url.replace("/test_", "/no_test_")).open()


async def test_a_database_that_was_never_migrated_says_what_to_run(empty_database_url: str) -> None:
    with pytest.raises(SchemaMismatch) as refused:
        await Database(empty_database_url).open()
    assert refused.value.fix == "run: stepgate migrate"


async def test_a_database_newer_than_the_code_is_refused(database_url: str, superuser: Any) -> None:
    await superuser.execute("UPDATE stepgate.alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaMismatch, match="9999"):
        await Database(database_url).open()


async def test_upgrade_brings_an_empty_database_to_the_newest_schema(empty_database_url: str) -> None:
    assert await schema.state(empty_database_url) == (None, migrations.head())
    before = await schema.upgrade(empty_database_url)
    assert not before.fits
    assert (await schema.state(empty_database_url)).fits
    database = Database(empty_database_url)
    await database.open()
    await database.close()


async def test_the_state_of_a_schema_that_cannot_be_reached_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        await schema.state("postgresql://ada@127.0.0.1:1/stepgate")


async def test_a_user_without_the_role_works_with_its_own_rights(database_url: str, superuser: Any) -> None:
    user = f"plain_{superuser.get_server_pid()}"
    await superuser.execute(f"CREATE ROLE {user} LOGIN")
    try:
        await superuser.execute(f"GRANT USAGE ON SCHEMA stepgate TO {user}")
        await superuser.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA stepgate TO {user}")
        database = Database(database_url.replace("postgres@", f"{user}@"))
        await database.open()
        async with database.raw() as connection:
            assert await connection.fetchval("SELECT current_user") == user
        await database.close()
    finally:
        await superuser.execute(f"DROP OWNED BY {user}")
        await superuser.execute(f"DROP ROLE {user}")


async def test_nothing_is_kept_in_a_session_behind_a_pooler(database_url: str, superuser: Any) -> None:
    database = Database(database_url, pooler=True)
    await database.open()
    committer = Committer(database)
    await committer.start()
    workspace = await superuser.fetchval(
        "INSERT INTO stepgate.workspaces (id, pool, root, mode, created_at)"
        " VALUES (gen_random_uuid(), 'default', '/p', 'in_place', now()) RETURNING id::text"
    )
    state = await create(committer, workspace, chain(1))
    async with database.begin() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM stepgate.runs")) == 1
    async with database.raw() as raw:
        named = await raw.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name NOT LIKE 'stepgate_%'")
        assert named == 0
    assert (await committer.load(state.info.id)) == state
    await committer.stop()
    await database.close()


async def test_a_pool_recovers_from_killed_connections(
    database: Database, committer: Committer, workspace_id: WorkspaceId, superuser: Any
) -> None:
    state = await create(committer, workspace_id, chain(2))
    await superuser.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'stepgate queries'"
    )
    paused, _ = await committer.submit_once(state.info.id, c.Pause(PERSON))
    assert paused.phase == "paused"


async def test_the_clock_is_the_databases(database: Database, superuser: Any) -> None:
    query = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    for _ in range(5):
        sent = time.monotonic_ns()
        server = await superuser.fetchval(query)
        database.clock.learn(server, sent, time.monotonic_ns())
    before = await superuser.fetchval(query)
    now = database.clock.now()
    after = await superuser.fetchval(query)
    assert before - 100_000 <= now <= after + 100_000


def test_the_clock_moves_no_further_than_an_answer_demands(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = DatabaseClock()
    with pytest.raises(RuntimeError):
        clock.now()
    monkeypatch.setattr(time, "monotonic_ns", lambda: 1_000_000_000)
    clock.learn(server=5_000_000, sent=999_000_000, received=1_000_000_000)
    assert clock.now() == 5_000_000, "as if it was read when the answer came: never ahead of the database"
    clock.learn(server=5_000_000, sent=0, received=1_000_000_000)
    assert clock.now() == 5_000_000, "a slow answer that allows the present offset changes nothing"
    clock.learn(server=5_000_300, sent=999_800_000, received=1_000_000_000)
    assert clock.now() == 5_000_300, "a faster answer shows that more time has passed"
    clock.learn(server=5_009_000, sent=1_000_000_000, received=1_000_000_000)
    assert clock.now() == 5_009_000, "the database's clock was set forward"


@pytest.mark.parametrize(
    ("error", "lost", "transient"),
    [
        (ConnectionResetError("gone"), True, False),
        (asyncpg.ConnectionDoesNotExistError("gone"), True, False),
        (asyncpg.AdminShutdownError("stopping"), True, False),
        (asyncpg.InterfaceError("connection is closed"), True, False),
        (TimeoutError(), True, False),
        (asyncpg.DeadlockDetectedError("again"), False, True),
        (asyncpg.SerializationError("again"), False, True),
        (asyncpg.UniqueViolationError("twice"), False, False),
        (ValueError("ours"), False, False),
    ],
)
def test_the_drivers_errors_are_told_apart(error: BaseException, lost: bool, transient: bool) -> None:
    assert (is_lost(error), is_transient(error)) == (lost, transient)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError("refused"), DatabaseUnavailable),
        (asyncpg.InvalidPasswordError("no"), DatabaseUnavailable),
        (asyncpg.TooManyConnectionsError("full"), DatabaseUnavailable),
        (asyncpg.UndefinedTableError("no such table"), SchemaMismatch),
        (asyncpg.DeadlockDetectedError("again"), Conflict),
    ],
)
def test_the_drivers_errors_become_ours(error: BaseException, expected: type[Exception]) -> None:
    assert isinstance(translate(error, "host:5432"), expected)


def test_an_error_that_is_not_the_databases_stays_what_it_is() -> None:
    assert translate(ValueError("ours"), "host:5432") is None


async def test_a_connection_of_ones_own_works_in_any_loop(database: Database) -> None:
    async def ask() -> Any:
        connection = await database.connect("elsewhere")
        try:
            return await connection.fetchval("SHOW application_name")
        finally:
            await connection.close()

    assert await asyncio.to_thread(lambda: asyncio.run(ask())) == "stepgate elsewhere"
