"""`budget` and `budgets`: what a run, or several together, may spend."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from stepgate.cli import words
from stepgate.cli.client import PAGE, RUNS, read, segment
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.faults import usage
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import plain_line
from stepgate.domain.states import RunStatus
from stepgate.engine import views
from stepgate.engine.budgets import Budget

BUDGETS = "/v1/budgets"


async def of_run(session: Session, name: str, add_usd: str | None, add_tokens: int | None) -> Exit:
    """Shows it, as it is after what was added."""
    added: dict[str, Any] = {"add_usd": add_usd, "add_tokens": add_tokens}
    added = {field: value for field, value in added.items() if value is not None}
    async with connect(session.settings) as connection:
        run = await connection.api.run(name)
        session.about = run.id
        path = f"{RUNS}/{run.id}"
        document = await connection.api.post(f"{path}/budget", added) if added else await connection.api.get(path)
    run = read(views.RunDetail, document)
    if session.terminal.json:
        session.answer({"run_id": run.id, "status": run.status.value, "budget": document.get("budget")})
        return Exit.COMPLETED
    out = session.terminal.out
    if run.budget is None:
        say(out, "the run has no limit of its own")
        return Exit.COMPLETED
    say(out, words.budget(run.budget.spent, run.budget.held, run.budget.limit, run.budget.percent))
    if added and run.status is RunStatus.PAUSED and run.reason == "budget":
        say(out, ("go on  ", "dim"), session.command("run", "--continue", run.id))
    return Exit.COMPLETED


async def listed(session: Session) -> Exit:
    """All of them, the oldest first."""
    found: list[Any] = []
    cursor: str | None = None
    async with connect(session.settings) as connection:
        while True:
            more = {} if cursor is None else {"cursor": cursor}
            page = await connection.api.get(BUDGETS, limit=PAGE, **more)
            found += page["items"]
            if (cursor := page["next_cursor"]) is None:
                break
    if session.terminal.json:
        session.answer({"items": found})
        return Exit.COMPLETED
    if not found:
        say(session.terminal.out, "runs share no budget")
        return Exit.COMPLETED
    _show(session, [read(Budget, one) for one in found])
    return Exit.COMPLETED


async def set_one(session: Session, label: str | None, usd: str | None, tokens: int | None, *, daily: bool) -> Exit:
    """Tells how it stands."""
    scope = "+".join(name for name, there in (("label", label is not None), ("day", daily)) if there)
    if not scope:
        raise usage("--daily", "a budget of all runs is one of a day", "add --daily, or name a label with --label")
    body: dict[str, Any] = {"scope": scope, "label": label, "cost_usd": usd, "tokens": tokens}
    async with connect(session.settings) as connection:
        document = await connection.api.post(
            BUDGETS, {name: value for name, value in body.items() if value is not None}
        )
    return _told(session, document)


async def remove(session: Session, budget_id: str) -> Exit:
    """Tells what it was."""
    async with connect(session.settings) as connection:
        document = await connection.api.delete(f"{BUDGETS}/{segment(budget_id, 'ID')}")
    return _told(session, document)


def _told(session: Session, document: Any) -> Exit:
    if session.terminal.json:
        session.answer(document)
    else:
        _show(session, [read(Budget, document)])
    return Exit.COMPLETED


def _show(session: Session, found: Sequence[Budget]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("budget", "of", "spent", "held", "limit", "used"):
        table.add_column(column, overflow="fold")
    for one in found:
        of = plain_line(one.label or "all runs") + (" a day" if one.day else "")
        table.add_row(
            one.id,
            of,
            words.amount(one.spent, one.limit),
            words.amount(one.held, one.limit),
            words.amount(one.limit, one.limit),
            f"{one.percent} %",
        )
    session.terminal.out.print(table)
