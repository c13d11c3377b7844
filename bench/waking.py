"""How soon a worker at rest starts what was just approved over HTTP: in the process that was asked, and in another."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx2

from bench import load, workspaces
from bench.rounds import Rounds
from stepgate.compose import Stack, secret_of
from stepgate.domain.ids import RunId
from stepgate.engine import views

APPROVALS = 20
REST_S = 0.05
"""What a worker needs to put a run down that waits for a person."""
SERVE = ("serve", "--port", "0")
WAYS = {"wake_ms": (SERVE,), "wake_elsewhere_ms": ((*SERVE, "--no-worker"), ("worker",))}
_LOOK_S = 0.005


async def wakes(stack: Stack, environment: Mapping[str, str], figures: Rounds) -> None:
    """From the response to the approval until the start of the step, by the journal; each with the worker at rest."""
    for name, processes in WAYS.items():
        async with served(stack, environment, processes) as http:
            runs = await load.create(
                stack, APPROVALS, lambda _: workspaces.command("/bin/true"), stack.settings.workspace_root / "command"
            )
            took = [await wake_ms(stack, http, run_id) for run_id in runs]
        figures.add(name, load.middle(took) if await figures.sound(stack, runs) else None)


@asynccontextmanager
async def served(
    stack: Stack, environment: Mapping[str, str], processes: tuple[tuple[str, ...], ...]
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the first of these commands; all of them run until the block ends."""
    running = [_started(words, environment) for words in processes]
    try:
        url = (await asyncio.to_thread(_first_line, running[0])).split()[-1]
        headers = {"Authorization": f"Bearer {secret_of(stack.settings)}"}
        async with httpx2.AsyncClient(base_url=url, headers=headers) as http:
            yield http
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.communicate(timeout=60)


def _started(words: tuple[str, ...], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "stepgate", *words], stdout=subprocess.PIPE, text=True, env=dict(environment)
    )


def _first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return next(line for line in process.stdout if "http://" in line)


async def wake_ms(stack: Stack, http: httpx2.AsyncClient, run_id: RunId) -> float:
    (step,) = (await until(stack, run_id, "awaiting_approval")).steps
    assert step.approval is not None
    await asyncio.sleep(REST_S)
    path = f"/v1/agent-runs/{run_id}/steps/{step.id}/approve"
    (await http.post(path, json={"action_hash": step.approval.action_hash})).raise_for_status()
    answered = time.time()
    await until(stack, run_id, "completed")
    started = await load.times(stack, run_id, "step.started")
    return (started[-1] - answered) * 1000


async def until(stack: Stack, run_id: RunId, status: str) -> views.RunDetail:
    while True:
        await asyncio.sleep(_LOOK_S)
        run = await stack.queries.run(run_id)
        if run.status == status:
            return run
