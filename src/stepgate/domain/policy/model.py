"""The shape of a policy file, version 1: what people write, checked field by field before any of it counts."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator
from pydantic_core import PydanticCustomError

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidValue
from stepgate.domain.limits import MAX_APPROVAL_MS, MIN_APPROVAL_MS, Duration
from stepgate.domain.policy.action import Ruling
from stepgate.domain.policy.globs import check_glob
from stepgate.domain.quorum import Quorum

MAX_RULES = 1000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AMOUNT = re.compile(r"\d{1,9}(?:\.\d{1,12})?", re.ASCII)
MAX_EXAMPLES = 100
MAX_APPROVALS = 20
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Level = Literal["bwrap-full", "bwrap-noproc", "landlock-seccomp", "unsafe-none"]


def _refusal(error: InvalidValue) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": error.message, "fix": error.fix})


def _glob(value: str) -> str:
    try:
        canonical.check_text(value, "glob")
        return check_glob(value)
    except InvalidValue as error:
        raise _refusal(error) from error


def _path(value: str) -> str:
    parts = value.split("/")
    if not value or "" in parts or "." in parts or ".." in parts:
        message, fix = "not a normalised path", "write it relative to the workspace, such as src/app.py"
        raise PydanticCustomError("refused", "{message}", {"message": message, "fix": fix})
    return value


def _program(value: str) -> str:
    if not value.startswith("/") or "//" in value or "/../" in f"{value}/":
        message, fix = "not the full path of a program", "such as /usr/bin/git"
        raise PydanticCustomError("refused", "{message}", {"message": message, "fix": fix})
    return value


def _folder(value: str) -> str:
    return value if value == "." else _path(value)


def _usd(value: Any) -> Any:
    """A number of YAML or JSON would be a binary fraction."""
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value):
        message, fix = "not an amount of US dollars", 'write it as text, such as "1.50"'
        raise PydanticCustomError("refused", "{message}", {"message": message, "fix": fix})
    return Decimal(value)


def _moment(value: Any) -> int:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        found = None if found is None or found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        found = None
    if found is None:
        message, fix = "not a time with an offset", "write it as RFC 3339, such as 2027-01-31T12:00:00Z"
        raise PydanticCustomError("refused", "{message}", {"message": message, "fix": fix})
    return (found - EPOCH) // timedelta(microseconds=1)


def rfc3339(micros: int) -> str:
    """A time in microseconds as a policy has it."""
    return (EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Text = Annotated[str, Field(max_length=32_000)]
Glob = Annotated[str, AfterValidator(_glob)]
Path = Annotated[str, AfterValidator(_path)]
Program = Annotated[str, AfterValidator(_program)]
Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], BeforeValidator(_as_list)]
Globs = Annotated[list[Glob], BeforeValidator(_as_list), Field(min_length=1, max_length=1000)]
Paths = Annotated[list[Path], BeforeValidator(_as_list)]
Folders = Annotated[
    list[Annotated[str, AfterValidator(_folder)]], BeforeValidator(_as_list), Field(min_length=1, max_length=100)
]
Usd = Annotated[Decimal, BeforeValidator(_usd, json_schema_input_type=str)]
Moment = Annotated[
    int,
    BeforeValidator(_moment, json_schema_input_type=str),
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
]
DecidingRoles = Annotated[list[Literal["operator", "approver", "admin"]], BeforeValidator(_as_list)]
"""Everybody who can look is a viewer, so nobody need be asked to be one."""


def _milliseconds(value: int) -> str:
    """A bare number would be read again as seconds."""
    return f"{value}ms"


Time = Annotated[
    Duration, Field(ge=MIN_APPROVAL_MS, le=MAX_APPROVAL_MS), PlainSerializer(_milliseconds, when_used="json")
]


class Shape(BaseModel):
    """Unknown fields are refused, values are never converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OneOf(Shape):
    """A word that is any of these."""

    one_of: list[Text] = Field(min_length=1, max_length=1000)


class GlobWord(Shape):
    """A word that fits a glob; to be allowed it must also be no option and must not lead out of its folder."""

    glob: Glob


Word = Text | OneOf | GlobWord


