"""A folder is one workspace, and one step at a time changes it."""

import asyncio
from typing import Any

import pytest

from stepgate.domain import commands as c
from stepgate.domain.errors import InvalidValue, NotFound
from stepgate.domain.ids import ChangeSetId, RunId, StepId, WorkspaceId, new_id
from stepgate.domain.state import Effect
from stepgate.storage.attachments import Attachments
from stepgate.storage.change_sets import ChangeSets
from stepgate.storage.claim import Claims
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from stepgate.storage.workspaces import HELD_FOR, Workspaces
from tests.storage.building import (
    SECOND,
    WORKER,
    change_set,
    changed,
    claim_one,
    completion,
    create,
    output,
    register,
    spec,
)


@pytest.fixture
def workspaces(database: Database) -> Workspaces:
    return Workspaces(database)


async def test_a_path_is_the_same_workspace_each_time(workspaces: Workspaces) -> None:
    found = await asyncio.gather(*(workspaces.get_or_create("/srv/one") for _ in range(8)))
    assert len({workspace.id for workspace in found}) == 1
    assert found[0].rev is None
    assert (await workspaces.get_or_create("/srv/two")).id != found[0].id


@pytest.mark.parametrize("other", ["/srv/one/below", "/srv", "/", "/srv/one/a/b"])
async def test_nested_workspaces_are_refused(workspaces: Workspaces, other: str) -> None:
    await workspaces.get_or_create("/srv/one")
    with pytest.raises(InvalidValue) as refused:
        await workspaces.get_or_create(other)
    assert refused.value.field == "workspace_path"


@pytest.mark.parametrize("other", ["/srv/one-more", "/srv/on", "/srv/one.bak", "/srv/one0", "/srv/two"])
async def test_neighbours_are_no_nested_workspaces(workspaces: Workspaces, other: str) -> None:
    await workspaces.get_or_create("/srv/one")
    assert (await workspaces.get_or_create(other)).root == other


async def test_other_pools_have_other_folders(workspaces: Workspaces) -> None:
    await workspaces.get_or_create("/srv/one")
    assert (await workspaces.get_or_create("/srv", pool="far")).root == "/srv"


async def test_one_step_at_a_time_has_a_workspace(
    workspaces: Workspaces, committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    first, second = spec(1, effect=Effect.WORKSPACE), spec(2, effect=Effect.WORKSPACE)
    state = await create(committer, workspace_id, [first, second])
    handle = (await claim_one(claims)).handle
    run_id = state.info.id
    assert await workspaces.acquire(workspace_id, run_id, first.id)
    assert await workspaces.acquire(workspace_id, run_id, first.id)
    assert not await workspaces.acquire(workspace_id, run_id, second.id)
    await committer.submit(handle, [completion(first.id)], output(first.id))
    assert await workspaces.acquire(workspace_id, run_id, second.id)
    assert not await workspaces.acquire(workspace_id, run_id, StepId(new_id()))
    assert await workspaces.release(workspace_id, second.id) == []
    assert not await workspaces.acquire(workspace_id, run_id, StepId(new_id()))
    await workspaces.release(workspace_id, second.id, handle.epoch)
    assert await workspaces.acquire(workspace_id, run_id, StepId(new_id()))


async def test_a_run_put_down_before_its_step_began_does_not_keep_the_workspace(
    workspaces: Workspaces, committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    step = spec(1, effect=Effect.WORKSPACE)
    state = await create(committer, workspace_id, [step])
    handle = (await claim_one(claims)).handle
    assert await workspaces.acquire(workspace_id, state.info.id, step.id)
    other = RunId(new_id()), StepId(new_id())
    assert not await workspaces.acquire(workspace_id, *other)
    assert await claims.release(handle)
    assert await workspaces.acquire(workspace_id, *other)


async def test_a_step_in_flight_keeps_the_workspace_although_its_worker_died(
    workspaces: Workspaces, committer: Committer, claims: Claims, workspace_id: WorkspaceId
) -> None:
    step = spec(1, effect=Effect.WORKSPACE)
    state = await create(committer, workspace_id, [step])
    worker = await register(claims)
    handle = (await claim_one(claims, worker)).handle
    assert await workspaces.acquire(workspace_id, state.info.id, step.id)
    await committer.submit(handle, [c.Begin(WORKER, step.id)])
    await claims.deregister(worker)
    assert not await workspaces.acquire(workspace_id, RunId(new_id()), StepId(new_id()))


async def test_release_wakes_the_runs_that_waited_for_the_workspace(
    workspaces: Workspaces, committer: Committer, claims: Claims, workspace_id: WorkspaceId, database: Database
) -> None:
    waiting = await create(committer, workspace_id, [spec(1)])
    worker = await register(claims)
    handle = (await claim_one(claims, worker)).handle
    later = database.clock.now() + 60 * SECOND
    assert await claims.release(handle, held_until=later, held_for=HELD_FOR)
    holder = StepId(new_id())
    assert await workspaces.acquire(workspace_id, RunId(new_id()), holder)
    assert await workspaces.release(workspace_id, StepId(new_id())) == []
    assert await claims.claim(worker, ["default"], 5) == []
    assert await workspaces.release(workspace_id, holder) == [waiting.info.id]
    assert len(await claims.claim(worker, ["default"], 5)) == 1


async def test_change_sets_are_read_back_in_the_order_they_were_applied(
    workspaces: Workspaces,
    committer: Committer,
    claims: Claims,
    workspace_id: WorkspaceId,
    database: Database,
    superuser: Any,
) -> None:
    specs = [spec(number, effect=Effect.WORKSPACE) for number in (1, 2, 3)]
    state = await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    rows = [change_set(step.id, workspace_id) for step in specs]
    for step, row in zip(specs, rows, strict=True):
        attachments = Attachments(outputs=output(step.id).outputs, change_sets=[row])
        await committer.submit(handle, [c.Compute(WORKER, step.id, changed(row))], attachments)
    sets = ChangeSets(database)
    assert await sets.applied(state.info.id) == []
    assert await workspaces.rev(workspace_id) is None
    for n in (1, 0):
        done = changed(rows[n], "rev-0", f"rev-{n}")
        await committer.submit(handle, [c.Complete(WORKER, specs[n].id, done)])
        assert await workspaces.rev(workspace_id) == f"rev-{n}"
    applied = await sets.applied(state.info.id)
    assert [found.id for found in applied] == [rows[1].id, rows[0].id]
    assert applied[0].body == rows[1].body
    assert await sets.body(rows[2].id) == rows[2].body
    assert await sets.step_status(rows[2].id) == "computed"
    assert await superuser.fetchval("SELECT count(*) FROM stepgate.change_set_files") == 6
    with pytest.raises(NotFound):
        await sets.body(ChangeSetId(new_id()))
