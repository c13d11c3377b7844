"""`plans`: the plan files of a folder, with what each wants to be given."""

import asyncio
from pathlib import Path
from typing import Any

from stepgate.cli import faults
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError
from stepgate.cli.run import parse, read_plan
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import exact_line, plain_line
from stepgate.domain import canonical

FOLDER = "plans"
ENDINGS = (".yaml", ".yml", ".json")
MOST = 500


async def plans(session: Session, folder: Path | None) -> Exit:
    """By file name; a file that is no plan is named with what is wrong with it."""
    found = await asyncio.to_thread(_look, folder or Path(FOLDER))
    if session.terminal.json:
        session.answer({"items": found})
        return Exit.COMPLETED
    out = session.terminal.out
    for one in found:
        say(out, (exact_line(one["file"]), "bold"), f"  {plain_line(one['goal'] or one['name'] or '', 200)}")
        for name, param in one["params"].items():
            given = "required" if param["required"] else f"default {canonical.dumps(param['default']).decode()}"
            allowed = f", one of {canonical.dumps(param['enum']).decode()}" if param["enum"] is not None else ""
            about = f"  {param['description']}" if param["description"] else ""
            say(out, plain_line(f"    -p {name}=  {param['type']}, {given}{allowed}{about}", 300))
        if one["fault"] is not None:
            say(out, (f"    no plan: {plain_line(one['fault'], 300)}", "red"))
    if not found:
        say(out, ("no plans there", "dim"))
    return Exit.COMPLETED


def _look(folder: Path) -> list[dict[str, Any]]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file())
    except OSError as error:
        raise faults.usage("DIR", f"{str(folder)!r} cannot be read: {error}", "name a folder of plans") from error
    return [_described(path) for path in files[:MOST]]


def _described(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"file": str(path), "name": None, "goal": None, "params": {}, "fault": None}
    try:
        document = parse(path, read_plan(path))
    except CliError as error:
        return told | {"fault": str(error)}
    specs = document.get("params")
    params = specs if isinstance(specs, dict) else {}
    told["params"] = {str(name): _param(spec if isinstance(spec, dict) else {}) for name, spec in params.items()}
    return told | {name: _text(document.get(name)) for name in ("name", "goal")}


def _param(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": str(spec.get("type", "string")),
        "required": "default" not in spec,
        "default": spec.get("default"),
        "enum": spec.get("enum"),
        "description": _text(spec.get("description")),
    }


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
