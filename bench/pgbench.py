"""The yardstick: the same tables in the same server, one step updated and one event inserted per transaction."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from stepgate.storage import schema
from stepgate.storage.embedded import EmbeddedServer

DATABASE = "bench_pgbench"
ROWS = 50_000
CLIENTS = (8, 16, 32)
RUN = "01980000-0000-7000-8000-000000000000"

# Ids follow from the number, so that no look-up of our own slows the yardstick down.
_ID = "('01980000-0000-7000-8000-' || lpad(to_hex(({n})::int), 12, '0'))::uuid"
# Blanks behind the colons: pgbench takes `:0` for a variable.
_BODY = (
    '{"actor": {"channel": "worker", "id": "worker", "kind": "system"}, "at": 1790000000000000, "data": {"attempt": 1},'
    ' "step_id": "01980000-0000-7000-8000-000000000000", "type": "step.completed", "v": 1}'
)

_ROWS = f"""
INSERT INTO stepgate.workspaces (id, pool, root, mode, created_at) VALUES ('{RUN}', 'default', '/b', 'in_place', now());
INSERT INTO stepgate.runs (id, goal, workspace_id, workspace_path, workspace_mode, pool, labels, metadata, limits,
    requester, requester_kind, requester_channel, status, phase, plan_revision, steps_total, steps_done, created_at,
    updated_at, head_seq, head_hash)
VALUES ('{RUN}', 'g', '{RUN}', '/b', 'in_place', 'default', '{{}}', '{{}}', '{{}}', 'b', 'person', 'cli', 'running',
    'running', 1, {ROWS}, 0, now(), now(), 1, decode(repeat('00', 32), 'hex'));
INSERT INTO stepgate.steps (run_id, id, key, number, type, effect, gate, max_attempts, backoff_ms, on_error,
    input_sha256, input_size, input, status, granted, attempt, created_at)
SELECT '{RUN}', {_ID.format(n="n")}, 's' || n, n, 'noop', 'none', 'allow', 1, 0, 'fail', repeat('0', 64), 2, '{{}}',
    'pending', false, 0, now()
FROM generate_series(1, {ROWS}) AS n;
CREATE SEQUENCE bench_seq CACHE 1000;
VACUUM ANALYZE stepgate.steps;
"""

_SCRIPT = f"""\\set n random(1, {ROWS})
BEGIN;
UPDATE stepgate.steps SET status = 'completed', output = '{{"ok": true}}', attempt = attempt + 1, completed_at = now() \
WHERE run_id = '{RUN}' AND id = {_ID.format(n=":n")};
INSERT INTO stepgate.events (run_id, seq, type, step_id, actor, at, body, prev_hash, hash) \
VALUES ('{RUN}', nextval('bench_seq'), 'step.completed', {_ID.format(n=":n")}, 'worker', now(), '{_BODY}', \
decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'));
END;
"""


@dataclass(frozen=True, slots=True)
class Yardstick:
    """`tps`: the best of 8, 16 and 32 clients; `single_ms`: the mean latency of one client alone."""

    tps: float
    single_ms: float


async def prepare(server: EmbeddedServer) -> None:
    """A database of its own on the same server, with the same schema and 50,000 steps."""
    administrator = await asyncpg.connect(**server.dsn_kwargs("postgres"))
    try:
        await administrator.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        await administrator.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await administrator.close()
    await schema.upgrade(server.sqlalchemy_url(DATABASE))
    connection = await asyncpg.connect(**server.dsn_kwargs(DATABASE))
    try:
        for statement in _ROWS.split(";\n"):
            if statement.strip():
                await connection.execute(statement)
    finally:
        await connection.close()


def measure(server: EmbeddedServer, seconds: int) -> Yardstick:
    """One round: `seconds` for each number of clients."""
    best = max(_tps(_pgbench(server, clients, seconds)) for clients in CLIENTS)
    return Yardstick(best, _latency_ms(_pgbench(server, 1, seconds)))


def _pgbench(server: EmbeddedServer, clients: int, seconds: int) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_SCRIPT)
        script.flush()
        arguments = [
            *(server.binaries / "pgbench", "-h", server.host, "-U", "postgres", "-n", "-M", "prepared"),
            *("-c", str(clients), "-j", "2", "-T", str(seconds), "-f", Path(script.name), DATABASE),
        ]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pgbench failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _tps(output: str) -> float:
    return float(_found(r"tps = ([0-9.]+)", output))


def _latency_ms(output: str) -> float:
    return float(_found(r"latency average = ([0-9.]+) ms", output))


def _found(pattern: str, output: str) -> str:
    match = re.search(pattern, output)
    if match is None:
        raise RuntimeError(f"pgbench said: {output[-500:]}")
    return match[1]


async def durability(server: EmbeddedServer) -> dict[str, str]:
    """The settings that would make the figures worthless if they were off, read back from the server."""
    connection = await asyncpg.connect(**server.dsn_kwargs("postgres"))
    try:
        names = ("fsync", "synchronous_commit", "full_page_writes", "server_version", "data_directory")
        return {name: await connection.fetchval("SELECT current_setting($1)", name) for name in names}
    finally:
        await connection.close()
