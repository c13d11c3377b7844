"""A process without a worker: what verbs decide and record by themselves."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.worker.lab import Lab, opened


@pytest.fixture
async def lab(database_url: str, tmp_path: Path) -> AsyncIterator[Lab]:
    async with opened(database_url, tmp_path, worker=False) as found:
        yield found


@pytest.fixture
async def superuser(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    yield connection
    await connection.close()
