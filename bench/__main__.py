"""`./dev bench [--json] [--rounds N] [--runs N]`: three interleaved rounds, medians, ratios within the same rounds."""

import argparse
import asyncio
import json
import os
import platform
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench import load, pgbench, waking, workspaces
from bench.child import Child
from bench.noop import Noop
from bench.rounds import Rounds
from stepgate.compose import Stack, open_stack
from stepgate.executors.registry import BUILTIN, Registry
from stepgate.settings import Settings
from stepgate.settings import load as load_settings
from stepgate.storage.embedded import EmbeddedServer, acquire

STEPS = 10
READ_RUNS = 500
SINGLE_STEPS = 300
PGBENCH_S = 5


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    async with AsyncExitStack() as exits:
        base = Path(tempfile.mkdtemp(prefix="stepgate-bench-", dir=options.dir))
        exits.callback(shutil.rmtree, base, ignore_errors=True)
        base.chmod(0o755)
        state, root = base / "state", base / "workspaces"
        (root / load.FILES).mkdir(parents=True)
        tell("writing files")
        load.write_files(root / load.FILES, READ_RUNS, STEPS)
        workspaces.prepare(root)
        server = await asyncio.to_thread(acquire, state)
        exits.callback(server.release)
        tell("preparing the yardstick")
        await pgbench.prepare(server)
        settings = load_settings({"state_dir": state, "workspace_root": root, "log_level": "error"})
        registry = Registry((*BUILTIN, Noop()))
        stack = await exits.enter_async_context(open_stack(settings, registry=registry))
        rounds = Rounds()
        for number in range(1, options.rounds + 1):
            await one_round(options, number, server, stack, settings, rounds)
        return report(rounds, await machine(server), options)


async def one_round(
    options: argparse.Namespace,
    number: int,
    server: EmbeddedServer,
    stack: Stack,
    settings: Settings,
    rounds: Rounds,
) -> None:
    tell(f"round {number}: pgbench")
    yardstick = await asyncio.to_thread(pgbench.measure, server, options.seconds)
    rounds.add("pgbench_tps", yardstick.tps)
    rounds.add("pgbench_single_ms", yardstick.single_ms)
    child = await asyncio.to_thread(Child, environment(settings))
    try:
        await noop_steps(options, number, stack, child, rounds)
        await read_steps(number, stack, child, rounds)
        await single_run(number, stack, child, rounds)
        tell(f"round {number}: {workspaces.COMMANDS} commands")
        await workspaces.commands(stack, child, rounds)
        tell(f"round {number}: {workspaces.CHANGED} changed files, and back")
        await workspaces.changed_files(stack, child, rounds, number)
        tell(f"round {number}: commands over {workspaces.SMALL} and {workspaces.LARGE} files")
        await workspaces.growth(stack, child, rounds)
    finally:
        child.close()
    tell(f"round {number}: {waking.APPROVALS} approvals over HTTP, to a worker here and elsewhere")
    await waking.wakes(stack, environment(settings), rounds)
    # Rules are asked about every step, so they are there only for what needs them.
    tell(f"round {number}: {workspaces.COMMANDS} commands, and as many run ahead of their question")
    child = await asyncio.to_thread(Child, environment(settings) | {"STEPGATE_POLICY": str(policy(settings))})
    try:
        await workspaces.previews(stack, child, rounds)
    finally:
        child.close()


def policy(settings: Settings) -> Path:
    path = settings.state_dir / "bench.policy.yaml"
    path.write_text(workspaces.POLICY, "utf-8")
    return path


async def noop_steps(options: argparse.Namespace, number: int, stack: Stack, child: Child, rounds: Rounds) -> None:
    tell(f"round {number}: creating {options.runs} runs of {STEPS} steps")
    runs = await load.create(stack, options.runs, load.noops(STEPS))
    took = await child.work()
    sound = await rounds.sound(stack, runs)
    rounds.add("noop_steps_per_s", len(runs) * STEPS / took["seconds"] if sound else None)
    rounds.add("noop_worker_cpu_us_per_step", took["cpu_s"] * 1e6 / (len(runs) * STEPS))
    rounds.add("worker_rss_mb", took["rss_mb"])
    rounds.add("worker_peak_rss_mb", took["peak_rss_mb"])


async def read_steps(number: int, stack: Stack, child: Child, rounds: Rounds) -> None:
    tell(f"round {number}: reading {READ_RUNS * STEPS} files")
    runs = await load.create(stack, READ_RUNS, load.reads(STEPS))
    took = await child.work()
    sound = await rounds.sound(stack, runs)
    rounds.add("read_file_steps_per_s", len(runs) * STEPS / took["seconds"] if sound else None)


async def single_run(number: int, stack: Stack, child: Child, rounds: Rounds) -> None:
    tell(f"round {number}: one run alone")
    runs = await load.create(stack, 1, load.noops(SINGLE_STEPS))
    await child.work()
    sound = await rounds.sound(stack, runs)
    times = await load.step_times_ms(stack, runs[0])
    rounds.add("single_run_step_p50_ms", load.middle(times) if sound else None)


def environment(settings: Settings) -> dict[str, str]:
    return os.environ | {
        "STEPGATE_STATE_DIR": str(settings.state_dir),
        "STEPGATE_WORKSPACE_ROOT": str(settings.workspace_root),
        "STEPGATE_LOG_LEVEL": "error",
    }


async def machine(server: EmbeddedServer) -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "postgresql": await pgbench.durability(server),
    }


AGAINST = {
    "noop_steps_per_s": "pgbench_tps",
    "single_run_step_p50_ms": "pgbench_single_ms",
    "read_file_steps_per_s": "pgbench_tps",
    "run_command_ms": "bare_spawn_ms",
}
UNITS = {
    "per_s": "steps/s",
    "tps": "transactions/s",
    "_ms": "ms",
    "_mb": "MiB",
    "us_per_step": "us",
    "_s": "s",
    "growth": "x",
    "growth_idmapped": "x",
}


def report(rounds: Rounds, host: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    figures = []
    for name, values in rounds.values.items():
        against = AGAINST.get(name)
        figures.append(
            {
                "name": name,
                "value": rounded(rounds.middle(name)),
                "unit": next(unit for ending, unit in UNITS.items() if name.endswith(ending)),
                "ratio": rounded(rounds.ratio(name, against)) if against else None,
                "against": against,
                "rounds": [rounded(value) for value in values],
            }
        )
    return {"machine": host, "runs": options.runs, "problems": rounds.problems, "figures": figures}


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def tell(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def table(result: dict[str, Any]) -> str:
    lines = [f"{'figure':<30} {'median':>12} {'unit':<16} {'ratio':>7}  against"]
    for figure in result["figures"]:
        ratio = "" if figure["ratio"] is None else f"{figure['ratio']:.2f}"
        lines.append(
            f"{figure['name']:<30} {figure['value']!s:>12} {figure['unit']:<16} {ratio:>7}  {figure['against'] or ''}"
        )
    return "\n".join(lines + [f"not used: {problem}" for problem in result["problems"]])


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5000, help="runs of 10 noop steps in each round")
    parser.add_argument("--seconds", type=int, default=PGBENCH_S, help="seconds for each pgbench measurement")
    parser.add_argument("--dir", default="/var/tmp", help="a folder on disk; data folder and files go below it")
    options = parser.parse_args()
    result = asyncio.run(measure(options))
    print(json.dumps(result, indent=1) if options.json else table(result))
    sys.exit(1 if result["problems"] else 0)


if __name__ == "__main__":
    main()
