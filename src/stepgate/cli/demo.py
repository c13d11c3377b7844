"""`demo`: the main job on the sample project, from nothing to a verified journal."""

import secrets
import time
from pathlib import Path

from stepgate.cli import faults, run, sample
from stepgate.cli.connect import Connection, connect
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import exact_line, plain, plain_line
from stepgate.settings import Settings


def scratch(settings: Settings, keep: Path | None) -> Path:
    """Where the copy will lie: below the state folder, or where the person wants it; raises CliError if that is full.

    The state folder is reachable by the sandbox of root's and of an ordinary user's, and survives a restart, so
    that the run can be undone tomorrow.
    """
    if keep is None:
        name = f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        return settings.state_dir / "workspaces" / name
    folder = keep.absolute()
    if folder.is_dir() and any(folder.iterdir()):
        raise faults.usage("--keep", f"the folder {str(folder)!r} is not empty", "name a new or an empty folder")
    if folder.exists() and not folder.is_dir():
        raise faults.usage("--keep", f"{str(folder)!r} is not a folder", "name a new or an empty folder")
    return folder


async def demo(session: Session, *, yes: bool, keep: Path | None) -> Exit:
    """Nothing is made before it is clear that the questions can be answered and commands can run."""
    if not yes and not session.terminal.can_ask:
        raise CliError(
            "the demo asks before it runs commands and changes files, and there is no terminal to ask on",
            exit=Exit.USAGE,
            code="no_terminal",
            fix="run it in a terminal, or add --yes to approve everything",
        )
    found = sample.find()
    folder = scratch(session.settings, keep)
    if session.settings.url:
        say(session.terminal.progress, "note: the demo runs on this machine; STEPGATE_URL is not used")
    session.settings = session.settings.model_copy(update={"workspace_root": folder, "url": None})
    async with connect(session.settings, migrate=True) as connection:
        await _introduce(session, connection, folder)
        sample.copy(found, folder)
        text = found.plan.read_bytes()
        body = {
            "plan": run.parse(found.plan, text),
            "workspace_path": str(folder),
            "labels": {"from": "demo"},
            "start": True,
        }
        created = await run.create(connection.api, body, found.plan, text)
        say(session.terminal.progress, ("run        ", "dim"), created.id)
        session.terminal.progress.print()
        return await run.to_the_end(session, connection, created, yes=yes)


async def _introduce(session: Session, connection: Connection, folder: Path) -> None:
    """Says what it will work with; raises CliError where commands cannot run."""
    await connection.probe_sandbox()
    health = await connection.api.health()
    if health.sandbox.level is None:
        raise CliError(
            health.sandbox.error or "no sandbox",
            exit=Exit.NO_SANDBOX,
            code="sandbox_unavailable",
            fix="the demo runs commands, and no command runs outside a sandbox; see docs/troubleshooting.md",
        )
    held = sum(canary.passed for canary in health.sandbox.canaries)
    out = session.terminal.progress
    say(out, ("Stepgate demo: ", "bold"), "find out why a project's tests fail, mend it, show that they pass")
    if health.database.version:
        whose = "embedded" if session.settings.database_url is None else "yours"
        say(out, ("database   ", "dim"), f"PostgreSQL {plain_line(health.database.version)}, {whose}")
    say(out, ("sandbox    ", "dim"), f"{health.sandbox.level}, {held} of {len(health.sandbox.canaries)} canaries held")
    for weakness in health.sandbox.weaknesses:
        say(out, ("           ", "dim"), (plain(weakness.reason), "yellow"))
    say(
        out,
        ("model      ", "dim"),
        f"{plain_line(health.router.model or health.router.name)}: {plain(health.router.detail)}",
    )
    say(out, ("workspace  ", "dim"), exact_line(str(folder)))
