"""The statements that run all the time stay cheap however large the tables are: PostgreSQL itself says how."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from stepgate.domain import commands as c
from stepgate.domain.ids import WorkspaceId
from stepgate.storage import hot
from stepgate.storage.attachments import Attachments
from stepgate.storage.claim import CLAIM, Claims
from stepgate.storage.committer import Committer
from stepgate.storage.database import HOT_SETTINGS, Database
from stepgate.storage.entry import Entry, Submission
from tests.fixtures.patience import PATIENCE_S
from tests.storage.building import (
    PERSON,
    WORKER,
    chain,
    claim_one,
    completion,
    create,
    drive_to_end,
    output,
    register,
)

MANY_RUNS = """
INSERT INTO stepgate.runs (id, goal, workspace_id, workspace_path, workspace_mode, pool, labels, metadata, limits,
    requester, requester_kind, requester_channel, status, phase, plan_revision, steps_total, steps_done, wake_at,
    created_at, updated_at, head_seq, head_hash)
SELECT gen_random_uuid(), 'goal', $1::uuid, '/w', 'in_place', 'default', '{}', '{}', '{}', 'ada', 'person', 'cli',
    CASE WHEN n % 50 = 0 THEN 'queued' ELSE 'completed' END, CASE WHEN n % 50 = 0 THEN 'queued' ELSE 'completed' END,
    1, 1, 0, CASE WHEN n % 50 = 0 THEN now() - n * interval '1 ms' END, now(), now(), 1, sha256('x')
FROM generate_series(1, 100000) AS n
"""


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


async def plan_of(connection: Any, statement: str, *parameters: Any) -> list[Mapping[str, Any]]:
    found = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *parameters)
    return list(nodes((orjson.loads(found) if isinstance(found, str) else found)[0]["Plan"]))


def tables_read_whole(plan: list[Mapping[str, Any]]) -> set[str]:
    return {node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan"}


async def test_a_claim_among_many_runs_reads_only_due_ones(
    database: Database, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    await superuser.execute(MANY_RUNS, workspace_id)
    await superuser.execute("VACUUM ANALYZE stepgate.runs")
    worker = await register(claims)
    async with database.raw() as connection:
        plan = await plan_of(connection, CLAIM, worker, ["default", "far"], 64)
    assert "runs" not in tables_read_whole(plan)
    assert "ix_runs_due" in {node.get("Index Name") for node in plan}
    assert not {"Sort"} & {node["Node Type"] for node in plan if node.get("Parent Relationship") == "LockRows"}
    assert len(await claims.claim(worker, ["default", "far"], 64)) == 0, "these runs have no journal"
    taken = await superuser.fetchval("SELECT count(*) FROM stepgate.runs WHERE worker_id IS NOT NULL")
    assert taken == 64


async def test_the_hot_statement_looks_every_row_up_by_its_key(
    database: Database, committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    specs = chain(2000)
    await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    await superuser.execute(MANY_RUNS, workspace_id)
    entry = Entry(handle.run_id, handle.state, handle.head, handle.epoch)
    entry.decide(Submission([completion(specs[0].id)], output(specs[0].id), None), database.clock.now())
    assert entry.hot
    connection = await database.connect("test", HOT_SETTINGS)
    try:
        plan = await plan_of(connection, hot.STATEMENT, *hot.parameters([entry]))
    finally:
        await connection.close()
    assert not tables_read_whole(plan)
    assert {"pk_runs", "pk_steps"} <= {node.get("Index Name") for node in plan}


async def test_plain_steps_take_the_hot_statement_and_others_the_full_one(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, database: Database
) -> None:
    specs = chain(2)
    await create(committer, workspace_id, specs)
    handle = (await claim_one(claims)).handle
    entry = Entry(handle.run_id, handle.state, handle.head, handle.epoch)
    entry.decide(Submission([c.Begin(WORKER, specs[0].id)], Attachments(), None), database.clock.now())
    entry.decide(Submission([completion(specs[0].id)], output(specs[0].id), None), database.clock.now())
    assert entry.hot
    entry.decide(Submission([c.Pause(PERSON)], Attachments(), None), database.clock.now())
    assert not entry.hot


async def test_updates_of_running_runs_stay_heap_only(
    committer: Committer, claims: Claims, workspace_id: WorkspaceId, superuser: Any
) -> None:
    for _ in range(20):
        await create(committer, workspace_id, chain(20))
    claimed = await claims.claim(await register(claims), ["default"], 100)
    before = await updates(superuser)
    await asyncio.gather(*(drive_to_end(committer, claim.handle) for claim in claimed))
    after = await updates(superuser, at_least=before["runs"][0] + 400)
    runs = [late - early for early, late in zip(before["runs"], after["runs"], strict=True)]
    steps = [late - early for early, late in zip(before["steps"], after["steps"], strict=True)]
    assert runs[1] / runs[0] > 0.9, "only the end of a run may touch an index"
    assert steps[1] / steps[0] > 0.9, "an index is never touched"


async def updates(superuser: Any, at_least: int = 0) -> dict[str, tuple[int, int]]:
    """Updates by table, and those of them that were heap-only or would have been, had their page not been full.

    Statistics arrive when the backend that counted is idle.
    """
    query = """
        SELECT relname, n_tup_upd, n_tup_hot_upd + n_tup_newpage_upd
        FROM pg_stat_user_tables WHERE schemaname = 'stepgate'
    """
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await superuser.execute("SELECT pg_stat_clear_snapshot()")
            found = {row[0]: (row[1], row[2]) for row in await superuser.fetch(query)}
            if found["runs"][0] >= at_least:
                return found
            await asyncio.sleep(0.05)
