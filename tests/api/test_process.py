"""Worker, health, step types: what this process can do."""

from contextlib import AsyncExitStack, suppress

import asyncpg

from stepgate.storage.database import Database
from tests.api.conftest import Api

READ = {"key": "read", "type": "read_file", "input": {"path": "a.txt"}}


def test_the_queue_is_told_where_nobody_works(api: Api) -> None:
    assert api.get("/worker/status") == {
        "running": False,
        "check_interval": 0.2,
        "workers": 0,
        "due": 0,
        "oldest_due_s": None,
    }
    api.run([READ], start=True)
    status = api.get("/worker/status")
    assert status["due"] == 1
    assert status["oldest_due_s"] >= 0


def test_a_process_without_a_worker_takes_nothing_up(api: Api) -> None:
    response = api.send("/worker/process")
    assert response.status_code == 409
    assert response.json()["type"] == "urn:stepgate:error:no_worker"


def test_a_worker_takes_up_what_is_due(alone: Api) -> None:
    status = alone.get("/worker/status")
    assert (status["running"], status["workers"]) == (True, 1)
    path = f"/v1/agent-runs/{alone.run([READ], start=True)['id']}"
    assert alone.post("/worker/process")["claimed"] in (0, 1)
    alone.until(path, lambda run: run["status"] == "completed")
    assert alone.get("/worker/status")["due"] == 0


def test_health_tells_every_part(alone: Api) -> None:
    health = alone.get("/health")
    assert set(health) == {"status", "version", "database", "sandbox", "router", "worker", "policy"}
    assert set(health["sandbox"]) >= {"level", "canaries", "degraded"}
    assert health["database"]["ok"] is True
    assert health["router"]["status"] == "offline"
    assert health["worker"]["running"] is True
    assert health["policy"] == {"version": "builtin-1", "source": "builtin", "error": None}
    assert health["status"] == ("degraded" if health["sandbox"]["degraded"] else "ok")


def test_a_process_without_a_worker_is_well(api: Api) -> None:
    health = api.get("/health")
    assert (health["status"], health["worker"]["running"]) == ("ok", False)


def test_a_database_that_went_away_is_told_and_so_is_its_return(api: Api) -> None:
    """The service keeps answering, as a problem, and needs no restart."""
    database: Database = api.stack.database
    name = database.engine.url.database
    api.do(_close_door(database, open_=False))
    try:
        health = api.client.get("/health")
        assert health.status_code == 503
        assert health.json()["status"] == "down"
        assert health.json()["database"]["error"]
        response = api.client.get("/v1/agent-runs")
        assert response.status_code == 503
        assert response.json()["type"] == "urn:stepgate:error:database_unavailable"
        assert response.headers["retry-after"] == "1"
    finally:
        api.do(_close_door(database, open_=True))
    assert name
    assert api.get("/health")["status"] == "ok"
    assert api.get("/v1/agent-runs")["items"] == []


async def _close_door(database: Database, *, open_: bool) -> None:
    """Lets nobody in any more and throws out whoever is, or lets them in again."""
    name = database.engine.url.database
    connection = await asyncpg.connect(**{**database._arguments(), "database": "postgres"})
    try:
        await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {str(open_).lower()}')
        if not open_:
            with suppress(asyncpg.PostgresError):
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
                )
    finally:
        await connection.close()


def test_a_request_that_gets_no_connection_is_told_to_come_again(api: Api) -> None:
    database = api.stack.database
    pool = database.engine.sync_engine.pool
    pool._timeout = 0.2  # type: ignore[attr-defined]
    held = AsyncExitStack()

    async def hold() -> None:
        for _ in range(pool.size()):  # type: ignore[attr-defined]
            await held.enter_async_context(database.begin())

    api.do(hold())
    try:
        response = api.client.get("/v1/agent-runs")
        assert response.status_code == 503
        assert "busy" in response.json()["detail"]
    finally:
        api.do(held.aclose())
    assert api.client.get("/v1/agent-runs").status_code == 200


def test_step_types_bring_the_schema_of_their_input(api: Api) -> None:
    types = {one["type"]: one for one in api.get("/v1/step-types")["items"]}
    assert {"read_file", "edit_file", "run_command", "analyze", "summarize"} <= set(types)
    assert "undo" not in types
    assert (types["read_file"]["gate"], types["edit_file"]["gate"]) == ("allow", "ask")
    assert types["edit_file"]["effect"] == "workspace"
    assert "path" in types["read_file"]["input_schema"]["properties"]
