"""What an attack is: one row of data, run alike in a sandbox and, to see whether it has teeth here, without one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from stepgate.workspace.sandbox.levels import Level
from stepgate.workspace.sandbox.limits import Limits

if TYPE_CHECKING:
    from tests.escapes.host import Host


class Kind(StrEnum):
    """The classes of attacks."""

    FILES = "files outside"
    PROCESSES = "processes"
    NAMESPACES = "namespaces and mounts"
    KERNEL = "kernel interfaces"
    NETWORK = "network"
    PRIVILEGE = "privilege"
    RESOURCES = "resources"
    SURVIVORS = "survivors"
    TERMINALS = "terminals"
    PROTECTED = "protected paths"


class Sign(StrEnum):
    """How an escape shows; every sign is looked for after every attack, so this says which one must show without one.

    All but CLAIM and KEPT are seen from outside.
    """

    TOLD = "the secret of the host is in its output"
    CHANGED = "a file or folder of the host is another"
    HEARD = "a listener of the host was reached"
    HARMED = "a process of the host is not as it was"
    SEEN = "the host sees what must not be while the attack lasts"
    LIVES = "a process of it lives after its end"
    TYPED = "the terminal of the host got something"
    SHOWN = "what a person is shown of its output acts or hides on a terminal"
    PROTECTED = "what is protected in the workspace is another"
    CLAIM = "the program holds what it must not get"
    KEPT = "the program came to its end with more than its limits"


Program = Callable[[], None]
SMALL = Limits(wall_s=60, cpu_s=20)


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to do what must not be done, and the sign by which its success shows.

    `look` is asked when the program says that it is ready and gives what the host sees then, "" for nothing; `plant`
    changes the workspace before it. `harmful` says why the attack is not run without a sandbox ("": it is). `open_at`
    names the levels that cannot stop it by nature, with the reason; there it must be seen to succeed.
    """

    name: str
    kind: Kind
    program: Program
    sign: Sign
    limits: Limits = SMALL
    look: "Callable[[Host], str] | None" = None
    plant: Callable[[Path], None] | None = None
    harmful: str = ""
    open_at: Mapping[Level, str] = field(default_factory=lambda: MappingProxyType({}))
