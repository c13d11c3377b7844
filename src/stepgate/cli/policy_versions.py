"""`policy list`, `show` and `apply`: the versions of the rules, what one says, and sending a new one."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from stepgate.cli import words
from stepgate.cli.client import read, segment
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.listing import folded, show_all
from stepgate.cli.policy import checked
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import plain, plain_line
from stepgate.domain import canonical
from stepgate.domain.policy.model import PolicyDocument
from stepgate.engine.policies import PolicyDetail, PolicyVersion

POLICIES = "/v1/policies"


async def listed(session: Session) -> Exit:
    """All of them, the newest first."""
    nothing = "no policy was ever used: each step type's own gate holds"
    table = folded("version", "name", "source", "rules", "by", "since", "")
    return await show_all(session, POLICIES, PolicyVersion, table, _row, nothing=nothing)


def _row(one: PolicyVersion) -> tuple[str, ...]:
    name, by = plain_line(one.name or words.NOTHING), plain_line(one.created_by or words.NOTHING)
    since = words.NOTHING if one.created_at is None else words.local_time(one.created_at)
    return one.version[:12], name, one.source, str(one.rules), by, since, "in force" if one.current else ""


async def show(session: Session, version: str) -> Exit:
    """The rules as a policy file has them."""
    async with connect(session.settings) as connection:
        found = await connection.api.read(PolicyDetail, f"{POLICIES}/{segment(version, 'VERSION')}")
    if session.terminal.json:
        session.answer(found.model_dump(mode="json"))
        return Exit.COMPLETED
    current = ", in force" if found.current else ""
    by = "" if found.created_by is None else f", by {plain_line(found.created_by)}"
    say(session.terminal.out, f"# {found.version}, from {found.source}{by}{current}")
    say(
        session.terminal.out,
        plain(yaml.safe_dump(_ordered(found.document), sort_keys=False, allow_unicode=True)).rstrip(),
    )
    return Exit.COMPLETED


def _ordered(document: dict[str, Any]) -> dict[str, Any]:
    """As its author would write it; as it came where a newer server has fields that are not known here."""
    try:
        shape = PolicyDocument.model_validate(document)
    except ValidationError:
        return document
    return shape.model_dump(mode="json", exclude_defaults=True)


async def apply(session: Session, path: Path, replaces: str | None) -> Exit:
    """Checked here first, so that faults are told with their lines."""
    policy = await checked(path)
    body = {"policy": canonical.loads(policy.text)} | ({} if replaces is None else {"replaces": replaces})
    async with connect(session.settings) as connection:
        document = await connection.api.post(POLICIES, body)
    if session.terminal.json:
        session.answer(document)
        return Exit.COMPLETED
    applied = read(PolicyDetail, document)
    say(session.terminal.out, f"in force: policy {applied.version}, {applied.rules} rules")
    return Exit.COMPLETED
