"""Every kind of tampering is found by whoever looks, even when the owner of the database did it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from stepgate.domain import canonical
from stepgate.domain import commands as c
from stepgate.domain.errors import NotFound
from stepgate.domain.ids import ChangeSetId, RunId, WorkspaceId, new_id
from stepgate.domain.journal import Verdict
from stepgate.domain.state import Effect
from stepgate.storage.attachments import Attachments, ChangeSetRow
from stepgate.storage.claim import Claims
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from stepgate.storage.verify import verify
from stepgate.workspace.changes import Change, ChangeSet, Node
from tests.storage.building import (
    HASH,
    PERSON,
    WORKER,
    asking,
    chain,
    changed,
    claim_one,
    completion,
    create,
    output,
    question,
    spec,
)


@dataclass
class Proven:
    """A run with a question, an answer and results, that verifies until somebody lays hands on it."""

    database: Database
    superuser: Any
    run_id: RunId

    async def verdict(self) -> Verdict:
        return await verify(self.database, self.run_id)

    @asynccontextmanager
    async def no_triggers(self) -> AsyncIterator[None]:
        await self.superuser.execute("SET session_replication_role = replica")
        yield
        await self.superuser.execute("RESET session_replication_role")

    async def tamper(self, statement: str) -> None:
        async with self.no_triggers():
            done = await self.superuser.execute(statement.replace("THE_RUN", f"'{self.run_id}'"))
        assert int(done.split()[-1]) > 0, "the tampering must have hit something"


@pytest.fixture
async def proven(
    database: Database, committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> Proven:
    specs = (*chain(2), spec(3))
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    command, shown = asking(specs[2].id, question())
    await committer.submit(handle, [command], shown)
    await committer.submit_once(state.info.id, c.Approve(PERSON, specs[2].id, HASH, "fine"))
    await committer.refresh(handle)
    await committer.submit(handle, [completion(specs[2].id, action_hash=HASH)], output(specs[2].id))
    await committer.submit(handle, [completion(specs[0].id)], output(specs[0].id))
    proven = Proven(database, superuser, state.info.id)
    assert (await proven.verdict()).verified
    return proven


async def test_a_changed_text_is_found_at_its_event(proven: Proven) -> None:
    await proven.tamper(
        "UPDATE stepgate.events SET body = replace(body, 'fine', 'evil') WHERE run_id = THE_RUN AND seq = 6"
    )
    verdict = await proven.verdict()
    assert (verdict.verified, verdict.first_bad_seq) == (False, 6)


async def test_a_cut_tail_is_found(proven: Proven) -> None:
    await proven.tamper("DELETE FROM stepgate.events WHERE run_id = THE_RUN AND seq = 8")
    verdict = await proven.verdict()
    assert (verdict.verified, verdict.first_bad_seq) == (False, 8)


async def test_a_missing_event_is_found(proven: Proven) -> None:
    await proven.tamper("DELETE FROM stepgate.events WHERE run_id = THE_RUN AND seq = 4")
    verdict = await proven.verdict()
    assert (verdict.verified, verdict.first_bad_seq) == (False, 4)


async def test_an_inserted_event_is_found(proven: Proven) -> None:
    await proven.tamper(
        "INSERT INTO stepgate.events SELECT run_id, 9, type, step_id, actor, at, body, hash, sha256(hash) "
        "FROM stepgate.events WHERE run_id = THE_RUN AND seq = 8"
    )
    verdict = await proven.verdict()
    assert (verdict.verified, verdict.first_bad_seq) == (False, 9)


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'somebody'",
        "type = 'step.failed'",
        "at = at + interval '1 microsecond'",
        "step_id = run_id",
    ],
)
async def test_a_changed_copy_beside_the_text_is_found(proven: Proven, change: str) -> None:
    await proven.tamper(f"UPDATE stepgate.events SET {change} WHERE run_id = THE_RUN AND seq = 7")
    verdict = await proven.verdict()
    assert (verdict.verified, verdict.first_bad_seq) == (False, 7)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stepgate.runs SET head_seq = 7 WHERE id = THE_RUN",
        "UPDATE stepgate.runs SET head_hash = sha256('x') WHERE id = THE_RUN",
        "UPDATE stepgate.runs SET status = 'completed', phase = 'completed' WHERE id = THE_RUN",
        "UPDATE stepgate.runs SET goal = 'another' WHERE id = THE_RUN",
        "UPDATE stepgate.runs SET wake_at = NULL WHERE id = THE_RUN",
        "UPDATE stepgate.runs SET labels = '{}' WHERE id = THE_RUN",
        "UPDATE stepgate.runs SET known_cost_usd = 0.000000000001 WHERE id = THE_RUN",
        "UPDATE stepgate.runs SET requester = 'nobody' WHERE id = THE_RUN",
        "UPDATE stepgate.steps SET status = 'completed' WHERE run_id = THE_RUN AND number = 2",
        "UPDATE stepgate.steps SET gate = 'ask' WHERE run_id = THE_RUN AND number = 1",
        "UPDATE stepgate.steps SET completed_at = completed_at + interval '1 microsecond' WHERE number = 1",
        "UPDATE stepgate.steps SET input = '{}' WHERE run_id = THE_RUN AND number = 2",
        "UPDATE stepgate.steps SET output = '{}' WHERE run_id = THE_RUN AND number = 1",
        "UPDATE stepgate.steps SET output = NULL WHERE run_id = THE_RUN AND number = 1",
        "UPDATE stepgate.steps SET output = '{}' WHERE run_id = THE_RUN AND number = 2",
        "DELETE FROM stepgate.step_needs WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_requests SET rendering = '{}' WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_requests SET status = 'rejected' WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_requests SET action_hash = 'b' WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_requests SET tenant_id = 'acme' WHERE run_id = THE_RUN",
        "UPDATE stepgate.runs SET tenant_id = 'acme' WHERE id = THE_RUN",
        "UPDATE stepgate.approval_decisions SET actor = 'eve' WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_decisions SET reason = NULL WHERE run_id = THE_RUN",
        "DELETE FROM stepgate.approval_decisions WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_decisions SET on_behalf_of = 'bob' WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_decisions SET settles = false WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_decisions SET roles = '[\"admin\"]' WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_requests SET required = 2 WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_requests SET roles = '[[\"admin\"]]' WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_requests SET exclude_requester = true WHERE run_id = THE_RUN",
        "UPDATE stepgate.approval_requests SET reminded = 50 WHERE run_id = THE_RUN",
        "DELETE FROM stepgate.steps WHERE run_id = THE_RUN AND number = 2",
        "INSERT INTO stepgate.step_needs SELECT run_id, need_id, 0, step_id FROM stepgate.step_needs",
    ],
)
async def test_a_changed_row_or_body_is_found(proven: Proven, statement: str) -> None:
    await proven.tamper(statement)
    verdict = await proven.verdict()
    assert not verdict.verified
    assert verdict.reason


@pytest.fixture
async def changing(
    database: Database, committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> Proven:
    """A run with a change set that was applied and one that was only computed."""
    specs = [spec(number, effect=Effect.WORKSPACE) for number in (1, 2)]
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    node = Node.file("a" * 64, 3, mtime_ns=1)
    changes = [
        Change("a", Node.folder(mtime_ns=1), None),
        Change("d", None, Node.folder(mtime_ns=2)),
        Change("d/l", None, Node.symlink("ü", 3)),
        Change("f", node, Node.file("b" * 64, 4, mtime_ns=5)),
    ]
    for step in specs:
        made = ChangeSet.of(changes)
        row = ChangeSetRow(ChangeSetId(made.id), step.id, workspace_id, made.digest, made.to_json())
        attachments = Attachments(outputs=output(step.id).outputs, change_sets=[row])
        await committer.submit(handle, [c.Compute(WORKER, step.id, changed(row))], attachments)
        if step is specs[0]:
            await committer.submit(handle, [c.Complete(WORKER, step.id, changed(row))])
    changing = Proven(database, superuser, state.info.id)
    assert (await changing.verdict()).verified
    return changing


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stepgate.change_set_files SET after = replace(after, 'bbb', 'ccc') WHERE path = 'f'",
        "UPDATE stepgate.change_set_files SET before = NULL WHERE path = 'f'",
        "UPDATE stepgate.change_set_files SET path = '../f' WHERE path = 'f'",
        "UPDATE stepgate.change_set_files SET after = replace(after, '\u00fc', '/etc') WHERE path = 'd/l'",
        "UPDATE stepgate.change_set_files SET op = 'delete' WHERE path = 'f'",
        "UPDATE stepgate.change_set_files SET after = 'no JSON' WHERE path = 'f'",
        "UPDATE stepgate.change_set_files SET position = 9 - position",
        "DELETE FROM stepgate.change_set_files WHERE path = 'f'",
        "DELETE FROM stepgate.change_set_files",
        "DELETE FROM stepgate.change_sets WHERE applied_seq IS NULL",
        "UPDATE stepgate.change_sets SET digest = 'a'",
        "UPDATE stepgate.change_sets SET step_id = (SELECT id FROM stepgate.steps WHERE number = 1)",
        "UPDATE stepgate.change_sets SET applied_seq = NULL, applied_at = NULL WHERE applied_seq IS NOT NULL",
        "UPDATE stepgate.change_sets SET applied_seq = 1 WHERE applied_seq IS NULL",
        "UPDATE stepgate.change_sets SET applied_at = applied_at + interval '1 microsecond' WHERE applied_seq > 0",
    ],
)
async def test_a_changed_change_set_is_found(changing: Proven, statement: str) -> None:
    await changing.tamper(statement)
    verdict = await changing.verdict()
    assert not verdict.verified
    assert verdict.reason


@pytest.fixture
async def troubled(
    database: Database, committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> Proven:
    """A run with two model calls, one of them never settled, and a step that printed something and failed."""
    specs = (spec(1), spec(2))
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    asked = [c.CallModel(WORKER, specs[0].id, new_id(), "h", "router", "small") for _ in range(2)]
    counts = {"input": 3, "output": 5, "cached": None, "reasoning": 1}
    told = c.SettleModel(WORKER, specs[0].id, asked[0].call_id, "ok", "m", Decimal("0.25"), "router", counts, 7)
    await committer.submit(handle, [c.Begin(WORKER, specs[0].id)])
    await committer.submit(handle, [*asked, told])
    text = '{"stderr":"boom"}'
    kept = {"sha256": canonical.digest(text.encode()), "size": len(text)}
    error = {"code": "boom", "message": "no", "field": None}
    await committer.submit(handle, [c.Fail(WORKER, specs[1].id, error, output=kept)], output(specs[1].id, text))
    troubled = Proven(database, superuser, state.info.id)
    assert (await troubled.verdict()).verified
    return troubled


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stepgate.steps SET output = replace(output, 'boom', 'fine') WHERE number = 2",
        "UPDATE stepgate.steps SET output = NULL WHERE number = 2",
        "UPDATE stepgate.model_calls SET cost_usd = 0.24 WHERE status = 'ok'",
        "UPDATE stepgate.model_calls SET cost_usd = NULL WHERE status = 'ok'",
        "UPDATE stepgate.model_calls SET cost_usd = 1 WHERE status = 'called'",
        "UPDATE stepgate.model_calls SET tokens_input = 4 WHERE status = 'ok'",
        "UPDATE stepgate.model_calls SET tokens_cached = 0 WHERE status = 'ok'",
        "UPDATE stepgate.model_calls SET model_used = 'large' WHERE status = 'ok'",
        "UPDATE stepgate.model_calls SET model_asked = 'large' WHERE status = 'called'",
        "UPDATE stepgate.model_calls SET cost_source = 'prices' WHERE status = 'ok'",
        "UPDATE stepgate.model_calls SET request_hash = 'i' WHERE status = 'ok'",
        "UPDATE stepgate.model_calls SET router = 'offline' WHERE status = 'called'",
        "UPDATE stepgate.model_calls SET step_id = (SELECT id FROM stepgate.steps WHERE number = 2)",
        "UPDATE stepgate.model_calls SET latency_ms = 8 WHERE status = 'ok'",
        "UPDATE stepgate.model_calls SET settled_at = NULL WHERE status = 'ok'",
        "UPDATE stepgate.model_calls SET status = 'error' WHERE status = 'called'",
        "DELETE FROM stepgate.model_calls WHERE status = 'called'",
    ],
)
async def test_a_changed_model_call_or_output_of_a_failed_step_is_found(troubled: Proven, statement: str) -> None:
    await troubled.tamper(statement)
    verdict = await troubled.verdict()
    assert not verdict.verified
    assert verdict.reason


async def test_the_output_of_a_step_that_failed_before_its_digest_was_recorded_is_allowed(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, database: Database, superuser: Any
) -> None:
    (only,) = specs = (spec(1),)
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    await committer.submit(handle, [c.Fail(WORKER, only.id, {"code": "boom", "message": "no", "field": None})])
    await superuser.execute("UPDATE stepgate.steps SET output = '{}'")
    assert (await verify(database, state.info.id)).verified


async def test_lease_columns_are_no_part_of_the_proof(proven: Proven) -> None:
    await proven.superuser.execute("UPDATE stepgate.runs SET lease_epoch = 9, lost_leases = 2, worker_id = NULL")
    assert (await proven.verdict()).verified


async def test_a_run_that_is_not_there_cannot_be_verified(database: Database) -> None:
    with pytest.raises(NotFound):
        await verify(database, RunId(new_id()))
