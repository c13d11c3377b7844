"""The embedded server starts once for all, survives kills, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.storage.embedded import EmbeddedServer, acquire, launch, layout
from stepgate.storage.embedded.binaries import Binaries
from tests.fixtures.embedded import Client, eventually, is_silent
from tests.fixtures.patience import PATIENCE_S

StartClient = Callable[[Path], Client]


async def ask(server: EmbeddedServer, query: str) -> Any:
    connection = await asyncpg.connect(**server.dsn_kwargs())
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def pid_file_of_a_stranger(data: Path, pid: int) -> None:
    stale = [pid, data, 1, 5432, data.parent / "run", "", "12345 678", "ready"]
    (data / "postmaster.pid").write_text("".join(f"{line}\n" for line in stale))


def postmaster(state_dir: Path) -> int:
    return int(pid_file(state_dir)[0])


def pid_file(state_dir: Path) -> list[str]:
    """Its lines; a starting server makes the file anew, so it may be missing or unfinished for a moment."""
    lines: list[str] = []

    def is_complete() -> bool:
        nonlocal lines
        try:
            (path,) = state_dir.glob("postgres-*/postmaster.pid")
            lines = path.read_text().splitlines()
        except (OSError, ValueError):
            return False
        return len(lines) >= 8

    assert eventually(is_complete)
    return lines


def keeper_of(state_dir: Path) -> int:
    return int(Path(f"/proc/{postmaster(state_dir)}/stat").read_text().rpartition(")")[2].split()[1])


async def can_ask(server: EmbeddedServer) -> bool:
    try:
        return bool(await ask(server, "SELECT 1") == 1)
    except (OSError, asyncpg.PostgresError):
        return False


async def test_a_cold_start_gives_a_durable_database_that_no_network_reaches(state_dir: Path) -> None:
    with acquire(state_dir) as server:
        assert await ask(server, "SELECT current_database()") == "stepgate"
        assert await ask(server, "SHOW listen_addresses") == ""
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await ask(server, f"SHOW {setting}") == "on"
        assert await ask(server, "SHOW server_version") == server.version
        assert int(server.version.split(".")[0]) >= 14
        assert (server.binaries / "postgres").exists()


async def test_the_sqlalchemy_url_works(state_dir: Path) -> None:
    with acquire(state_dir, durable=False) as server:
        engine = create_async_engine(server.sqlalchemy_url())
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
        await engine.dispose()


async def test_a_warm_start_finds_what_was_written(state_dir: Path) -> None:
    with acquire(state_dir, durable=False) as server:
        await ask(server, "CREATE TABLE kept AS SELECT 41 + 1 AS answer")
    assert eventually(lambda: is_silent(state_dir))
    with acquire(state_dir, durable=False) as server:
        assert await ask(server, "SELECT answer FROM kept") == 42


async def test_the_database_is_made_again_when_somebody_dropped_it(state_dir: Path) -> None:
    with acquire(state_dir, durable=False) as server:
        connection = await asyncpg.connect(**server.dsn_kwargs("postgres"))
        await connection.execute("DROP DATABASE stepgate")
        await connection.close()
        with acquire(state_dir, durable=False) as again:
            assert await ask(again, "SELECT current_database()") == "stepgate"


def test_two_processes_share_one_server_until_the_last_ends(state_dir: Path, start_client: StartClient) -> None:
    client = start_client(state_dir)
    client.await_ready()
    first = postmaster(state_dir)
    server = acquire(state_dir, durable=False)
    client.end()
    assert postmaster(state_dir) == first
    assert not is_silent(state_dir)
    server.release()
    server.release()
    assert eventually(lambda: is_silent(state_dir))


def test_starters_at_the_same_time_get_the_same_server(state_dir: Path, start_client: StartClient) -> None:
    clients = [start_client(state_dir) for _ in range(4)]
    for client in clients:
        client.await_ready()
    assert postmaster(state_dir) > 0
    for client in clients:
        client.end()


def test_a_killed_client_leaves_no_server(state_dir: Path, start_client: StartClient) -> None:
    client = start_client(state_dir)
    client.await_ready()
    client.kill()
    assert eventually(lambda: is_silent(state_dir))


async def test_a_killed_server_is_started_again_with_its_data(state_dir: Path) -> None:
    with acquire(state_dir) as server:
        await ask(server, "CREATE TABLE kept AS SELECT 7 AS answer")
        killed = postmaster(state_dir)
        os.kill(killed, signal.SIGKILL)
        server.ensure()
        while not await can_ask(server):
            server.ensure()
        assert postmaster(state_dir) != killed
        assert await ask(server, "SELECT answer FROM kept") == 7


async def test_a_server_that_ends_after_it_was_found_ready_is_waited_for_again(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with acquire(state_dir) as server:
        await ask(server, "CREATE TABLE kept AS SELECT 7 AS answer")
        first, dying = postmaster(state_dir), iter([True])

        def ready_and_then_killed(place: layout.Layout, found: Binaries, deadline: float) -> None:
            await_ready(place, found, deadline)
            if next(dying, False):
                os.kill(first, signal.SIGKILL)
                assert eventually(lambda: not Path(f"/proc/{first}").exists())

        await_ready = launch.await_ready
        monkeypatch.setattr(launch, "await_ready", ready_and_then_killed)
        server.ensure()
        assert postmaster(state_dir) != first
        assert await ask(server, "SELECT answer FROM kept") == 7


def shared_memory(state_dir: Path) -> str:
    """The id of the server's System V segment."""
    return pid_file(state_dir)[6].split()[1]


