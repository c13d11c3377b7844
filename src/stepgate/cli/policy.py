"""`policy check` and `policy explain`: whether the rules hold, and what they would say of a plan."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from stepgate.cli import faults, words
from stepgate.cli.client import read
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.listing import folded
from stepgate.cli.run import parse, read_labels, read_plan
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import plain_line
from stepgate.domain.errors import InvalidPolicy, Problem
from stepgate.domain.params import read_arguments
from stepgate.domain.plan_text import line_of
from stepgate.domain.policy.action import Ruling
from stepgate.domain.policy.decide import BUILTIN, Policy
from stepgate.engine import views
from stepgate.engine.policies import CURRENT, PolicyDetail

STYLES = {Ruling.ALLOW: "green", Ruling.ASK: "yellow", Ruling.DENY: "bold red"}


async def checked(path: Path) -> Policy:
    """The rules of a file; faults are told with their lines."""
    from stepgate.engine.policy_file import read_policy_file  # noqa: PLC0415 - heavy
    from stepgate.executors.registry import installed  # noqa: PLC0415 - the same

    types = [executor.type for executor in installed()]
    try:
        return await asyncio.to_thread(read_policy_file, path, types)
    except OSError as error:
        raise faults.usage("FILE", f"{str(path)!r} cannot be read: {error.strerror}", "name a policy file") from error
    except InvalidPolicy as error:
        fault = faults.of_error(error)
        text = await asyncio.to_thread(path.read_bytes)
        fault.problems = tuple(_placed(problem, path, text) for problem in error.problems)
        raise fault from error


async def check(session: Session, path: Path) -> Exit:
    """Reads nothing but the file: its form, its names and its examples."""
    policy = await checked(path)
    examples = sum(len(rule.examples.match) + len(rule.examples.not_match) for rule in policy.rules)
    told = {"file": str(path), "version": policy.version, "rules": len(policy.rules), "examples": examples}
    if session.terminal.json:
        session.answer(told)
    else:
        counted = f"{told['rules']} rules, {examples} examples hold"
        say(session.terminal.out, f"{plain_line(str(path))}: {counted}; version {policy.version}")
    return Exit.COMPLETED


async def in_force(session: Session) -> PolicyDetail:
    """The rules that this installation goes by."""
    async with connect(session.settings) as connection:
        return await connection.api.read(PolicyDetail, f"/v1/policies/{CURRENT}")


async def explain(session: Session, plan: Path, *, params: Sequence[str], labels: Sequence[str]) -> Exit:
    """By the rules of the server, or those that a worker here would have; exit 3 where a step would be denied."""
    document = parse(plan, read_plan(plan))
    given = read_arguments(document.get("params"), params)
    body = {"plan": document, "params": given, "labels": read_labels(labels)}
    if session.settings.url is not None:
        async with connect(session.settings) as connection:
            found = read(views.Explanation, await connection.api.post("/v1/policies/explain", body))
    else:
        found = await _explained_here(session, body)
    if session.terminal.json:
        session.answer(found.model_dump(mode="json"))
    else:
        _show(session, found)
    return Exit.CANCELLED if found.denied else Exit.COMPLETED


async def _explained_here(session: Session, body: dict[str, Any]) -> views.Explanation:
    """Without a database where a file rules; commands are taken to run at the best level that the settings accept."""
    from stepgate.compose import policy_of_settings  # noqa: PLC0415 - the same
    from stepgate.domain.policy.reading import policy_of  # noqa: PLC0415 - the same
    from stepgate.engine.explaining import Imagined, explain  # noqa: PLC0415 - the same
    from stepgate.engine.keys import LOCAL  # noqa: PLC0415 - heavy
    from stepgate.executors.registry import installed  # noqa: PLC0415 - the same

    registry = installed()
    level = str(session.settings.sandbox_levels[0])
    now = time.time_ns() // 1000
    imagined = Imagined(**body, requester=LOCAL.id, sandbox_level=level, now=now)
    policy = await asyncio.to_thread(policy_of_settings, session.settings, registry)
    if policy is None:
        standing = await in_force(session)
        policy = BUILTIN if standing.source == "builtin" else policy_of(standing.document)
    return await asyncio.to_thread(explain, policy, registry, imagined)


def _show(session: Session, found: views.Explanation) -> None:
    table = folded("#", "step", "type", "verdict", "by", "may still be")
    for step in found.steps:
        table.add_row(
            str(step.number),
            plain_line(step.key),
            step.step_type,
            Text(_verdict(step), style=STYLES[step.verdict]),
            plain_line(", ".join(step.rules)),
            Text("\n".join(_open(step)), style="dim"),
        )
    session.terminal.out.print(table)
    level = "" if found.sandbox_level is None else f"; commands taken to run at {found.sandbox_level}"
    counts = f"{found.allowed} allowed, {found.asked} asked, {found.denied} denied"
    say(session.terminal.out, f"{counts}, by policy {found.policy_version[:12]}{level}")


def _verdict(step: views.ExplainedStep) -> str:
    needed = "" if step.required is None else words.needed(step.required)
    return ", ".join([step.verdict.value, *(["run ahead"] if step.preview else []), *([needed] if needed else [])])


def _open(step: views.ExplainedStep) -> list[str]:
    return [f"{one.verdict.value} by {one.rule}: {one.why}" for one in step.open_rules]


def _placed(problem: Problem, path: Path, text: bytes) -> Problem:
    """The fault with file and line, where it lies in the document."""
    if not problem.field.startswith(("version", "name", "rules")):
        return problem
    line = line_of(text, problem.field)
    return problem if line is None else Problem(f"{path}:{line}: {problem.field}", problem.message, problem.fix)