class Match(Shape):
    """What a rule is about: every field given must fit; within a field, any of its values."""

    executor: Names | None = Field(default=None, min_length=1, description="step types")
    paths: Globs | None = Field(default=None, description="globs on the paths the action names")
    argv: list[Word] | None = Field(
        default=None, min_length=1, max_length=100, description="the command's words, element by element"
    )
    rest: Literal["any"] | None = Field(default=None, description="any: whatever words follow those of argv")
    executable: Annotated[list[Program], BeforeValidator(_as_list), Field(min_length=1)] | None = Field(
        default=None, description="the program, where it was found inside the sandbox"
    )
    cwd: Folders | None = Field(default=None, description="the folder that a command runs in; `.` is the workspace")
    labels: dict[str, str] | None = Field(default=None, min_length=1, description="labels the run must have")
    requester: Names | None = Field(default=None, min_length=1, description="who asked for the run")
    sandbox_level: Annotated[list[Level], BeforeValidator(_as_list), Field(min_length=1)] | None = None
    cost_over: Usd | None = Field(default=None, description="the run's model calls cost more than this so far, in USD")
    touches: Globs | None = Field(default=None, description="globs on the paths the change set changes")
    deletes_over: int | None = Field(default=None, ge=0, description="the change set deletes more paths than this")
    files_over: int | None = Field(default=None, ge=0, description="the change set changes more paths than this")

    @model_validator(mode="after")
    def _rest_of_something(self) -> Self:
        if self.rest is not None and self.argv is None:
            message, fix = "rest goes with argv", "say which words come first"
            raise PydanticCustomError("refused", "{message}", {"message": message, "fix": fix})
        return self

    @property
    def about_change(self) -> bool:
        """Whether it can be told only when the change set is known."""
        return self.touches is not None or self.deletes_over is not None or self.files_over is not None

    @property
    def about_words(self) -> bool:
        """Whether it says what a command is by its words."""
        return self.argv is not None or self.executable is not None


class Approvals(Shape):
    """How people are asked where the rule says `ask`; of several rules that ask the strictest word counts."""

    preview: bool | None = Field(
        default=None, description="true: a command is run in a throw-away layer first; one false among rules wins"
    )
    expires: Time | None = Field(default=None, description="how long a person may take; the shortest time counts")
    on_expiry: Literal["reject", "pause"] | None = Field(
        default=None,
        description="what follows when the time is over; reject if a rule says so or none says it",
    )
    count: int = Field(default=1, ge=1, le=MAX_APPROVALS, description="how many distinct persons approve; the most")
    roles: DecidingRoles | None = Field(
        default=None, min_length=1, description="each of them has one of these roles, and one of every other rule's"
    )
    exclude_requester: bool = Field(default=False, description="true: not whoever asked for the run; one is enough")

    @property
    def quorum(self) -> Quorum:
        return Quorum(self.count, (tuple(self.roles),) if self.roles else (), self.exclude_requester)


class Example(Shape):
    """An action as a rule's author imagines it; what is not given is not there."""

    executor: str = Field(min_length=1, max_length=200)
    path: Path | None = None
    argv: list[Text] | None = Field(default=None, min_length=1)
    command: Text | None = Field(default=None, description="text for a shell")
    env: list[str] = Field(default_factory=list, description="names of variables")
    stdin: bool = False
    executable: Program | None = Field(default=None, description="not given: nobody looked for it")
    sandbox_level: Level | None = None
    cwd: Annotated[str, AfterValidator(_folder)] = "."
    cost_usd: Usd | None = Field(default=None, description="what the run's model calls cost so far, in USD")
    labels: dict[str, str] = Field(default_factory=dict)
    requester: str = ""
    touches: Paths | None = Field(default=None, description="paths that its change set creates or changes")
    deletes: Paths | None = Field(default=None, description="paths that its change set deletes")

    @model_validator(mode="after")
    def _one_command(self) -> Self:
        if self.argv is not None and self.command is not None:
            message, fix = "argv and command are both given", "give one of them"
            raise PydanticCustomError("refused", "{message}", {"message": message, "fix": fix})
        return self


class Examples(Shape):
    """They run whenever the policy is loaded; one that fails refuses the whole file."""

    match: list[Example] = Field(default_factory=list, max_length=MAX_EXAMPLES)
    not_match: list[Example] = Field(default_factory=list, max_length=MAX_EXAMPLES)


class Rule(Shape):
    """One rule; where it stands among the others changes nothing."""

    name: str = Field(pattern=NAME_PATTERN)
    match: Match
    verdict: Annotated[Ruling, Field(strict=False)]
    approvals: Approvals | None = None
    until: Moment | None = Field(default=None, description="from this time on the rule does not count, RFC 3339")
    examples: Examples = Examples()
    why: str | None = Field(default=None, max_length=2000, description="for whoever reads the file")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.approvals is not None and self.verdict is not Ruling.ASK:
            self._refuse(f"a rule that says {self.verdict} asks nobody", "remove approvals, or say verdict: ask")
        counts = self.match.deletes_over is not None or self.match.files_over is not None
        if self.match.cost_over is not None and self.verdict is Ruling.ALLOW:
            self._refuse("having cost more is no reason to allow", "ask or deny instead")
        if counts and self.verdict is Ruling.ALLOW:
            self._refuse("more than a number of changes is no reason to allow", "use touches, or ask or deny instead")
        return self

    def _refuse(self, message: str, fix: str) -> None:
        raise PydanticCustomError("refused", "{message}", {"message": message, "fix": fix})


class PolicyDocument(Shape):
    """A whole policy file."""

    version: Literal[1]
    name: str | None = Field(default=None, min_length=1, max_length=200)
    rules: list[Rule] = Field(max_length=MAX_RULES)
