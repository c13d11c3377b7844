"""A run is driven by one worker at a time; what a lost worker held is free, and nothing that arrives is missed."""

import asyncio
from typing import Any

import pytest

from stepgate.domain import commands as c
from stepgate.domain.errors import LeaseLost
from stepgate.domain.ids import RunId, WorkerId, WorkspaceId, new_id
from stepgate.domain.states import RunStatus
from stepgate.storage.claim import Claims, Heartbeats
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from tests.storage.building import (
    HASH,
    PERSON,
    SECOND,
    asking,
    chain,
    claim_one,
    completion,
    create,
    output,
    question,
    register,
    spec,
)

LEASE = "SELECT worker_id::text AS worker, lease_epoch AS epoch, lost_leases AS lost FROM stepgate.runs WHERE id = $1"


async def lease(superuser: Any, run_id: RunId) -> tuple[str | None, int, int]:
    worker, epoch, lost = await superuser.fetchrow(LEASE, run_id)
    return worker, epoch, lost


async def end_lease(superuser: Any, worker_id: WorkerId) -> None:
    past = "clock_timestamp() - interval '1 second'"
    await superuser.execute(f"UPDATE stepgate.workers SET lease_until = {past} WHERE id = $1", worker_id)


async def test_a_claim_takes_due_runs_once_the_oldest_first(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    ids = [(await create(committer, workspace_id, chain(1))).info.id for _ in range(4)]
    await create(committer, workspace_id, chain(1), start=False)
    first = await claims.claim(await register(claims), ["default"], 3)
    second = await claims.claim(await register(claims), ["default"], 3)
    assert {claim.handle.run_id for claim in first} == set(ids[:3])
    assert [claim.handle.run_id for claim in second] == ids[3:]
    assert all(claim.handle.epoch == 1 for claim in first + second)
    assert (await lease(superuser, ids[0]))[1] == 1


async def test_claims_at_the_same_moment_never_share_a_run(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    for _ in range(20):
        await create(committer, workspace_id, chain(1))
    workers = [await register(claims) for _ in range(4)]
    found = await asyncio.gather(*(claims.claim(worker, ["default"], 10) for worker in workers))
    taken = [claim.handle.run_id for some in found for claim in some]
    assert len(taken) == len(set(taken))
    rest = await claims.claim(workers[0], ["default"], 20)
    assert len(taken) + len(rest) == 20


async def test_a_worker_claims_only_its_pools(committer: Committer, claims: Claims, workspace_id: WorkspaceId) -> None:
    near = await create(committer, workspace_id, chain(1))
    far = await create(committer, workspace_id, chain(1), pool="far")
    worker = await register(claims)
    assert [claim.handle.run_id for claim in await claims.claim(worker, ["far"], 5)] == [far.info.id]
    found = await claims.claim(worker, ["far", "default"], 5)
    assert [claim.handle.run_id for claim in found] == [near.info.id]


async def test_one_run_may_be_claimed_by_name(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    await create(committer, workspace_id, chain(1))
    wanted = await create(committer, workspace_id, chain(1), pool="far")
    worker = await register(claims)
    (claim,) = await claims.claim(worker, ["default"], 5, only=wanted.info.id)
    assert (claim.handle.run_id, claim.handle.epoch) == (wanted.info.id, 1)
    assert await claims.claim(worker, ["default"], 5, only=wanted.info.id) == []
    await end_lease(superuser, worker)
    await claims.release_failed(claim.handle)
    assert await claims.claim(worker, ["default"], 5, only=wanted.info.id) == []


async def test_a_claim_brings_the_inputs_of_open_steps_only(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    specs = chain(3)
    await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    await committer.submit(handle, [completion(specs[0].id)], output(specs[0].id))
    assert await claims.release(handle)
    again = await claim_one(claims)
    assert set(again.inputs) == {specs[1].id, specs[2].id}
    assert again.handle.state == handle.state
    assert again.handle.head == handle.head
    assert again.handle.epoch == 2


async def test_a_release_loses_against_an_approval_that_arrived_meanwhile(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    step = spec(1)
    state = await create(committer, workspace_id, [step])
    handle = (await claim_one(claims)).handle
    command, shown = asking(step.id, question())
    await committer.submit(handle, [command], shown)
    await committer.submit_once(state.info.id, c.Approve(PERSON, step.id, HASH))
    assert not await claims.release(handle)
    await committer.refresh(handle)
    assert step.id in handle.state.ready
    assert await claims.release(handle)
    assert (await lease(superuser, state.info.id))[0] is None


async def test_an_approval_after_the_release_makes_the_run_due(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    step = spec(1)
    state = await create(committer, workspace_id, [step])
    worker = await register(claims)
    handle = (await claim_one(claims, worker)).handle
    command, shown = asking(step.id, question())
    await committer.submit(handle, [command], shown)
    assert await claims.release(handle)
    assert await claims.claim(worker, ["default"], 5) == []
    await committer.submit_once(state.info.id, c.Approve(PERSON, step.id, HASH))
    assert (await claim_one(claims, worker)).handle.run_id == state.info.id


async def test_a_held_run_waits_until_its_time(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, database: Database, superuser: Any
) -> None:
    await create(committer, workspace_id, chain(1))
    worker = await register(claims)
    handle = (await claim_one(claims, worker)).handle
    assert await claims.release(handle, held_until=database.clock.now() + 60 * SECOND, held_for="workspace")
    assert await claims.claim(worker, ["default"], 5) == []
    await superuser.execute("UPDATE stepgate.runs SET held_until = clock_timestamp()")
    assert (await claim_one(claims, worker)).handle.run_id == handle.run_id


async def test_the_runs_of_a_dead_worker_are_freed_and_its_writes_refused(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    specs = chain(2)
    state = await create(committer, workspace_id, specs)
    dead, alive = await register(claims), await register(claims)
    zombie = (await claim_one(claims, dead)).handle
    assert await claims.free_dead() == []
    assert await claims.stands(zombie)
    await end_lease(superuser, dead)
    assert not await claims.stands(zombie)
    assert await claims.free_dead() == [state.info.id]
    assert await lease(superuser, state.info.id) == (None, 2, 1)
    successor = await claim_one(claims, alive)
    assert successor.lost_leases == 1
    with pytest.raises(LeaseLost):
        await committer.submit(zombie, [completion(specs[0].id)], output(specs[0].id))
    with pytest.raises(LeaseLost):
        await claims.release(zombie)
    await committer.submit(successor.handle, [completion(specs[0].id)], output(specs[0].id))


async def test_a_worker_whose_lease_has_ended_claims_nothing(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    await create(committer, workspace_id, chain(1))
    worker = await register(claims)
    await end_lease(superuser, worker)
    assert await claims.claim(worker, ["default"], 5) == []
    assert await claims.claim(WorkerId(new_id()), ["default"], 5) == []


async def test_a_beat_renews_the_lease_and_tells_the_heads_of_the_runs(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, database: Database, superuser: Any
) -> None:
    state = await create(committer, workspace_id, chain(1))
    worker = await register(claims, lease_s=5)
    beats = Heartbeats(database, worker, 60)
    assert await beats.beat() == {}
    await claim_one(claims, worker)
    assert await beats.beat() == {state.info.id: 3}
    await committer.submit_once(state.info.id, c.Pause(PERSON))
    moved = await beats.beat()
    assert moved is not None
    assert moved[state.info.id] > 3
    left = await superuser.fetchval("SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM stepgate.workers")
    assert 50 < left <= 60
    await beats.close()


async def test_a_beat_after_the_end_of_the_lease_is_refused(claims: Claims, database: Database, superuser: Any) -> None:
    worker = await register(claims)
    beats = Heartbeats(database, worker, 60)
    assert await beats.beat() == {}
    await end_lease(superuser, worker)
    assert await beats.beat() is None
    await beats.close()


async def test_a_beat_works_in_a_thread_with_a_loop_of_its_own(claims: Claims, database: Database) -> None:
    worker = await register(claims)

    async def beat() -> Any:
        beats = Heartbeats(database, worker, 60)
        try:
            return await beats.beat()
        finally:
            await beats.close()

    assert await asyncio.to_thread(lambda: asyncio.run(beat())) == {}


async def test_deregistering_frees_runs_without_counting_them_as_lost(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    state = await create(committer, workspace_id, chain(1))
    worker = await register(claims)
    await claim_one(claims, worker)
    await claims.deregister(worker)
    assert await lease(superuser, state.info.id) == (None, 2, 0)
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.workers") == 0


async def test_a_new_worker_forgets_workers_long_gone_and_old_keys(claims: Claims, superuser: Any) -> None:
    await end_lease(superuser, await register(claims))
    await superuser.execute("UPDATE stepgate.workers SET lease_until = lease_until - interval '2 hours'")
    await end_lease(superuser, await register(claims))
    columns = "scope, key, request_sha256, status, created_at"
    key = f"INSERT INTO stepgate.idempotency_keys ({columns}) VALUES ('s', $1, '', 0, {{}})"
    await superuser.execute(key.format("now() - interval '8 days'"), "old")
    await superuser.execute(key.format("now() - interval '6 days'"), "young")
    await register(claims)
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.workers") == 2
    assert await superuser.fetchval("SELECT array_agg(key) FROM stepgate.idempotency_keys") == ["young"]


async def test_a_failed_drive_counts_like_a_lost_lease(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    await create(committer, workspace_id, chain(1))
    worker = await register(claims)
    for lost in range(3):
        claim = await claim_one(claims, worker)
        assert claim.lost_leases == lost
        await claims.release_failed(claim.handle)


async def test_the_queue_says_what_is_due_and_for_how_long(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    assert (await claims.status()).oldest_due_s is None
    await create(committer, workspace_id, chain(1))
    await register(claims)
    status = await claims.status()
    assert (status.workers, status.due) == (1, 1)
    assert status.oldest_due_s is not None
    assert status.oldest_due_s > -1


async def test_a_finished_run_is_never_due_again(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    specs = chain(1)
    await create(committer, workspace_id, specs)
    worker = await register(claims)
    handle = (await claim_one(claims, worker)).handle
    await committer.submit(handle, [completion(specs[0].id)], output(specs[0].id))
    assert handle.state.phase is RunStatus.COMPLETED
    assert await claims.claim(worker, ["default"], 5) == []
    assert await lease(superuser, handle.run_id) == (None, 1, 0)
