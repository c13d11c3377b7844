"""What is committed was decided on exactly the state it was written on, whoever else writes."""

import asyncio
from typing import Any

import pytest

from stepgate.domain import commands as c
from stepgate.domain.errors import IllegalTransition, LeaseLost, NotFound
from stepgate.domain.ids import CallId, StepId, WorkspaceId, new_id
from stepgate.domain.states import EventType, RunStatus, StepStatus
from stepgate.storage import committer as committing
from stepgate.storage.attachments import Attachments, ModelCallRow
from stepgate.storage.claim import Claims
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from stepgate.storage.verify import verify
from stepgate.storage.writing import write
from tests.storage.building import (
    HASH,
    PERSON,
    WORKER,
    chain,
    claim_one,
    completion,
    create,
    drive_to_end,
    inputs_of,
    output,
    register,
    result,
    spec,
)


async def test_a_run_is_driven_from_its_creation_to_its_end(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, database: Database
) -> None:
    state = await create(committer, workspace_id, chain(3))
    claim = await claim_one(claims)
    assert claim.handle.state == state
    assert set(claim.inputs) == set(state.steps)
    await drive_to_end(committer, claim.handle)
    assert claim.handle.state.phase is RunStatus.COMPLETED
    assert await committer.load(state.info.id) == claim.handle.state
    assert (await verify(database, state.info.id)).verified


async def test_many_runs_share_batches_and_each_gets_its_own_events(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, database: Database
) -> None:
    states = [await create(committer, workspace_id, chain(4)) for _ in range(40)]
    claimed = await claims.claim(await register(claims), ["default"], 100)
    assert len(claimed) == 40
    await asyncio.gather(*(drive_to_end(committer, claim.handle) for claim in claimed))
    for claim in claimed:
        assert claim.handle.state.phase is RunStatus.COMPLETED
        assert claim.handle.head.seq == 3 + 1 + 4 + 1
    for state in states[:5]:
        assert (await verify(database, state.info.id)).verified


async def test_submissions_for_one_run_at_one_moment_become_one_range_of_events(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, database: Database
) -> None:
    specs = [spec(number) for number in range(1, 9)]
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    answers = await asyncio.gather(
        *(committer.submit(handle, [completion(step.id)], output(step.id)) for step in specs)
    )
    assert [events[-1].step_id for events in answers[:-1]] == [step.id for step in specs[:-1]]
    assert answers[-1][-1].type is EventType.RUN_COMPLETED
    assert handle.head.seq == 3 + 1 + 8 + 1
    assert (await verify(database, state.info.id)).verified


