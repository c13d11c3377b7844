"""`edit`: another input in the place of the one that is asked about; the new action is then asked about in its turn."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepgate.cli import faults, moving
from stepgate.cli.connect import connect
from stepgate.cli.decide import find, recorded
from stepgate.cli.exits import Exit
from stepgate.cli.run import parse, read_plan
from stepgate.cli.session import Session
from stepgate.cli.terminal import say


async def edit(
    session: Session,
    run_name: str,
    step_name: str,
    *,
    hash_: str | None,
    file: Path | None,
    fields: Sequence[str],
    removed: Sequence[str],
    reason: str | None,
    wait: bool,
) -> Exit:
    """Without a hash it is the action that is asked about now; whoever decided meanwhile was first."""
    if (file is None) == (not fields and not removed):
        raise faults.usage("--set", "say what to change", "give --set NAME=VALUE, --unset NAME, or --input FILE alone")
    given = None if file is None else await asyncio.to_thread(_read, file)
    async with connect(session.settings) as connection:
        run, step = await find(session, connection, run_name, step_name)
        new = _changed(step.input or {}, fields, removed) if given is None else given
        shown = step.approval.action_hash if step.approval is not None else "0" * 64
        body = {"action_hash": hash_ or shown, "input": new, "reason": reason}
        done = await connection.api.decide(step, "edit", body)
        session.run_id = run.id
        say(session.terminal.progress, f"{step.key}: ", ("edited", "bold"))
        run = await connection.api.run(run.id)
        if not wait:
            return recorded(session, run, done)
        stand = await moving.follow(session, connection, run, moving.gates(session, yes=False))
        return await moving.conclude(session, connection, stand)


def _read(path: Path) -> dict[str, Any]:
    return parse(path, read_plan(path))


def _changed(present: dict[str, Any], fields: Sequence[str], removed: Sequence[str]) -> dict[str, Any]:
    new = {name: value for name, value in present.items() if name not in removed}
    for field in fields:
        name, equals, text = field.partition("=")
        if not equals or not name:
            raise faults.usage("--set", f"{field!r} is not of the form NAME=VALUE", "such as --set cwd=src")
        new[name] = _value(text)
    return new


def _value(text: str) -> Any:
    """JSON where it is some, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
