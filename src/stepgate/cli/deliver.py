"""`deliver` and `discard`: what becomes of a run's result and of its private copy."""

import os
import secrets
from pathlib import Path

from stepgate.cli import faults, moving
from stepgate.cli.client import RUNS, read
from stepgate.cli.connect import connect
from stepgate.cli.decide import recorded
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import exact_line, plain_line
from stepgate.engine import views


async def apply(session: Session, run_name: str, *, yes: bool, wait: bool) -> Exit:
    """Makes the run that changes the folder, shows what it would change, asks, and follows it."""
    if wait and not yes and not session.terminal.can_ask:
        raise CliError(
            "a delivery asks before it changes files, and there is no terminal to ask on",
            exit=Exit.USAGE,
            code="no_terminal",
            fix="run it in a terminal, add --yes to approve it, or --no-wait to only record it",
        )
    async with connect(session.settings) as connection:
        run = await connection.api.run(run_name)
        session.about = run.id
        delivered = await connection.api.deliver(run.id, {"as": "apply"})
        if delivered.run is None or delivered.step is None:
            raise faults.usage("--apply", "the server made no run for it", "use the same version on both sides")
        say(session.terminal.progress, f"run {delivered.run.id} in ", (delivered.run.workspace_path, "bold"))
        if not wait:
            return recorded(session, delivered.run, delivered.step)
        gates = moving.gates(session, yes=yes, choices=("approve", "reject", "view"))
        stand = await moving.follow(session, connection, delivered.run, gates)
        return await moving.conclude(session, connection, stand)


async def patch(session: Session, run_name: str, file: Path, *, force: bool) -> Exit:
    """Writes the patch whole or not at all, and never over another file unless it is told to."""
    if not force:
        check_free(file)
    async with connect(session.settings) as connection:
        run = await connection.api.run(run_name)
        session.about = run.id
        found = (await connection.api.deliver(run.id, {"as": "patch"})).patch
        if found is None:
            raise faults.usage("--patch", "the server gave no patch", "use the same version on both sides")
        write(file, found.text.encode(), force=force)
        if session.terminal.json:
            left_out = [one.model_dump() for one in found.left_out]
            session.answer(
                {"run_id": run.id, "patch": str(file), "bytes": len(found.text.encode()), "left_out": left_out}
            )
            return Exit.COMPLETED
        tell_left_out(session, found.left_out)
        say(session.terminal.out, f"{exact_line(str(file))} is written; apply it in the folder with: git apply")
        return Exit.COMPLETED


async def branch(session: Session, run_name: str, name: str) -> Exit:
    """Makes it in the repository of the folder; the same again changes nothing."""
    async with connect(session.settings) as connection:
        run = await connection.api.run(run_name)
        session.about = run.id
        found = (await connection.api.deliver(run.id, {"as": "branch", "branch": name})).branch
        if found is None:
            raise faults.usage("--branch", "the server made no branch", "use the same version on both sides")
        if session.terminal.json:
            session.answer({"run_id": run.id, **found.model_dump(mode="json")})
            return Exit.COMPLETED
        tell_left_out(session, found.left_out)
        for commit in found.commits:
            say(session.terminal.out, (f"{commit.commit[:12]}  ", "dim"), plain_line(commit.subject))
        base = "a history of its own" if found.base is None else found.base[:12]
        say(session.terminal.out, "branch ", (plain_line(found.name), "bold"), f" on {base}")
        return Exit.COMPLETED


async def discard(session: Session, run_name: str, *, yes: bool) -> Exit:
    """The recorded result stays deliverable."""
    async with connect(session.settings) as connection:
        run = await connection.api.run(run_name)
        session.about = run.id
        if not yes:
            raise faults.usage(
                "--yes",
                f"this removes {run.private_copy.path if run.private_copy else 'a private copy'} for good",
                "add --yes; the recorded result can be delivered all the same",
            )
        found = read(views.Discarded, await connection.api.post(f"{RUNS}/{run.id}/discard"))
        if session.terminal.json:
            session.answer({"run_id": run.id, "removed": found.removed})
        else:
            say(session.terminal.out, "the private copy is removed" if found.removed else "it was removed before")
        return Exit.COMPLETED


def check_free(file: Path) -> None:
    """Raises CliError where the file exists, before anything is asked for."""
    if file.exists():
        raise _exists(file)


def write(file: Path, data: bytes, *, force: bool) -> None:
    """Raises CliError where the file exists, unless `force`, and where it cannot be written."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            if force:
                temporary.replace(file)
            else:
                file.hardlink_to(temporary)  # unlike a rename it never replaces what somebody made meanwhile
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError as error:
        raise _exists(file) from error
    except OSError as error:
        raise faults.usage(
            "--patch", f"{str(file)!r} cannot be written: {error}", "name a file in a folder of yours"
        ) from error


def tell_left_out(session: Session, left_out: list[views.LeftOut]) -> None:
    """What is not part of the delivery, each with its reason."""
    for one in left_out:
        say(session.terminal.progress, ("left out  ", "yellow"), f"{plain_line(one.path)}: {plain_line(one.reason)}")


def _exists(file: Path) -> CliError:
    return faults.usage("--patch", f"{str(file)!r} exists", "name another file, or add --force to replace it")
