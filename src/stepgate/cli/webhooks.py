"""Webhooks: add one, list them, remove one, look at what was sent, send it again."""

import sys
from collections.abc import Sequence

from stepgate.cli import words
from stepgate.cli.client import PAGE, read, segment
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.listing import folded, show_all
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import plain_line
from stepgate.engine.views import Page
from stepgate.engine.webhooks.hooks import MadeWebhook, Sent, Webhook

PATH = "/v1/webhooks"


async def add(session: Session, url: str, events: Sequence[str], format_: str) -> Exit:
    """Shows the secret this once."""
    body = {"url": url, "format": format_, **({"events": list(events)} if events else {})}
    async with connect(session.settings) as connection:
        document = await connection.api.post(PATH, body)
    if session.terminal.json:
        session.answer(document)
        return Exit.COMPLETED
    made = read(MadeWebhook, document)
    say(session.terminal.out, (made.secret, "bold"))
    print(f"webhook {made.id}; its secret is shown this once", file=sys.stderr)
    return Exit.COMPLETED


async def listed(session: Session) -> Exit:
    table = folded("id", "url", "format", "events", "state")
    return await show_all(session, PATH, Webhook, table, _row, nothing="there are no webhooks: nobody is told")


def _row(one: Webhook) -> tuple[str, ...]:
    state = "counts" if one.disabled_at is None else f"disabled: {plain_line(one.disabled_reason or '')}"
    return one.id, plain_line(one.url), one.format, ", ".join(one.events), state


async def remove(session: Session, webhook_id: str) -> Exit:
    async with connect(session.settings) as connection:
        document = await connection.api.delete(f"{PATH}/{segment(webhook_id, 'ID')}")
    if session.terminal.json:
        session.answer(document)
    else:
        say(session.terminal.out, f"{plain_line(read(Webhook, document).url)} is told nothing more")
    return Exit.COMPLETED


async def deliveries(session: Session, webhook_id: str) -> Exit:
    """The latest page of them, each with its last attempt."""
    async with connect(session.settings) as connection:
        document = await connection.api.get(f"{PATH}/{segment(webhook_id, 'ID')}/deliveries", limit=PAGE)
    if session.terminal.json:
        session.answer(document)
        return Exit.COMPLETED
    table = folded("id", "event", "happened", "status", "attempts", "last answer", "took", "next")
    for one in read(Page[Sent], document).items:
        last = one.attempts[-1] if one.attempts else None
        answer = words.NOTHING if last is None else str(last.http_status or plain_line(last.error or ""))
        took = words.NOTHING if last is None else words.duration(last.duration_ms)
        due = one.next_at or words.NOTHING
        table.add_row(one.id, one.type, one.happened_at, one.status, str(len(one.attempts)), answer, took, due)
    session.terminal.out.print(table)
    return Exit.COMPLETED


async def redeliver(session: Session, webhook_id: str, delivery_id: str) -> Exit:
    path = f"{PATH}/{segment(webhook_id, 'ID')}/deliveries/{segment(delivery_id, 'DELIVERY')}/redeliver"
    async with connect(session.settings) as connection:
        document = await connection.api.post(path)
    if session.terminal.json:
        session.answer(document)
    else:
        say(session.terminal.out, f"{read(Sent, document).type} is sent again")
    return Exit.COMPLETED
