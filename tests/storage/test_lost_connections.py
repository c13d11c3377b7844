"""A connection may be lost at any moment: what was committed stays and is not done twice, the rest is done."""

import asyncio
from typing import Any

import pytest

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.domain.ids import WorkspaceId
from stepgate.domain.states import EventType
from stepgate.storage import committer as committing
from stepgate.storage.claim import Claims
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from stepgate.storage.verify import verify
from stepgate.storage.writing import write
from tests.fixtures.patience import PATIENCE_S
from tests.storage.building import (
    chain,
    claim_one,
    completion,
    create,
    output,
)


async def _break(superuser: Any) -> None:
    query = """
        SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'stepgate committer'
    """
    await superuser.execute(query)


async def test_a_connection_lost_before_the_commit_costs_nothing(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any, database: Database
) -> None:
    specs = chain(2)
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    await _break(superuser)
    await committer.submit(handle, [completion(specs[0].id)], output(specs[0].id))
    verdict = await verify(database, state.info.id)
    assert (verdict.verified, verdict.events) == (True, 5)


async def test_a_commit_whose_answer_was_lost_is_not_done_again(
    committer: Committer,
    claims: Claims,
    workspace_id: WorkspaceId,
    superuser: Any,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    specs = chain(2)
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle

    async def write_and_lose(*arguments: Any) -> list[bool]:
        await write(*arguments)
        monkeypatch.setattr(committing, "write", write)
        raise ConnectionResetError("the answer never came")

    monkeypatch.setattr(committing, "write", write_and_lose)
    events = await committer.submit(handle, [completion(specs[0].id)], output(specs[0].id))
    assert [event.type.value for event in events] == ["run.started", "step.completed"]
    verdict = await verify(database, state.info.id)
    assert (verdict.verified, verdict.events) == (True, 5)
    assert handle.head.hash == verdict.head_hash


async def test_a_connection_killed_while_the_commit_waits_is_settled_by_the_head(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any, database: Database
) -> None:
    specs = chain(2)
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    async with superuser.transaction():
        await superuser.execute("SELECT FROM stepgate.runs WHERE id = $1 FOR UPDATE", state.info.id)
        writing = asyncio.ensure_future(committer.submit(handle, [completion(specs[0].id)], output(specs[0].id)))
        await _until_waiting(superuser)
        await _break(superuser)
    await writing
    verdict = await verify(database, state.info.id)
    assert (verdict.verified, verdict.events) == (True, 5)


async def test_a_commit_that_goes_on_behind_a_broken_connection_is_not_doubled(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any, database: Database
) -> None:
    specs = chain(2)
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    async with superuser.transaction():
        await superuser.execute("SELECT FROM stepgate.runs WHERE id = $1 FOR UPDATE", state.info.id)
        writing = asyncio.ensure_future(committer.submit(handle, [completion(specs[0].id)], output(specs[0].id)))
        await _until_waiting(superuser)
        committer._connection._transport.abort()
        await _until_waiting(superuser, 2)
    events = await writing
    assert [event.type.value for event in events] == ["run.started", "step.completed"]
    verdict = await verify(database, state.info.id)
    assert (verdict.verified, verdict.events) == (True, 5)
    assert handle.head.hash == verdict.head_hash


async def test_a_statement_that_was_cancelled_is_sent_again(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any, database: Database
) -> None:
    specs = chain(2)
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    async with superuser.transaction():
        await superuser.execute("SELECT FROM stepgate.runs WHERE id = $1 FOR UPDATE", state.info.id)
        writing = asyncio.ensure_future(committer.submit(handle, [completion(specs[0].id)], output(specs[0].id)))
        await _until_waiting(superuser)
        query = """
            SELECT pg_cancel_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'stepgate committer'
        """
        await superuser.execute(query)
    await writing
    verdict = await verify(database, state.info.id)
    assert (verdict.verified, verdict.events) == (True, 5)


async def _until_waiting(superuser: Any, backends: int = 1) -> None:
    query = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'stepgate committer' AND wait_event_type = 'Lock'
    """
    async with asyncio.timeout(PATIENCE_S):
        while await superuser.fetchval(query) < backends:
            await superuser.execute("SELECT pg_stat_clear_snapshot()")


async def test_a_database_that_stays_away_is_told_to_the_sender(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = chain(2)
    await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle

    async def refuse(*_: Any) -> Any:
        raise ConnectionRefusedError("nobody listens")

    with monkeypatch.context() as patched:
        patched.setattr(committing, "write", refuse)
        patched.setattr(committer._database, "connect", refuse)
        patched.setattr(committing, "RECONNECT_S", 0.0)
        with pytest.raises(DatabaseUnavailable):
            await committer.submit(handle, [completion(specs[0].id)], output(specs[0].id))
    events = await committer.submit(handle, [completion(specs[0].id)], output(specs[0].id))
    assert events[-1].type is EventType.STEP_COMPLETED
