"""People's commands are decided on the newest state, without a lease, and at most once under a key."""

from typing import Any

import pytest

from stepgate.domain import commands as c
from stepgate.domain.errors import Conflict, Expired, NotFound
from stepgate.domain.ids import RunId, WorkspaceId, new_id
from stepgate.domain.states import StepStatus
from stepgate.storage.attachments import Attachments, IdempotencyRow
from stepgate.storage.claim import Claims
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from tests.storage.building import (
    HASH,
    PERSON,
    SECOND,
    asking,
    chain,
    claim_one,
    create,
    question,
    spec,
)


async def test_the_api_finds_no_run_that_was_never_made(committer: Committer) -> None:
    unknown = RunId(new_id())
    with pytest.raises(NotFound):
        await committer.submit_once(unknown, c.Start(PERSON))
    with pytest.raises(NotFound):
        await committer.load(unknown)


async def test_a_run_is_made_once(committer: Committer, workspace_id: WorkspaceId) -> None:
    state = await create(committer, workspace_id, chain(1))
    again = c.Create(PERSON, state.info, ())
    with pytest.raises(Conflict):
        await committer.submit_once(state.info.id, again)


async def test_an_api_command_never_touches_the_lease(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    specs = chain(2)
    state = await create(committer, workspace_id, specs)
    await claim_one(claims)
    query = "SELECT worker_id, lease_epoch FROM stepgate.runs WHERE id = $1"
    before = await superuser.fetchrow(query, state.info.id)
    await committer.submit_once(state.info.id, c.Cancel(PERSON))
    assert await superuser.fetchrow(query, state.info.id) == before


async def test_a_key_is_recorded_with_what_it_did_and_refuses_a_second_time(
    committer: Committer, workspace_id: WorkspaceId, superuser: Any
) -> None:
    state = await create(committer, workspace_id, chain(2), start=False)
    key = Attachments(idempotency=IdempotencyRow("runs.start", "k-1", HASH, 200))
    await committer.submit_once(state.info.id, c.Start(PERSON), key)
    row = await superuser.fetchrow("SELECT run_id::text, request_sha256, status FROM stepgate.idempotency_keys")
    assert tuple(row) == (state.info.id, HASH, 200)
    before = await committer.load(state.info.id)
    with pytest.raises(Conflict) as refused:
        await committer.submit_once(state.info.id, c.Pause(PERSON), key)
    assert refused.value.reason_code == "idempotency_in_use"
    assert await committer.load(state.info.id) == before


async def test_a_key_whose_request_changed_nothing_is_recorded_as_well(
    committer: Committer, workspace_id: WorkspaceId, superuser: Any
) -> None:
    state = await create(committer, workspace_id, chain(2))
    key = Attachments(idempotency=IdempotencyRow("runs.start", "k-1", HASH, 200))
    _, events = await committer.submit_once(state.info.id, c.Start(PERSON), key)
    assert events == ()
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.idempotency_keys") == 1


async def test_an_approval_that_expires_on_its_way_is_not_committed(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = spec(1)
    state = await create(committer, workspace_id, [step])
    handle = (await claim_one(claims)).handle
    command, shown = asking(step.id, question(expires_at=database.clock.now() - SECOND))
    await committer.submit(handle, [command], shown)
    slow = database.clock.now() - 10 * SECOND
    real = type(database.clock).now
    times = iter([slow])
    monkeypatch.setattr(type(database.clock), "now", lambda clock: next(times, None) or real(clock))
    with pytest.raises(Expired):
        await committer.submit_once(state.info.id, c.Approve(PERSON, step.id, HASH))
    assert next(times, None) is None
    assert (await committer.load(state.info.id)).steps[step.id].status is StepStatus.AWAITING_APPROVAL
