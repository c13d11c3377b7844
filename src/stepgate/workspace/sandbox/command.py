"""What is run in a sandbox and what came of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from stepgate.domain.canonical import check_text
from stepgate.domain.errors import InvalidValue
from stepgate.workspace.paths import check_relative
from stepgate.workspace.redaction import Forms
from stepgate.workspace.sandbox.levels import Level
from stepgate.workspace.sandbox.limits import Limits

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Killed(StrEnum):
    """Why Stepgate ended a command before it ended itself."""

    WALL = "wall"
    CPU = "cpu"
    MEMORY = "memory"
    OUTPUT = "output"
    DISK = "disk"
    FILES = "files"
    TMP = "tmp"
    PIDS = "pids"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments; `cwd` is relative to the workspace, `env` is added to the sandbox's own.

    The values of `secrets` are taken out of its output.
    Raises InvalidValue for an empty argv, NUL or lone surrogates, and names no environment may hold.
    """

    argv: tuple[str, ...]
    cwd: str = "."
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    stdin: bytes = b""
    limits: Limits = field(default_factory=Limits)
    secrets: Forms | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise InvalidValue("no program is named", field="argv", fix="give the program as the first element")
        for index, argument in enumerate(self.argv):
            check_text(argument, f"argv[{index}]")
        check_relative(self.cwd, "cwd", allow_root=True)
        for name, value in self.env.items():
            if not _NAME.match(name):
                raise InvalidValue(
                    f"{name!r} is not a name for an environment variable",
                    field="env",
                    fix="letters, digits and underscores, not starting with a digit",
                )
            check_text(value, f"env.{name}")


@dataclass(frozen=True, slots=True)
class Finished:
    """A command's end, for any reason. `exit_code` is 128 + `signal` where a signal ended it; None where `killed`.

    `truncated` says that a stream was longer than the limit. `peak_memory_bytes` is the largest resident size seen, of
    one process or of all at a time; it and `cpu_ms` are None where they could not be measured.
    """

    exit_code: int | None
    signal: int | None
    killed: Killed | None
    stdout: bytes
    stderr: bytes
    truncated: bool
    level: Level
    limits: Limits
    wall_ms: int
    cpu_ms: int | None
    peak_memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Canary:
    """One attack tried from inside at start-up; `passed` means that the sandbox held."""

    name: str
    passed: bool
    detail: str
