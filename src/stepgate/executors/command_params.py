"""What a command step is given, checked as far as it can be before references are resolved."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from stepgate.executors.base import Params
from stepgate.executors.fields import RelativeFolder, Text
from stepgate.workspace.sandbox.levels import Level

# Linux takes no single argument over 128 KiB, and a character can have four bytes.
MAX_ARGUMENT_CHARS: Final = 32_000
MAX_STDIN_CHARS: Final = 4 * 1024 * 1024
SHELL: Final = ("/bin/sh", "-c")

Argument = Annotated[Text, Field(max_length=MAX_ARGUMENT_CHARS)]
Bytes = Annotated[int, Field(ge=1, le=2**53)]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,255}$")]


class CommandLimits(Params):
    """Lower limits than the worker's; the worker's hold where one is not given."""

    wall_s: float | None = Field(default=None, gt=0, description="seconds until it is killed")
    cpu_s: float | None = Field(default=None, gt=0, description="seconds of processor time, of all its processes")
    memory_bytes: Bytes | None = Field(default=None, description="memory of all its processes")
    pids: int | None = Field(default=None, ge=1, description="processes and threads at a time")
    file_bytes: Bytes | None = Field(default=None, description="size of any one file")
    open_files: int | None = Field(default=None, ge=8, description="open files of each process")
    tmp_bytes: Bytes | None = Field(default=None, description="what lies in /tmp and /dev/shm")
    written_bytes: Bytes | None = Field(default=None, description="what it writes in the workspace")
    files: int | None = Field(default=None, ge=1, description="how many files it may leave")
    output_bytes: Bytes | None = Field(default=None, description="how much of each output stream is kept")
    output_kill_bytes: Bytes | None = Field(default=None, description="output after which it is killed")


class RunCommandParams(Params):
    """The command, as exactly one of `argv` and `command`, and its surroundings."""

    argv: list[Argument] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="the program and its arguments, run without a shell",
        examples=[["python3", "-m", "unittest"]],
    )
    command: Annotated[Argument, Field(min_length=1)] | None = Field(
        default=None, description="text for /bin/sh -c, where operators or expansions are needed"
    )
    cwd: RelativeFolder = Field(default=".", description="the folder to run in, relative to the workspace")
    env: dict[EnvironmentName, Argument] = Field(
        default_factory=dict, max_length=200, description="environment variables besides the sandbox's own"
    )
    secrets: list[EnvironmentName] = Field(
        default_factory=list,
        max_length=50,
        description="names of secrets of the worker, given as environment variables; always asks for approval",
    )
    stdin: Annotated[Text, Field(max_length=MAX_STDIN_CHARS)] | None = Field(
        default=None, description="text for standard input; empty if not given"
    )
    limits: CommandLimits | None = Field(default=None, description="limits to lower for this command")
    sandbox: Level | None = Field(
        default=None, strict=False, description="the weakest sandbox it may run in; the worker's if not given"
    )
    allow_failure: bool = Field(
        default=False, description="true: another exit code than 0 is a result, and its changes are kept"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, raw: Any) -> Any:
        """Checked on what was written, so that it holds before references are resolved."""
        if isinstance(raw, Mapping) and not set(raw) - set(cls.model_fields):
            given = [name for name in ("argv", "command") if raw.get(name) is not None]
            if len(given) != 1:
                what = "argv and command are both given" if given else "there is no command"
                raise PydanticCustomError("shape", "{message}", {"message": what, "fix": "give one, argv or command"})
        return raw

    @field_validator("argv")
    @classmethod
    def _names_a_program(cls, argv: list[str] | None) -> list[str] | None:
        if argv is not None and not argv[0]:
            raise PydanticCustomError("refused", "the first element names no program", {"fix": "name a program"})
        return argv

    @field_validator("secrets")
    @classmethod
    def _named_once(cls, secrets: list[str]) -> list[str]:
        for name in secrets:
            if secrets.count(name) > 1:
                raise PydanticCustomError("refused", "{message}", {"message": f"{name} is named twice", "fix": "once"})
        return secrets

    @model_validator(mode="after")
    def _one_value_each(self) -> Self:
        for name in self.secrets:
            if name in self.env:
                what = {"message": f"{name} is in env and in secrets", "fix": "give it in one of them"}
                raise PydanticCustomError("refused", "{message}", what)
        return self

    def words(self) -> tuple[str, ...]:
        """What is executed."""
        return tuple(self.argv) if self.argv is not None else (*SHELL, self.command or "")
