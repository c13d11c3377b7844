"""A person at a terminal: what the command prints can be waited for, lines and keys can be typed."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.fixtures.patience import PATIENCE_S

_STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command whose three streams are one terminal of 120 columns."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
        self._own, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
            # Ctrl-C reaches the foreground group of the terminal that the command calls its own.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - this process has no threads
        )
        os.close(theirs)
        self.screen = b""
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._own)

    @property
    def text(self) -> str:
        """Everything shown so far, without its styles."""
        return _STYLES.sub("", self.screen.decode(errors="replace")).replace("\r\n", "\n")

    def expect(self, wanted: str) -> str:
        """Waits until the text appears after what was expected before; returns what came up to its end."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = self.text.find(wanted, self._seen)
            if found >= 0:
                begin, self._seen = self._seen, found + len(wanted)
                return self.text[begin : self._seen]
            if not self._read(deadline):
                raise AssertionError(f"{wanted!r} did not appear after {self._seen} in:\n{self.text}")

    def type(self, line: str) -> None:
        """A line and the return key."""
        self.press(line + "\r")

    def press(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    def end(self) -> int:
        """Waits for the command's own end; its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            pass
        return self.process.wait(timeout=PATIENCE_S)

    def _read(self, deadline: float) -> bool:
        """False at the end of the output; raises where the deadline passes first."""
        ready, _, _ = select.select([self._own], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"nothing more within {PATIENCE_S} s after:\n{self.text}")
        try:
            data = os.read(self._own, 65536)
        except OSError:  # every descriptor of the other side is closed
            return False
        self.screen += data
        return bool(data)
