"""Classic BPF over `struct seccomp_data` (seccomp(2)): the few instructions that system call filters are made of."""

import errno
import platform
import struct
from typing import Final

from stepgate.domain.errors import SandboxUnavailable

_ARCHES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
LD, JEQ, JGE, JSET, AND, RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
NR, ARCH = 0, 4
_X32_BIT: Final = 0x40000000

Numbers = tuple[int | None, int | None]
"""A call's numbers on x86_64 and on aarch64; None where the architecture lacks it."""


def argument(number: int) -> int:
    """Where the low half of a call's argument lies."""
    return 16 + 8 * number


def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; `yes` and `no` are how many to skip."""
    return struct.pack("HBBI", code, yes, no, value & 0xFFFFFFFF)


def fail(code: int) -> bytes:
    """The call does nothing and gives this errno."""
    return step(RET, 0x00050000 | code)


def rule(number: int | None, body: list[bytes]) -> list[bytes]:
    """Runs the body for one call; the body must end in a return on every way."""
    return [] if number is None else [step(JEQ, number, 0, len(body)), *body]


def refuse_bits(number: int, bits: int) -> list[bytes]:
    """EPERM where the argument has any of the bits."""
    return [step(LD, argument(number)), step(JSET, bits, 0, 1), fail(errno.EPERM), step(RET, ALLOW)]


def allow_only(number: int, values: tuple[int, ...], otherwise: int, mask: int = 0xFFFFFFFF) -> list[bytes]:
    """Goes on where the argument is one of the values."""
    body = [step(LD, argument(number)), step(AND, mask)]
    for place, value in enumerate(values):
        body.append(step(JEQ, value, len(values) - place, 0))
    return [*body, fail(otherwise)]


def when(number: int, values: tuple[int, ...], body: list[bytes]) -> list[bytes]:
    """The body where the argument is one of the values; it must not fall through."""
    tests = [
        step(JEQ, value, len(values) - place - 1, len(body) if place == len(values) - 1 else 0)
        for place, value in enumerate(values)
    ]
    return [step(LD, argument(number)), *tests, *body]


def number(pair: Numbers, machine: str) -> int | None:
    """The call's number on that machine."""
    return pair[0] if machine == "x86_64" else pair[1]


def beginning(machine: str = platform.machine()) -> list[bytes]:
    """Kills what calls for another architecture, refuses x32, and leaves the number of the call to be looked at.

    Raises SandboxUnavailable for an architecture other than x86_64 and aarch64.
    """
    if machine not in _ARCHES:
        raise SandboxUnavailable(
            f"there is no system call filter for {machine}", fix="run the worker on x86_64 or aarch64"
        )
    steps = [step(LD, ARCH), step(JEQ, _ARCHES[machine], 1, 0), step(RET, KILL), step(LD, NR)]
    if machine == "x86_64":
        steps += [step(JGE, _X32_BIT, 0, 1), fail(errno.ENOSYS)]
    return steps
