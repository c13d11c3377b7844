"""`budget` and `budgets`: what a run, or several together, may spend."""

from typing import Any

from rich.table import Table

from stepgate.cli import words
from stepgate.cli.client import RUNS, read, segment
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.faults import usage
from stepgate.cli.listing import folded, show_all
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
    return await show_all(session, BUDGETS, Budget, _table(), _row, nothing="runs share no budget")


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
        table = _table()
        table.add_row(*_row(read(Budget, document)))
        session.terminal.out.print(table)
    return Exit.COMPLETED


def _table() -> Table:
    return folded("budget", "of", "spent", "held", "limit", "used")


def _row(one: Budget) -> tuple[str, ...]:
    of = plain_line(one.label or "all runs") + (" a day" if one.day else "")
    spent, held, limit = (words.amount(value, one.limit) for value in (one.spent, one.held, one.limit))
    return one.id, of, spent, held, limit, f"{one.percent} %"
