"""Runs one command from its options to its exit code: settings, notices, log, interrupts and every error on the way."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NoReturn

from stepgate.cli import faults
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError, Interrupted
from stepgate.cli.invocation import command
from stepgate.cli.terminal import Terminal, open_terminal
from stepgate.cli.text import json_text
from stepgate.domain.errors import StepgateError
from stepgate.settings import Settings, Source, load

SHOW_CURSOR = "\x1b[?25h"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Session:
    """One command: its settings and terminal; `run_id` is the run it moves, `about` the one that it was asked about."""

    def __init__(self, settings: Settings, terminal: Terminal) -> None:
        self.settings = settings
        self.terminal = terminal
        self.run_id: str | None = None
        self.about: str | None = None
        self.answered = False

    def answer(self, document: Any) -> None:
        """The one object of `--json`."""
        self.answered = True
        sys.stdout.write(json_text(document) + "\n")
        sys.stdout.flush()

    def command(self, *words: str) -> str:
        """A shell line that calls this program with these words."""
        return command(self.settings, *words)


Verb = Callable[[Session], Awaitable[Exit]]


def execute(
    load_verb: Callable[[], Verb],
    *,
    as_json: bool = False,
    overrides: Mapping[str, Any] | None = None,
    lasts: bool = False,
) -> NoReturn:
    """Does it and leaves the process. `lasts`: it runs until it is told to stop, which is then no interruption."""
    session: Session | None = None
    try:
        settings = load(overrides)
        session = Session(settings, open_terminal(json=as_json))
        for notice in settings.notices:
            print(f"notice: {notice}", file=sys.stderr)
        _configure_log(settings, lasts=lasts)
        code = _drive(_interruptible(load_verb(), session), lasts=lasts)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader is gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.INTERRUPTED
    except StepgateError as error:
        code = _told(faults.of_error(error), session, as_json=as_json)
    except CliError as error:
        code = _told(error, session, as_json=as_json)
    except KeyboardInterrupt:
        code = _told(Interrupted("interrupted before anything was done"), session, as_json=as_json)
    except OSError as error:
        message = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        code = _told(CliError(message, exit=Exit.ENVIRONMENT, code="system"), session, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - nobody gets a traceback
        code = _told(_unexpected(error), session, as_json=as_json)
    sys.exit(int(code))


def _told(error: CliError, session: Session | None, *, as_json: bool) -> Exit:
    if session is not None and session.about is not None and not _has_fix(error):
        error.fix = f"look at it: {session.command('show', session.about)}"
    faults.show(error)
    if as_json and not (session is not None and session.answered):
        faults.answer(error, session.run_id if session is not None else None)
    return error.exit


def _has_fix(error: CliError) -> bool:
    return error.fix is not None or any(problem.fix for problem in error.problems)


def _unexpected(error: Exception) -> CliError:
    import structlog  # noqa: PLC0415 - rarely needed

    structlog.get_logger(__name__).debug("unexpected error", exc_info=error)
    return CliError(
        f"{type(error).__name__}: {error}",
        exit=Exit.FAILED,
        code="internal",
        fix="this is a fault of Stepgate: run it again with STEPGATE_LOG_LEVEL=debug and report what it prints",
    )


def _configure_log(settings: Settings, *, lasts: bool) -> None:
    """A command that a person waits for logs warnings only, unless the level was chosen."""
    from stepgate.logs import configure  # noqa: PLC0415 - after the settings are known to be good

    chosen = lasts or settings.source("log_level") is not Source.DEFAULT
    configure(settings.log_level if chosen else "warning", settings.log_format)


async def _interruptible(verb: Verb, session: Session) -> Exit:
    try:
        return await verb(session)
    except asyncio.CancelledError:
        if session.run_id is None:
            raise Interrupted("interrupted") from None
        where = "the server goes on with it" if session.settings.url else "it was handed back where it stood"
        raise Interrupted(
            f"interrupted; run {session.run_id}: {where}",
            fix=f"go on: {session.command('run', '--continue', session.run_id)}",
        ) from None


def _drive(work: Coroutine[Any, Any, Exit], *, lasts: bool) -> Exit:
    with asyncio.Runner() as runner:
        return runner.run(work if lasts else _with_signals(work))


async def _with_signals(work: Coroutine[Any, Any, Exit]) -> Exit:
    """The first signal cancels, so that everything is put down in order; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    told = False

    def stop() -> None:
        nonlocal told
        if told:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), SHOW_CURSOR.encode())
            os._exit(Exit.INTERRUPTED)
        told = True
        task.cancel()

    for number in ENDING:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    finally:
        for number in ENDING:
            loop.remove_signal_handler(number)
