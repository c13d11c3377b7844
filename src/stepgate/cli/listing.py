"""Lists: all pages of one, as one table or as one JSON object."""

from collections.abc import Callable, Iterable
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table

from stepgate.cli.client import Shape, read
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.session import Session
from stepgate.cli.terminal import say


def folded(*columns: str) -> Table:
    """A table that breaks long cells over lines rather than cut what they say."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


async def show_all(
    session: Session,
    path: str,
    shape: type[Shape],
    table: Table,
    row: Callable[[Shape], Iterable[RenderableType]],
    *,
    nothing: str,
    **params: Any,
) -> Exit:
    """Everything that is listed there, a row each in `table`; `nothing` is said of an empty list."""
    async with connect(session.settings) as connection:
        items = await connection.api.every(path, **params)
    if session.terminal.json:
        session.answer({"items": items})
    elif not items:
        say(session.terminal.out, nothing)
    else:
        for one in items:
            table.add_row(*row(read(shape, one)))
        session.terminal.out.print(table)
    return Exit.COMPLETED
