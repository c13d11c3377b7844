"""Delegations: give one's approvals to another person for a time, list them, end one."""

from stepgate.cli import words
from stepgate.cli.client import read, segment
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.listing import folded, show_all
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import plain_line
from stepgate.engine.delegations import Delegation

ADDRESS = "/v1/delegations"


async def add(session: Session, to: str, ends_at: str, starts_at: str | None, reason: str | None) -> Exit:
    """The caller's own approvals."""
    body = {"to": to, "ends_at": ends_at, "starts_at": starts_at, "reason": reason}
    async with connect(session.settings) as connection:
        document = await connection.api.post(ADDRESS, {k: v for k, v in body.items() if v is not None})
    if session.terminal.json:
        session.answer(document)
        return Exit.COMPLETED
    given = read(Delegation, document)
    until = words.local_time(given.ends_at)
    say(session.terminal.out, f"{given.id}: {plain_line(given.delegate)} may approve for you until {until}")
    return Exit.COMPLETED


async def listed(session: Session) -> Exit:
    """All of them, the newest first, also those that are over."""
    table = folded("id", "of", "to", "roles", "from", "until", "state")
    return await show_all(session, ADDRESS, Delegation, table, _row, nothing="nobody's approvals are delegated")


def _row(one: Delegation) -> tuple[str, ...]:
    times = (words.local_time(one.starts_at), words.local_time(one.ends_at))
    people = (plain_line(one.delegator), plain_line(one.delegate))
    return one.id, *people, ", ".join(one.roles), *times, _state(one)


def _state(one: Delegation) -> str:
    if one.revoked_at is not None:
        return f"ended by {plain_line(one.revoked_by or '')}"
    return "stands" if one.stands else "does not stand now"


async def remove(session: Session, delegation_id: str) -> Exit:
    """At once and for good; what was decided stands."""
    async with connect(session.settings) as connection:
        document = await connection.api.delete(f"{ADDRESS}/{segment(delegation_id, 'ID')}")
    if session.terminal.json:
        session.answer(document)
    else:
        ended = read(Delegation, document)
        say(session.terminal.out, f"{plain_line(ended.delegate)} approves no more for {plain_line(ended.delegator)}")
    return Exit.COMPLETED
