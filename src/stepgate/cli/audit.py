"""Signed evidence of a run: written to a file, and checked without a database."""

import asyncio
import os
from pathlib import Path
from typing import Any

from stepgate.cli.client import RUNS, read
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.faults import usage
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import plain_line
from stepgate.domain import canonical
from stepgate.engine import audit
from stepgate.engine.audits import AuditKey

MAX_BYTES = 1 << 30


async def export(session: Session, name: str, out: Path | None) -> Exit:
    """Writes the bundle to a new file."""
    async with connect(session.settings) as connection:
        run = await connection.api.run(name)
        path = out or Path(f"audit-{run.id}.json")
        if path.exists():
            raise usage("--out", f"{path} exists already", "name a file that does not")
        document = await connection.api.get(f"{RUNS}/{run.id}/audit")
    data = canonical.dumps(document)
    await asyncio.to_thread(_write_new, path, data)
    told = {"run_id": run.id, "file": str(path), "events": len(document["events"]), "bytes": len(data)}
    if session.terminal.json:
        session.answer(told)
    else:
        say(session.terminal.out, f"{plain_line(str(path))}: {told['events']} events, {len(data)} bytes, signed")
    return Exit.COMPLETED


async def verify(session: Session, path: Path, key: str | None) -> Exit:
    """Reads nothing but the file."""
    data = await asyncio.to_thread(_read, path)
    found = await asyncio.to_thread(audit.verify, data, key)
    if session.terminal.json:
        session.answer(_document(found))
    else:
        _tell(session, found)
    return Exit.COMPLETED if found.verified else Exit.UNVERIFIED


async def key(session: Session) -> Exit:
    """The public key that this installation signs with."""
    async with connect(session.settings) as connection:
        document = await connection.api.get("/v1/audit/key")
    if session.terminal.json:
        session.answer(document)
        return Exit.COMPLETED
    found = read(AuditKey, document)
    say(session.terminal.out, found.fingerprint)
    say(session.terminal.out, found.public_pem.strip())
    return Exit.COMPLETED


def _document(found: audit.Audited) -> dict[str, Any]:
    return {
        "verified": found.verified,
        "run_id": found.run_id,
        "events": found.events,
        "first_bad_seq": found.first_bad_seq,
        "reason": found.reason,
        "key": found.key,
        "trusted": found.trusted,
    }


def _tell(session: Session, found: audit.Audited) -> None:
    out = session.terminal.out
    if not found.verified:
        where = "" if found.first_bad_seq is None else f"event {found.first_bad_seq}: "
        say(out, ("not verified", "red"), f": {where}{plain_line(found.reason or '')}")
        return
    say(out, ("audit verified", "green"), f": run {plain_line(found.run_id or '')}, {found.events} events")
    say(out, ("signed by ", "dim"), found.key or "")
    if not found.trusted:
        say(out, "that key was not compared with one you trust: give it with --key, from `stepgate audit key`")


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise usage("FILE", f"{path} is larger than {MAX_BYTES} bytes", "give a file that `audit export` wrote")
        return path.read_bytes()
    except OSError as error:
        raise usage("FILE", f"{path} cannot be read: {error.strerror}", "name a file that exists") from error


def _write_new(path: Path, data: bytes) -> None:
    """Whole or not at all, and never over what is there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise usage("--out", f"{path} cannot be written: {error.strerror}", "name a new file") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise
