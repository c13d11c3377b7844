"""A database that is open, its committer, a workspace, and the superuser who may do what the application may not."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from stepgate.domain.ids import WorkspaceId
from stepgate.storage.claim import Claims
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from stepgate.storage.workspaces import Workspaces


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def committer(database: Database) -> AsyncIterator[Committer]:
    running = Committer(database)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def claims(database: Database) -> Claims:
    return Claims(database)


@pytest.fixture
async def workspace_id(database: Database) -> WorkspaceId:
    return (await Workspaces(database).get_or_create("/srv/project")).id


@pytest.fixture
async def superuser(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    yield connection
    await connection.close()
