"""API keys: give one out, list them, take one back."""

import sys
from collections.abc import Sequence

from stepgate.cli import words
from stepgate.cli.client import read, segment
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.listing import folded, show_all
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import plain_line
from stepgate.engine.keys import ApiKey, GivenKey


async def create(
    session: Session, name: str, kind: str, roles: Sequence[str], expires_at: str | None, tenant: str | None
) -> Exit:
    """Shows the key this once."""
    body = {"name": name, "kind": kind, "roles": list(roles), "expires_at": expires_at, "tenant": tenant}
    async with connect(session.settings) as connection:
        document = await connection.api.post("/v1/keys", {k: v for k, v in body.items() if v is not None})
    if session.terminal.json:
        session.answer(document)
        return Exit.COMPLETED
    given = read(GivenKey, document)
    say(session.terminal.out, (given.key, "bold"))
    print("this is shown once; from the first key on, every caller of a server needs one", file=sys.stderr)
    return Exit.COMPLETED


async def listed(session: Session, tenant: str | None) -> Exit:
    """All of them, also those that no longer count."""
    nothing = "there are no keys: only this machine may call, decisions need the local secret"
    table = folded("name", "kind", "roles", "prefix", "last used", "state")
    of = {} if tenant is None else {"tenant": tenant}
    return await show_all(session, "/v1/keys", ApiKey, table, _row, nothing=nothing, **of)


def _row(key: ApiKey) -> tuple[str, ...]:
    used = words.NOTHING if key.last_used_at is None else key.last_used_at
    return plain_line(key.name), key.kind, ", ".join(key.roles), key.prefix, used, _state(key)


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at}"
    return "counts" if key.expires_at is None else f"expires {key.expires_at}"


async def revoke(session: Session, name: str, tenant: str | None) -> Exit:
    """It counts no more, for good."""
    of = "" if tenant is None else f"?tenant={segment(tenant, '--tenant')}"
    async with connect(session.settings) as connection:
        document = await connection.api.post(f"/v1/keys/{segment(name, 'NAME')}/revoke{of}")
    if session.terminal.json:
        session.answer(document)
    else:
        say(session.terminal.out, f"{plain_line(read(ApiKey, document).name)} is revoked")
    return Exit.COMPLETED
