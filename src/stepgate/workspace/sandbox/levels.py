"""How strong a sandbox can be, what each strength must have proved before it is used, and how it falls short."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Level(StrEnum):
    """The strengths, the strongest first."""

    BWRAP_FULL = "bwrap-full"
    """Own namespaces, an allow-listed file system, a system call filter and limits, all proved by canaries."""
    BWRAP_NOPROC = "bwrap-noproc"
    """The same with an empty /proc, for hosts that hide parts of theirs and then permit no fresh one."""
    LANDLOCK_SECCOMP = "landlock-seccomp"
    """No namespaces: Landlock keeps files away, a stricter filter all sockets and other processes, guards its end."""
    UNSAFE_NONE = "unsafe-none"
    """No sandbox: the host with all that the user may do; limits, and a layer so that there is a change set."""

    def at_least(self, least: "Level") -> bool:
        """Whether it is as strong as another or stronger."""
        return STRENGTH[self] <= STRENGTH[least]


STRENGTH: Final[Mapping[Level, int]] = MappingProxyType({level: place for place, level in enumerate(Level)})
DEFAULT_LEVELS: Final = (Level.BWRAP_FULL, Level.BWRAP_NOPROC)
STRONGER: Final = "a level with namespaces closes it: name bwrap-full in STEPGATE_SANDBOX_LEVELS"
CANARIES: Final = frozenset(
    {
        *("environment", "inherited descriptors", "loopback", "namespaces", "nothing heard", "other processes"),
        *("privileges", "ptrace", "read outside", "signals", "survivors", "system folders", "unix socket"),
        "write outside",
    }
)
REQUIRED: Final[Mapping[Level, frozenset[str]]] = MappingProxyType(
    {
        Level.BWRAP_FULL: CANARIES,
        Level.BWRAP_NOPROC: CANARIES,
        Level.LANDLOCK_SECCOMP: CANARIES - {"namespaces", "other processes", "signals"},
        Level.UNSAFE_NONE: frozenset(),
    }
)
"""The canaries without which a level is not used."""


@dataclass(frozen=True, slots=True)
class Weakness:
    """What is weaker here than it could be, and what mends it ("" where nothing does)."""

    reason: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.fix})" if self.fix else self.reason
