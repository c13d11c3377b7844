"""`serve`, `worker`, `migrate` and `settings`: what an operator starts and looks at."""

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.domain.errors import Problem
from stepgate.engine.sandbox_health import in_a_word
from stepgate.settings import Settings, Source

if TYPE_CHECKING:
    from stepgate.compose import Stack

BACKLOG = 2048
ENDING = (signal.SIGINT, signal.SIGTERM)


async def serve(session: Session) -> Exit:
    """The API, and a worker unless it is turned off, until a signal ends it."""
    import uvicorn  # noqa: PLC0415 - only this command needs it

    from stepgate.compose import app_of_stack, open_stack  # noqa: PLC0415 - the same

    settings = session.settings
    with listen(settings) as listener:
        async with open_stack(settings) as stack:
            await stack.watch_policy()  # a server without a worker explains by it
            reread_on_hangup(stack)
            await _refuse_open_address(settings, listener, stack)
            await stack.sender.start()
            if settings.embedded_worker:
                await stack.start_worker()
            config = uvicorn.Config(app_of_stack(stack), log_config=None, access_log=settings.log_level == "debug")
            server = uvicorn.Server(config)
            say(session.terminal.out, ("Stepgate ", "bold"), f"listens on {address(listener)}")
            say(session.terminal.out, ("console  ", "dim"), f"{address(listener)}/console")
            say(session.terminal.out, ("docs     ", "dim"), f"{address(listener)}/docs")
            worker = "in this process" if settings.embedded_worker else "none here; start one with: stepgate worker"
            say(session.terminal.out, ("worker   ", "dim"), worker)
            if settings.embedded_worker:
                style = "yellow" if stack.sandbox is None or stack.sandbox.degraded else ""
                told = in_a_word(stack.sandbox, stack.sandbox_refused)
                say(session.terminal.out, ("sandbox  ", "dim"), (told, style))
            session.terminal.out.file.flush()
            with survived_signals():
                await server.serve(sockets=[listener])
    return Exit.COMPLETED


def reread_on_hangup(stack: "Stack") -> None:
    """SIGHUP has the rules read again, but where it says that the terminal is gone."""
    if not sys.stdin.isatty():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stack.policies.wake)


async def _refuse_open_address(settings: Settings, listener: socket.socket, stack: "Stack") -> None:
    """Raises CliError for an address that other machines reach while nobody there would need a key."""
    host = listener.getsockname()[0]
    if ip_address(host).is_loopback or settings.key is not None or stack.issuer is not None or await stack.keys.any():
        return
    raise _cannot_listen(
        "STEPGATE_HOST",
        f"{host} can be reached from other machines, and no key is configured",
        "give out a key first (stepgate keys create NAME --role admin), or listen on 127.0.0.1",
    )


@contextmanager
def survived_signals() -> Iterator[None]:
    """Uvicorn, once it has stopped for a signal, raises it again, which would end the process with the stack open."""
    for number in ENDING:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def listen(settings: Settings) -> socket.socket:
    """A bound socket; raises CliError where the port is taken or the address is none of this machine's."""
    host, port = settings.host, settings.port
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise _cannot_listen(
            "STEPGATE_HOST", f"{host!r} is no address: {error.strerror}", "set it to 127.0.0.1"
        ) from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except PermissionError as error:
        listener.close()
        raise _cannot_listen("STEPGATE_PORT", f"you may not listen on port {port}", "choose one over 1023") from error
    except OSError as error:
        listener.close()
        fix = "end the program that listens there, or choose another port with --port (0: any free one)"
        raise _cannot_listen("STEPGATE_PORT", f"cannot listen on {host}:{port}: {error.strerror}", fix) from error
    listener.setblocking(False)
    return listener


def address(listener: socket.socket) -> str:
    """The URL that leads to it from this machine."""
    host, port = listener.getsockname()[:2]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"


def _cannot_listen(field: str, message: str, fix: str) -> CliError:
    return CliError(message, exit=Exit.ENVIRONMENT, code="cannot_listen", problems=(Problem(field, message, fix),))


async def work(session: Session) -> Exit:
    """A worker without an API, until a signal ends it; then its runs are given back."""
    from stepgate.compose import open_stack  # noqa: PLC0415 - heavy

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with open_stack(session.settings) as stack:
        worker = await stack.start_worker()
        reread_on_hangup(stack)
        for number in ENDING:
            loop.add_signal_handler(number, stop.set)
        sandbox = in_a_word(stack.sandbox, stack.sandbox_refused)
        say(session.terminal.out, f"worker {worker.id} looks for due runs; Ctrl-C ends it")
        say(session.terminal.out, f"sandbox: {sandbox}")
        session.terminal.out.file.flush()
        await stop.wait()
    return Exit.COMPLETED


async def migrate(session: Session) -> Exit:
    """Brings the database to the schema of this version."""
    from stepgate.compose import database_url  # noqa: PLC0415 - heavy
    from stepgate.storage import schema  # noqa: PLC0415 - the same

    async with AsyncExitStack() as exits:
        url, embedded = await database_url(session.settings, exits)
        before = await schema.upgrade(url)
    if session.terminal.json:
        session.answer({"before": before.current, "after": before.head, "embedded": embedded})
    elif before.fits:
        say(session.terminal.out, f"nothing to do: the database is at {before.head}")
    else:
        say(session.terminal.out, f"migrated from {before.current or 'an empty database'} to {before.head}")
    return Exit.COMPLETED


async def settings(session: Session) -> Exit:
    """Name, value and source of every setting; secrets are masked."""
    listing = session.settings.listing()
    if session.terminal.json:
        items = [
            {"name": one.name, "value": one.value, "source": one.source.value, "meaning": one.meaning}
            for one in listing
        ]
        session.answer({"settings": items, "notices": list(session.settings.notices)})
        return Exit.COMPLETED
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "value", "source"):
        table.add_column(name, no_wrap=name != "value", overflow="fold")
    for one in listing:
        style = "dim" if one.source is Source.DEFAULT else "bold"
        table.add_row(one.name, Text(one.value or "-", style=style), Text(one.source.value, style=style))
    session.terminal.out.print(table)
    return Exit.COMPLETED
