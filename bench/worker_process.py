"""The process under measurement: one worker, as it ships, with `noop` added to the registry.

Speaks JSON lines: prints `{"ready": true}`, reads a task, works until nothing is due, prints what it took.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from bench.load import ACTOR
from bench.noop import Noop
from bench.spawner import Spawner
from stepgate.compose import Stack, open_stack
from stepgate.domain.ids import RunId, StepId
from stepgate.executors.registry import BUILTIN, Registry
from stepgate.settings import load


async def serve() -> None:
    """One measurement per line of standard input, each with a worker of its own."""
    settings = load()
    async with open_stack(settings, registry=Registry((*BUILTIN, Noop()))) as stack:
        worker = await stack.start_worker()
        await until_idle(stack)
        await worker.stop()
        say({"ready": True})
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            task = json.loads(line)
            runs = task.get("runs")
            say(await (measure(stack) if runs is None else approve_each(stack, runs, begin=task.get("begin", False))))


async def measure(stack: Stack) -> dict[str, Any]:
    """From the moment the worker starts until every due run has been driven to its end."""
    worker = stack.worker
    assert worker is not None
    cpu, began = time.process_time(), time.perf_counter()
    await worker.start()
    await until_idle(stack)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    await worker.stop()
    return {"seconds": seconds, "cpu_s": cpu, "rss_mb": rss_mb(), "peak_rss_mb": peak_rss_mb()}


async def approve_each(stack: Stack, runs: Sequence[RunId], *, begin: bool) -> dict[str, Any]:
    """Approves the last step of each run, one run after another, with the worker at rest in between.

    With `begin` each is started first.

    Each time a process of its own also starts the same program without any of this: `bare_ms`.
    """
    worker = stack.worker
    assert worker is not None
    bare_ms = []
    with Spawner() as spawner:
        await worker.start()
        for run_id in runs:
            if begin:
                await stack.engine.start(run_id, ACTOR)
            await until_idle(stack)
            bare_ms.append(await asyncio.to_thread(spawner.spawn_ms))
            await approve(stack, run_id)
        await worker.stop()
    return {"bare_ms": bare_ms}


async def approve(stack: Stack, run_id: RunId) -> None:
    """Again where another run has changed the workspace since the question."""
    while (step := (await stack.queries.run(run_id)).steps[-1]).status == "awaiting_approval":
        assert step.approval is not None
        await stack.engine.approve(run_id, StepId(step.id), ACTOR, action_hash=step.approval.action_hash)
        await until_idle(stack)


async def until_idle(stack: Stack) -> None:
    worker = stack.worker
    assert worker is not None
    while True:
        await asyncio.sleep(0.002)
        if not worker.busy and (await stack.queries.queue()).due == 0 and not worker.busy:
            return


def rss_mb() -> float:
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    uvloop.run(serve())
