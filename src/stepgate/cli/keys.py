"""API keys: give one out, list them, take one back."""

import sys
from collections.abc import Sequence

from rich import box
from rich.table import Table

from stepgate.cli import words
from stepgate.cli.client import PAGE, read, segment
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import plain_line
from stepgate.engine.keys import ApiKey, GivenKey
from stepgate.engine.views import Page


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
    of = {} if tenant is None else {"tenant": tenant}
    items: list[ApiKey] = []
    cursor: str | None = None
    async with connect(session.settings) as connection:
        while True:
            more = {} if cursor is None else {"cursor": cursor}
            page = await connection.api.read(Page[ApiKey], "/v1/keys", limit=PAGE, **more, **of)
            items += page.items
            if (cursor := page.next_cursor) is None:
                break
    if session.terminal.json:
        session.answer({"items": [one.model_dump(mode="json") for one in items]})
        return Exit.COMPLETED
    if not items:
        say(session.terminal.out, "there are no keys: only this machine may call, decisions need the local secret")
        return Exit.COMPLETED
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "kind", "roles", "prefix", "last used", "state"):
        table.add_column(column, overflow="fold")
    for one in items:
        used = words.NOTHING if one.last_used_at is None else one.last_used_at
        table.add_row(plain_line(one.name), one.kind, ", ".join(one.roles), one.prefix, used, _state(one))
    session.terminal.out.print(table)
    return Exit.COMPLETED


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
