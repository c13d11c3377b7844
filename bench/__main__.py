"""`./dev bench [--json] [--rounds N] [--runs N]`: three interleaved rounds, medians, ratios within the same rounds."""

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import load, pgbench
from bench.noop import Noop
from stepgate.compose import Stack, open_stack
from stepgate.executors.registry import BUILTIN, Registry
from stepgate.settings import Settings
from stepgate.settings import load as load_settings
from stepgate.storage.embedded import EmbeddedServer, acquire

STEPS = 10
READ_RUNS = 500
SINGLE_STEPS = 300
COMMANDS = 20
PGBENCH_S = 5


@dataclass(slots=True)
class Rounds:
    """Every round's value of each figure; None where a round's runs did not verify."""

    values: dict[str, list[float | None]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, name: str, value: float | None) -> None:
        self.values.setdefault(name, []).append(value)

    def middle(self, name: str) -> float | None:
        found = [value for value in self.values.get(name, []) if value is not None]
        return load.middle(found) if found and len(found) == len(self.values[name]) else None

    def ratio(self, name: str, against: str) -> float | None:
        """The median of the ratios round by round: a machine whose speed drifts does not change it."""
        pairs = zip(self.values.get(name, []), self.values.get(against, []), strict=True)
        ratios = [a / b for a, b in pairs if a is not None and b]
        return load.middle(ratios) if ratios and len(ratios) == len(self.values[name]) else None


class Child:
    """The worker's process."""

    def __init__(self, environment: dict[str, str]) -> None:
        arguments = [sys.executable, "-m", "bench.worker_process"]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._read()

    async def work(self, **task: Any) -> dict[str, Any]:
        """Lets it drive everything that is due, or do the task named; returns what it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return await asyncio.to_thread(self._read)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker's process ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    async with AsyncExitStack() as exits:
        base = Path(tempfile.mkdtemp(prefix="stepgate-bench-", dir=options.dir))
        exits.callback(shutil.rmtree, base, ignore_errors=True)
        base.chmod(0o755)
        state, workspace = base / "state", base / "workspace"
        workspace.mkdir()
        load.write_files(workspace, READ_RUNS, STEPS)
        server = await asyncio.to_thread(acquire, state)
        exits.callback(server.release)
        tell("preparing the yardstick")
        await pgbench.prepare(server)
        settings = load_settings({"state_dir": state, "workspace_root": workspace, "log_level": "error"})
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
        await commands(number, stack, child, rounds)
    finally:
        child.close()


async def noop_steps(options: argparse.Namespace, number: int, stack: Stack, child: Child, rounds: Rounds) -> None:
    tell(f"round {number}: creating {options.runs} runs of {STEPS} steps")
    runs = await load.create(stack, options.runs, load.noops(STEPS))
    took = await child.work()
    sound = await verified(stack, runs, rounds)
    rounds.add("noop_steps_per_s", len(runs) * STEPS / took["seconds"] if sound else None)
    rounds.add("noop_worker_cpu_us_per_step", took["cpu_s"] * 1e6 / (len(runs) * STEPS))
    rounds.add("worker_rss_mb", took["rss_mb"])
    rounds.add("worker_peak_rss_mb", took["peak_rss_mb"])


async def read_steps(number: int, stack: Stack, child: Child, rounds: Rounds) -> None:
    tell(f"round {number}: reading {READ_RUNS * STEPS} files")
    runs = await load.create(stack, READ_RUNS, load.reads(STEPS))
    took = await child.work()
    sound = await verified(stack, runs, rounds)
    rounds.add("read_file_steps_per_s", len(runs) * STEPS / took["seconds"] if sound else None)


async def single_run(number: int, stack: Stack, child: Child, rounds: Rounds) -> None:
    tell(f"round {number}: one run alone")
    runs = await load.create(stack, 1, load.noops(SINGLE_STEPS))
    await child.work()
    sound = await verified(stack, runs, rounds)
    times = await load.step_times_ms(stack, runs[0])
    rounds.add("single_run_step_p50_ms", load.middle(times) if sound else None)


async def commands(number: int, stack: Stack, child: Child, rounds: Rounds) -> None:
    """Each approved alone; from the approval to the completed step."""
    tell(f"round {number}: {COMMANDS} commands")
    runs = await load.create(stack, COMMANDS, lambda _: [{"type": "run_command", "input": {"argv": ["/bin/true"]}}])
    await child.work()
    await child.work(approve=runs)
    sound = await verified(stack, runs, rounds)
    times = [await load.approved_to_completed_ms(stack, run_id) for run_id in runs] if sound else []
    rounds.add("run_command_ms", load.middle(times) if times else None)


async def verified(stack: Stack, runs: list[Any], rounds: Rounds) -> bool:
    problems = await load.unverified(stack, runs)
    rounds.problems += problems[:10]
    return not problems


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
}
UNITS = {"per_s": "steps/s", "tps": "transactions/s", "ms": "ms", "mb": "MiB", "us_per_step": "us"}


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
