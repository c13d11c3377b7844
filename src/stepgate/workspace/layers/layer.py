"""What a throw-away layer is to the sandbox that writes into it and to the harvest that reads it."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from stepgate.workspace.access import Root
from stepgate.workspace.layers.walk import Touched

WORKSPACE = "/workspace"
"""Where every command finds its workspace."""


class Capture(StrEnum):
    """How a layer keeps a command's writes apart from the person's files."""

    OVERLAY = "overlay"
    """An overlay mount: opening costs nothing, whatever the size of the workspace."""
    COPY = "copy"
    """A private copy, compared with what it was copied from: works on any file system."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a layer lies for a command that sees the host's own file system."""

    workspace: str
    tmp: str


class Layer(Protocol):
    """One throw-away view of one workspace. Not safe for several threads at a time."""

    @property
    def id(self) -> str:
        """A UUIDv7, also the name of the layer's folder."""

    @property
    def capture(self) -> Capture:
        """How it works."""

    @property
    def root(self) -> Root:
        """The workspace below, which nothing done in the layer changes."""

    @property
    def opened_ns(self) -> int:
        """The time after which a change below by somebody else counts as drift; 0 if times are not looked at."""

    @property
    def written(self) -> int:
        """A descriptor of the folder that takes the command's writes."""

    @property
    def scratch(self) -> int:
        """A descriptor of the folder that holds its /tmp and /dev/shm."""

    def mounts(self) -> tuple[str, ...]:
        """bubblewrap's arguments that put the view at `WORKSPACE`, and places for scratch at /tmp and /dev/shm."""

    def places(self) -> Places:
        """For a command without mounts. Raises WorkspaceUnavailable where there is no view without one."""

    def untouched(self) -> bool:
        """Whether the command certainly changed nothing; False may mean that one must look."""

    def touched(self, most: int) -> Iterator[Touched]:
        """Every path the command may have changed, in any order; an entry can be read until the next is asked for.

        Call it when no process of the layer is left. Raises ChangeRefused for more than `most` entries and for names
        that cannot be in a change set, WorkspaceConflict where the workspace below was rebuilt meanwhile.
        """

    def drifted(self, touched: Touched, among: Container[str]) -> bool:
        """Whether somebody else changed a touched path since the layer opened; `among` are all touched paths."""

    def discard(self) -> None:
        """Removes everything the layer holds; doing it twice is harmless."""
