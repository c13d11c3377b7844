"""The outbox is written with the events or not at all, for whoever wants them in the run's tenant."""

import asyncio
from typing import Any

import pytest

from stepgate.domain import commands as c
from stepgate.domain.errors import Conflict
from stepgate.domain.ids import WorkspaceId
from stepgate.domain.state import Gate
from stepgate.domain.webhooks import check_events
from stepgate.storage.attachments import IdempotencyRow
from stepgate.storage.claim import Claims
from stepgate.storage.committer import Attachments, Committer
from stepgate.storage.database import Database
from stepgate.storage.webhooks import Webhooks
from tests.storage.building import (
    HASH,
    PERSON,
    SHOWN,
    WORKER,
    asking,
    chain,
    claim_one,
    completion,
    create,
    output,
    question,
    spec,
)


@pytest.fixture
async def told(database: Database) -> Any:
    """Where it is told, and a list of what will be: (type, tenant) in the order of the journal."""
    hooks = Webhooks(database)
    for tenant in ("default", "acme"):
        url = "https://hooks.test/x"
        await hooks.add(tenant, url=url, events=check_events(None), format_="json", secret="x", created_by="me")

    async def found() -> list[tuple[str, str]]:
        query = "SELECT type, tenant_id FROM stepgate.webhook_deliveries ORDER BY run_id, seq"
        async with database.session() as connection:
            return [tuple(row) for row in await connection.fetch(query)]

    return found


async def test_questions_and_decisions_are_put_there_by_the_statement_that_records_them(
    committer: Committer, workspace_id: WorkspaceId, told: Any
) -> None:
    step = spec(1, gate=Gate.ASK)
    state = await create(committer, workspace_id, [step], tenant="acme")
    await committer.submit_once(state.info.id, *asking(step.id, question()))
    await committer.submit_once(state.info.id, c.Reject(PERSON, step.id, HASH))
    expected = ["approval.requested", "approval.rejected", "run.cancelled"]
    assert await told() == [(type_, "acme") for type_ in expected]


async def test_what_is_refused_is_not_told(committer: Committer, workspace_id: WorkspaceId, told: Any) -> None:
    step = spec(1, gate=Gate.ASK)
    state = await create(committer, workspace_id, [step])
    key = Attachments(idempotency=IdempotencyRow("api:me", "k", HASH, 200))
    await committer.submit_once(state.info.id, c.Pause(PERSON), key)
    before = await told()
    with pytest.raises(Conflict):
        await committer.submit_once(state.info.id, c.Cancel(PERSON), key)
    assert await told() == before == [("run.paused", "default")]


async def test_a_question_that_a_rule_answered_is_nobodys_business(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, told: Any
) -> None:
    step = spec(1, gate=Gate.ASK)
    await create(committer, workspace_id, [step])
    handle = (await claim_one(claims)).handle
    asked = question()
    grant = c.Grant(WORKER, step.id, asked)
    await committer.submit(handle, [grant], Attachments(renderings={asked.request_id: SHOWN}))
    assert await told() == []


@pytest.mark.parametrize("wanted", [True, False])
async def test_the_end_of_plain_steps_is_told_where_somebody_wants_to_know(
    database: Database, claims: Claims, workspace_id: WorkspaceId, told: Any, *, wanted: bool
) -> None:
    """Without, it takes the statement that knows no outbox."""
    committer = Committer(database, tells_ends=lambda: wanted)
    await committer.start()
    try:
        specs = chain(2)
        await create(committer, workspace_id, specs)
        handle = (await claim_one(claims)).handle
        for one in specs:
            await committer.submit(handle, [completion(one.id)], output(one.id))
        assert handle.state.finished
        assert await told() == ([("run.completed", "default")] if wanted else [])
    finally:
        await committer.stop()


async def test_two_senders_never_take_the_same_message(
    database: Database, committer: Committer, workspace_id: WorkspaceId, told: Any
) -> None:
    for _ in range(8):
        state = await create(committer, workspace_id, [spec(1)], start=False)
        await committer.submit_once(state.info.id, c.Cancel(PERSON))
    assert len(await told()) == 8
    senders = [Webhooks(database) for _ in range(4)]
    taken = [due.id for found in await asyncio.gather(*(one.take(3, 60.0, ()) for one in senders)) for due in found]
    while more := await senders[0].take(3, 60.0, ()):
        taken += [due.id for due in more]
    assert (len(taken), len(set(taken))) == (8, 8)
