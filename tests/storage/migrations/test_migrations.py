"""The schema goes up and down, equals the tables in the code, and is refused where it does not fit."""

import asyncio
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from stepgate.domain.errors import DatabaseUnavailable, SchemaMismatch
from stepgate.storage import migrations
from tests.fixtures.database import CLUSTER_VARIABLE
from tests.fixtures.embedded import eventually, is_silent
from tests.fixtures.patience import PATIENCE_S

ROOT = Path(__file__).parents[3]
VERSIONS = Path("src/stepgate/storage/migrations/versions")


def start_alembic(url: str | None, *arguments: str, cwd: Path = ROOT, **variables: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPGATE_")}
    environment.pop("DATABASE_URL", None)
    environment |= variables | ({"DATABASE_URL": url} if url else {})
    command = [sys.executable, "-m", "alembic", *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end_alembic(process: "subprocess.Popen[str]") -> str:
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    return output


def alembic(url: str | None, *arguments: str, cwd: Path = ROOT, **variables: str) -> str:
    return end_alembic(start_alembic(url, *arguments, cwd=cwd, **variables))


async def current(url: str) -> str | None:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            return await migrations.current(connection)
    finally:
        await engine.dispose()


async def require_current(url: str) -> None:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            await migrations.require_current(connection)
    finally:
        await engine.dispose()


async def execute(url: str, statement: str) -> None:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(statement))
    finally:
        await engine.dispose()


def test_the_alembic_command_goes_up_down_and_up_and_finds_no_difference(empty_database_url: str) -> None:
    alembic(empty_database_url, "upgrade", "head")
    assert "No new upgrade operations detected" in alembic(empty_database_url, "check")
    alembic(empty_database_url, "downgrade", "-1")
    alembic(empty_database_url, "downgrade", "base")
    assert asyncio.run(current(empty_database_url)) is None
    alembic(empty_database_url, "upgrade", "head")
    assert "No new upgrade operations detected" in alembic(empty_database_url, "check")
    assert asyncio.run(current(empty_database_url)) == migrations.head()


def test_autogenerate_writes_a_revision_that_the_checks_accept(database_url: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    for folder in (Path("alembic"), VERSIONS):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = set((tmp_path / VERSIONS).glob("*.py"))
    alembic(database_url, "revision", "--autogenerate", "-m", "try it", cwd=tmp_path)
    (written,) = set((tmp_path / VERSIONS).glob("*.py")) - before
    subprocess.run([sys.executable, "-m", "ruff", "check", "--select", "E,I,UP", str(written)], check=True, cwd=ROOT)
    assert "op." not in written.read_text().partition("def upgrade")[2]


def test_without_a_url_the_alembic_command_uses_the_embedded_server() -> None:
    folder = Path(os.environ[CLUSTER_VARIABLE]) / "alembic"
    assert alembic(None, "current", STEPGATE_STATE_DIR=str(folder)) == ""
    assert list(folder.glob("postgres-*/PG_VERSION"))
    assert eventually(lambda: is_silent(folder))


def test_two_processes_that_upgrade_at_once_make_one_upgrade(empty_database_url: str) -> None:
    for process in [start_alembic(empty_database_url, "upgrade", "head") for _ in range(2)]:
        end_alembic(process)
    asyncio.run(require_current(empty_database_url))


def test_two_threads_that_upgrade_at_once_make_one_upgrade(empty_database_url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(migrations.upgrade, [empty_database_url] * 2))
    asyncio.run(require_current(empty_database_url))


def test_an_upgrade_that_is_done_changes_nothing(database_url: str) -> None:
    migrations.upgrade(database_url)
    asyncio.run(require_current(database_url))


def test_a_database_without_our_schema_is_refused_with_the_command_that_helps(empty_database_url: str) -> None:
    with pytest.raises(SchemaMismatch, match="has not been migrated") as caught:
        asyncio.run(require_current(empty_database_url))
    assert caught.value.fix == "run: stepgate migrate"


def test_a_database_newer_than_the_code_is_neither_used_nor_migrated(database_url: str) -> None:
    asyncio.run(execute(database_url, "UPDATE stepgate.alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaMismatch, match="does not know"):
        asyncio.run(require_current(database_url))
    with pytest.raises(SchemaMismatch, match="does not know"):
        migrations.upgrade(database_url)


def test_a_database_that_is_down_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
        migrations.upgrade(f"postgresql+asyncpg://u@/name?host={tmp_path}")


def test_a_percent_sign_in_a_password_survives(database_url: str) -> None:
    migrations.upgrade(database_url.replace("://postgres@", "://postgres:p%25word@"))


def test_downgrading_goes_one_step(database_url: str) -> None:
    migrations.downgrade(database_url, "base")
    assert asyncio.run(current(database_url)) is None


def test_the_revisions_are_read_as_alembic_reads_them() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    assert migrations.revisions() == {one.revision: one.down_revision for one in script.walk_revisions()}
    assert migrations.head() == script.get_current_head()