async def test_what_decide_refuses_reaches_its_sender_alone(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    specs = chain(2)
    await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    answers = await asyncio.gather(
        committer.submit(handle, [completion(specs[0].id)], output(specs[0].id)),
        committer.submit(handle, [c.Begin(WORKER, StepId(new_id()))]),
        return_exceptions=True,
    )
    assert isinstance(answers[0], tuple)
    assert isinstance(answers[1], NotFound)
    assert handle.state.steps[specs[0].id].status is StepStatus.COMPLETED


async def test_a_submission_that_the_database_refuses_fails_alone(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    good, bad = chain(1), chain(1)
    await create(committer, workspace_id, good)
    await create(committer, workspace_id, bad)
    claimed = {
        claim.handle.run_id: claim.handle for claim in await claims.claim(await register(claims), ["default"], 9)
    }
    handles = {step.id: handle for handle in claimed.values() for step in handle.state.steps.values()}
    text = '"\x00"'
    answers = await asyncio.gather(
        committer.submit(handles[bad[0].id], [c.Complete(WORKER, bad[0].id, result(text))], output(bad[0].id, text)),
        committer.submit(handles[good[0].id], [completion(good[0].id)], output(good[0].id)),
        return_exceptions=True,
    )
    assert isinstance(answers[0], Exception)
    assert isinstance(answers[1], tuple)
    assert handles[bad[0].id].state.steps[bad[0].id].status is StepStatus.PENDING
    again = await committer.submit(handles[bad[0].id], [completion(bad[0].id)], output(bad[0].id))
    assert again[-1].type is EventType.RUN_COMPLETED


async def test_a_result_without_its_output_is_a_fault_of_the_caller(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    specs = chain(1)
    await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    with pytest.raises(ValueError, match="without its output"):
        await committer.submit(handle, [completion(specs[0].id)])
    assert handle.entry is None


async def test_a_worker_decides_again_when_a_person_moved_the_run(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, database: Database
) -> None:
    specs = [spec(1), spec(2)]
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    await committer.submit_once(state.info.id, c.Skip(PERSON, specs[1].id))
    events = await committer.submit(handle, [completion(specs[0].id)], output(specs[0].id))
    assert [event.type for event in events][-1] is EventType.RUN_COMPLETED
    assert handle.state.steps[specs[1].id].status is StepStatus.SKIPPED
    assert (await verify(database, state.info.id)).verified


async def test_a_worker_is_refused_what_no_longer_fits_after_a_person_moved_the_run(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    specs = chain(2)
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    await committer.submit_once(state.info.id, c.Cancel(PERSON))
    with pytest.raises(IllegalTransition):
        await committer.submit(handle, [c.Begin(WORKER, specs[0].id)])
    assert handle.state.phase is RunStatus.CANCELLED


async def test_two_committers_on_one_run_lose_nothing_and_double_nothing(
    database: Database, committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    specs = [spec(number) for number in range(1, 31)]
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    other = Committer(database)
    await other.start()

    async def skip(number: int) -> None:
        await other.submit_once(state.info.id, c.Skip(PERSON, specs[number].id))

    async def complete(number: int) -> None:
        await committer.submit(handle, [completion(specs[number].id)], output(specs[number].id))

    await asyncio.gather(*(skip(n) if n % 2 else complete(n) for n in range(30)))
    await other.stop()
    final = await committer.load(state.info.id)
    assert final.phase is RunStatus.COMPLETED
    done = [final.steps[step.id].status for step in specs]
    assert done == [StepStatus.SKIPPED if n % 2 else StepStatus.COMPLETED for n in range(30)]
    verdict = await verify(database, state.info.id)
    assert verdict.verified
    assert verdict.events == 2 + 1 + 1 + 30 + 1


async def test_a_write_under_a_lost_lease_is_refused(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    specs = chain(2)
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    await superuser.execute("UPDATE stepgate.runs SET lease_epoch = lease_epoch + 1 WHERE id = $1", state.info.id)
    with pytest.raises(LeaseLost):
        await committer.submit(handle, [completion(specs[0].id)], output(specs[0].id))
    assert (await committer.load(state.info.id)) == state


async def test_a_finished_run_gives_its_lease_back_in_the_same_write(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    state = await create(committer, workspace_id, chain(1))
    handle = (await claim_one(claims)).handle
    await drive_to_end(committer, handle)
    assert handle.released
    row = await superuser.fetchrow("SELECT worker_id, wake_at FROM stepgate.runs WHERE id = $1", state.info.id)
    assert tuple(row) == (None, None)
    assert await claims.release(handle)


@pytest.mark.parametrize("hot", [True, False])
async def test_a_start_alone_does_not_forget_the_workers_that_were_lost(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any, hot: bool
) -> None:
    (step,) = chain(1)
    state = await create(committer, workspace_id, [step])
    await superuser.execute("UPDATE stepgate.runs SET lost_leases = 2")
    handle = (await claim_one(claims)).handle
    calls = Attachments(calls=[ModelCallRow(CallId(new_id()))])
    if hot:
        await committer.submit(handle, [c.Begin(WORKER, step.id)])
    else:
        called = c.CallModel(WORKER, step.id, calls.calls[0].id, HASH, "openai", None)
        await committer.submit(handle, [c.Begin(WORKER, step.id), called], calls)
    query = "SELECT lost_leases FROM stepgate.runs WHERE id = $1"
    assert await superuser.fetchval(query, state.info.id) == 2


async def test_every_other_write_clears_the_count_of_lost_leases(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    specs = chain(2)
    state = await create(committer, workspace_id, specs)
    await superuser.execute("UPDATE stepgate.runs SET lost_leases = 2")
    claim = await claim_one(claims)
    assert claim.lost_leases == 2
    await committer.submit(claim.handle, [completion(specs[0].id)], output(specs[0].id))
    query = "SELECT lost_leases FROM stepgate.runs WHERE id = $1"
    assert await superuser.fetchval(query, state.info.id) == 0


async def test_large_outputs_are_spread_over_several_batches(
    committer: Committer,
    claims: Claims,
    workspace_id: WorkspaceId,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(committing, "LARGEST_OUTPUTS", 1000)
    sizes: list[int] = []

    async def watched(connection: Any, clock: Any, entries: Any, timeout_s: float) -> list[bool]:
        sizes.append(len(entries))
        return await write(connection, clock, entries, timeout_s)

    monkeypatch.setattr(committing, "write", watched)
    specs = {(await create(committer, workspace_id, [step])).info.id: step for step in (spec(1) for _ in range(8))}
    claimed = await claims.claim(await register(claims), ["default"], 8)
    text = '"' + "x" * 600 + '"'
    await asyncio.gather(
        *(
            committer.submit(
                claim.handle,
                [completion(specs[claim.handle.run_id].id, text)],
                output(specs[claim.handle.run_id].id, text),
            )
            for claim in claimed
        )
    )
    assert sum(sizes) == 8
    assert max(sizes) == 2
    for run_id in specs:
        assert (await verify(database, run_id)).verified


async def test_refresh_takes_up_what_others_wrote(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    specs = chain(2)
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    moved, _ = await committer.submit_once(state.info.id, c.Cancel(PERSON))
    await committer.refresh(handle)
    assert handle.state == moved
    await committer.refresh(handle)
    assert handle.state == moved


async def test_steps_may_be_added_to_a_run_that_is_driven(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, database: Database
) -> None:
    specs = chain(1)
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    more = spec(2, [specs[0].id])
    await committer.submit_once(state.info.id, c.AddSteps(PERSON, (more,)), Attachments(inputs=inputs_of([more])))
    await committer.submit(handle, [completion(specs[0].id)], output(specs[0].id))
    await committer.submit(handle, [completion(more.id)], output(more.id))
    assert handle.state.phase is RunStatus.COMPLETED
    assert (await verify(database, state.info.id)).verified


async def test_stop_commits_what_was_submitted(database: Database, claims: Claims, workspace_id: WorkspaceId) -> None:
    running = Committer(database)
    await running.start()
    specs = chain(1)
    await create(running, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    writing = asyncio.ensure_future(running.submit(handle, [completion(specs[0].id)], output(specs[0].id)))
    await asyncio.sleep(0)
    await running.stop()
    assert (await writing)[-1].type is EventType.RUN_COMPLETED
    with pytest.raises(RuntimeError):
        await running.submit(handle, [c.Settle(WORKER)])
