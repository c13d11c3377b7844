"""Everything about a sandbox that does not change from command to command, and the seam between the levels."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.levels import Level

HOST_NAME: Final = "sandbox"
ENVIRONMENT: Final = {
    "HOME": "/tmp",  # noqa: S108
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    # Byte code would show up in every change set.
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True, slots=True)
class Start:
    """What the launcher is told about one command: `program` (JSON) says in which way it is confined.

    `arguments` are bubblewrap's, where there is one; `filter` is the system call filter's program. One that is `bare`
    has no namespaces: a guard stands over it, and ends it.
    """

    program: Mapping[str, Any]
    arguments: tuple[str, ...]
    filter: bytes
    bare: bool = False


class Way(Protocol):
    """How a level confines a command."""

    def start(self, command: Command, layer: Layer, environment: Mapping[str, str]) -> Start:
        """Its own variables come over those of `environment`. Raises PathRefused for a `cwd` outside the workspace."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """`environment` is what commands get before their own variables; `groups` where their control groups are made."""

    level: Level
    launcher: Launcher
    way: Way
    environment: Mapping[str, str]
    groups: Path | None = None

    def start(self, command: Command, layer: Layer) -> Start:
        """As the way's."""
        return self.way.start(command, layer, self.environment)