def test_a_killed_server_leaves_no_shared_memory(state_dir: Path) -> None:
    with acquire(state_dir, durable=False) as server:
        killed, segment = postmaster(state_dir), shared_memory(state_dir)
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: postmaster(state_dir) != killed)
        server.ensure()
        segments = Path("/proc/sysvipc/shm").read_text().split()
        assert shared_memory(state_dir) in segments
        assert segment not in segments


async def test_a_killed_keeper_takes_the_server_along_and_a_client_can_bring_both_back(state_dir: Path) -> None:
    with acquire(state_dir) as server:
        await ask(server, "CREATE TABLE kept AS SELECT 7 AS answer")
        os.kill(keeper_of(state_dir), signal.SIGKILL)
        assert eventually(lambda: is_silent(state_dir))
        server.ensure()
        assert await ask(server, "SELECT answer FROM kept") == 7


async def test_an_orphaned_server_is_replaced_where_the_kernel_does_not_end_it(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "DIE_WITH_KEEPER", False)
    with acquire(state_dir, durable=False) as server:
        orphan = postmaster(state_dir)
        os.kill(keeper_of(state_dir), signal.SIGKILL)
        server.ensure()
        assert postmaster(state_dir) != orphan
        assert await ask(server, "SELECT 1") == 1


def test_a_stale_pid_file_harms_neither_the_start_nor_the_stranger_it_names(state_dir: Path) -> None:
    with acquire(state_dir, durable=False) as server:
        data = state_dir / f"postgres-{server.version.split('.')[0]}"
    assert eventually(lambda: is_silent(state_dir))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as stranger:
        pid_file_of_a_stranger(data, stranger.pid)
        with acquire(state_dir, durable=False):
            assert postmaster(state_dir) != stranger.pid
        assert eventually(lambda: is_silent(state_dir))
        assert stranger.poll() is None


async def test_a_half_made_data_folder_is_not_taken_for_one(state_dir: Path) -> None:
    with acquire(state_dir, durable=False) as server:
        data = state_dir / f"postgres-{server.version.split('.')[0]}"
    assert eventually(lambda: is_silent(state_dir))
    data.rename(data.with_name(data.name + ".partial"))
    with acquire(state_dir, durable=False) as server:
        assert await ask(server, "SELECT 1") == 1


def test_a_released_server_cannot_be_ensured(state_dir: Path) -> None:
    server = acquire(state_dir, durable=False)
    server.release()
    with pytest.raises(DatabaseUnavailable, match="released"):
        server.ensure()


def test_whoever_asks_for_durability_is_not_given_a_server_without(state_dir: Path) -> None:
    with (
        acquire(state_dir, durable=False),
        pytest.raises(DatabaseUnavailable, match="without protection against crashes"),
    ):
        acquire(state_dir)


def test_a_starter_that_cannot_get_the_lock_gives_up_in_time(state_dir: Path) -> None:
    held = layout.open_lock(state_dir / "start.lock")
    try:
        assert layout.try_lock(held)
        with pytest.raises(DatabaseUnavailable, match="another process"):
            acquire(state_dir, timeout_s=0.1)
    finally:
        os.close(held)


def test_a_long_state_folder_still_gets_a_socket(state_dir: Path) -> None:
    deep = state_dir / ("x" * 100)
    with acquire(deep, durable=False) as server:
        assert not server.host.startswith(str(state_dir))
        assert (Path(server.host) / layout.SOCKET_NAME).is_socket()
    assert eventually(lambda: is_silent(deep))
    Path(server.host).rmdir()


def test_the_server_keeps_none_of_its_starters_environment(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGATE_MODEL_KEY", "a-secret-value")
    with acquire(state_dir, durable=False):
        for pid in (postmaster(state_dir), keeper_of(state_dir)):
            assert b"a-secret-value" not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_variables_for_other_postgresql_clients_change_nothing(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGHOST": "nowhere.invalid", "PGPORT": "1", "PGUSER": "x", "PGSSLMODE": "require"}.items():
        monkeypatch.setenv(name, value)
    with acquire(state_dir, durable=False) as server:
        assert await ask(server, "SELECT current_user") == "postgres"
        engine = create_async_engine(server.sqlalchemy_url())
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT current_user")) == "postgres"
        await engine.dispose()


def test_it_needs_nothing_on_path(state_dir: Path) -> None:
    program = "import sys; from pathlib import Path; from stepgate.storage.embedded import acquire; "
    program += "acquire(Path(sys.argv[1]), durable=False).release()"
    environment = {name: value for name, value in os.environ.items() if name != "PATH"} | {"PATH": "/nonexistent"}
    subprocess.run([sys.executable, "-c", program, str(state_dir)], env=environment, check=True, timeout=PATIENCE_S)
