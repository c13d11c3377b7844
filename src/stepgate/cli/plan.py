"""Has a model write a plan for a goal, shows it, and keeps it as a file that `run` takes."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from stepgate.api.plans import WrittenPlan
from stepgate.cli.client import Api, read
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError, usage
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import plain_line
from stepgate.domain.states import CLOSED, StepStatus
from stepgate.engine import views

LOOK_S = 0.3
RESTING = CLOSED | {StepStatus.AWAITING_APPROVAL, StepStatus.NEEDS_REVIEW}


async def plan(
    session: Session, goal: str, workspace: str | None, files: list[str] | None, model: str | None, out: Path | None
) -> Exit:
    """The steps with what policy will say of each; nothing of them runs."""
    given = {"goal": goal, "workspace_path": workspace, "workspace_files": files or None, "model": model}
    body = {name: value for name, value in given.items() if value is not None}
    await asyncio.to_thread(_refuse_existing, out)
    async with connect(session.settings) as connection:
        asked = read(WrittenPlan, await connection.api.post("/v1/plan?wait_s=0", body))
        session.run_id = asked.run.id
        await connection.start_worker(asked.run.id)
        step = await _settled(connection.api, asked.step)
    output = step.output if step.status is StepStatus.COMPLETED and isinstance(step.output, dict) else None
    if output is None:
        why = step.error.message if step.error is not None else f"the step is {step.status}"
        raise CliError(f"no plan: {why}", exit=Exit.FAILED, code="no_plan", fix=f"stepgate show {step.run_id}")
    if out is not None:
        await asyncio.to_thread(out.write_text, _file(goal, output["steps"]), "utf-8")
    if session.terminal.json:
        session.answer({"run_id": step.run_id, "step_id": step.id, **output})
    else:
        _show(session, output["steps"], output["verdicts"])
        told = f"written to {out}" if out is not None else "nothing runs; --out FILE keeps it as a plan"
        say(session.terminal.out, f"{len(output['steps'])} steps; {told}")
        say(session.terminal.out, ("cost  ", "dim"), session.command("cost", step.run_id))
    return Exit.COMPLETED


async def _settled(api: Api, step: views.Step) -> views.Step:
    while step.status not in RESTING:
        await asyncio.sleep(LOOK_S)
        step = await api.step(step.run_id, step.id)
    return step


def _show(session: Session, steps: Sequence[Any], verdicts: Sequence[Any]) -> None:
    by_key = {one["key"]: one for one in verdicts}
    for number, step in enumerate(steps, start=1):
        verdict = by_key.get(step.get("key"), {})
        ruled = f"{verdict.get('verdict', 'ask')} by {', '.join(verdict.get('rules', ()))}"
        out = session.terminal.out
        say(out, f"{number}. {plain_line(str(step.get('key')))}  ", (plain_line(str(step.get("type"))), "bold"))
        say(out, f"   {plain_line(str(step.get('input')))[:200]}")
        say(out, (f"   {plain_line(ruled)}", "dim"))


def _file(goal: str, steps: Sequence[Any]) -> str:
    document = {"version": 1, "goal": goal, "steps": list(steps)}
    return yaml.safe_dump(document, sort_keys=False, default_style=None, width=110)


def _refuse_existing(out: Path | None) -> None:
    if out is not None and out.exists():
        raise usage("--out", f"{out} exists already", "name a file that does not")
