"""`workspaces`: folders with names."""

from rich import box
from rich.table import Table

from stepgate.cli.client import WORKSPACES, read, segment
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.run import absolute
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import exact_line, plain_line
from stepgate.engine import views


async def list_all(session: Session) -> Exit:
    """In order of their names."""
    async with connect(session.settings) as connection:
        items = await connection.api.every(WORKSPACES)
        if session.terminal.json:
            session.answer({"items": items, "next_cursor": None})
            return Exit.COMPLETED
        found = [read(views.Workspace, one) for one in items]
        if not found:
            line = session.command("workspaces", "add", "NAME", "DIR")
            say(session.terminal.out, ("no workspace has a name; give one:  ", "dim"), line)
            return Exit.COMPLETED
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("name", "mode", "folder"):
            table.add_column(name, no_wrap=name != "folder")
        for one in found:
            table.add_row(plain_line(one.name), one.mode, exact_line(one.path))
        session.terminal.out.print(table)
        return Exit.COMPLETED


async def add(session: Session, name: str, folder: str, *, isolated: bool) -> Exit:
    """The same again changes nothing."""
    path = folder if session.settings.url else absolute(folder)
    body = {"name": name, "path": path, "mode": "isolated" if isolated else "in_place"}
    async with connect(session.settings) as connection:
        document = await connection.api.post(WORKSPACES, body)
        if session.terminal.json:
            session.answer(document)
        else:
            found = read(views.Workspace, document)
            say(session.terminal.out, (plain_line(found.name), "bold"), f": {exact_line(found.path)}, {found.mode}")
        return Exit.COMPLETED


async def remove(session: Session, name: str) -> Exit:
    """The folder and the runs in it stay."""
    async with connect(session.settings) as connection:
        document = await connection.api.delete(f"{WORKSPACES}/{segment(name, 'NAME')}")
        if session.terminal.json:
            session.answer(document)
        else:
            found = read(views.Workspace, document)
            say(session.terminal.out, f"forgotten; the folder stays: {exact_line(found.path)}")
        return Exit.COMPLETED
