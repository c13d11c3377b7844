"""The streams of this process: where results, progress and questions go, and where answers come from."""

import asyncio
import os
import sys
import termios
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

PLAIN_WIDTH = 110
LINE_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Terminal:
    """`out` takes results, `progress` what happens meanwhile; `asking` is a terminal or None."""

    out: Console
    progress: Console
    asking: Console | None
    json: bool

    @property
    def can_ask(self) -> bool:
        """Whether a person can see a question and answer it."""
        return self.asking is not None


def open_terminal(*, json: bool = False) -> Terminal:
    """With `json` standard output is kept for the one object."""
    out, err = console(sys.stdout), console(sys.stderr)
    progress = err if json else out
    asking = None
    if sys.stdin is not None and sys.stdin.isatty():
        asking = next((one for one in (progress, err) if one.is_terminal), None)
    return Terminal(out, progress, asking, json)


def console(stream: TextIO) -> Console:
    """A console that shows text as it is: no markup, no emoji codes, nothing highlighted by guessing."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    plain = not (hasattr(stream, "isatty") and stream.isatty())
    width = PLAIN_WIDTH if plain and "COLUMNS" not in os.environ else None
    return Console(file=stream, markup=False, emoji=False, highlight=False, width=width)


def say(console: Console, *parts: Any) -> None:
    """One line of styled parts: text, or (text, style); never wrapped by us, so that it can be copied."""
    console.print(Text.assemble(*parts), soft_wrap=True)


def forget_typed() -> None:
    """What was typed ahead must not answer a question that is only now being shown."""
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


async def read_line() -> str | None:
    """A line without its end; None at the end of the file.

    No thread waits in `input()`: it could not be woken when the command is interrupted.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    descriptor = sys.stdin.fileno()

    def readable() -> None:
        try:
            data = os.read(descriptor, LINE_LIMIT)
        except OSError:  # the terminal is gone
            data = b""
        if not answer.done():
            answer.set_result(data)

    loop.add_reader(descriptor, readable)
    try:
        data = await answer
    finally:
        loop.remove_reader(descriptor)
    return data.decode(errors="replace").rstrip("\n") if data else None
