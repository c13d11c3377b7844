"""Everything a user can set, in one place: names, defaults, checks, and where each value came from."""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from stepgate.domain.errors import InvalidValue, Problem
from stepgate.storage.url import normalise

PREFIX = "STEPGATE_"
DATABASE_URL = "DATABASE_URL"
ENV_FILE = ".env"
MASK = "********"
EVERY_OTHER = "*"
SandboxLevel = Literal["bwrap-full"]


class Source(StrEnum):
    """Where a value came from; an earlier one wins."""

    OPTION = "option"
    ENVIRONMENT = "environment"
    ENV_FILE = "env file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Listed:
    """One setting as a person may see it: secrets are masked."""

    name: str
    value: str
    source: Source
    meaning: str


def default_state_dir() -> Path:
    """`/var/lib/stepgate` for root, whose server runs as another user and must get there; else the XDG folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/stepgate")
    configured = os.environ.get("XDG_STATE_HOME", "")
    if configured.startswith("/"):
        return Path(configured) / "stepgate"
    try:
        return Path.home() / ".local" / "state" / "stepgate"
    except RuntimeError as error:
        raise InvalidValue(
            "you have no home folder", field="STEPGATE_STATE_DIR", fix="set it to a folder that you can write to"
        ) from error


def default_concurrency() -> dict[str, int]:
    return {EVERY_OTHER: 64, "run_command": max(2, os.cpu_count() or 2)}


class Settings(BaseSettings):
    """Immutable; made by `load`. Sizes are bytes, names that end in `_s` and the check interval are seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        validate_default=False,
    )

    database_url: SecretStr | None = Field(
        None,
        validation_alias="DATABASE_URL",
        description="a PostgreSQL server, postgresql://user:password@host:5432/database; unset: the embedded one",
    )
    state_dir: Path = Field(
        default_factory=default_state_dir,
        description="where the embedded database, blobs, layers and the local secret are kept",
    )
    postgres_bin: Path | None = Field(None, description="the folder that holds postgres and initdb")
    workspace_root: Path = Field(
        default_factory=Path.cwd, description="the folder below which workspaces must lie; unset: the current folder"
    )
    host: str = Field("127.0.0.1", min_length=1, description="the address the API listens on")
    port: int = Field(8002, ge=0, le=65535, description="the port the API listens on, 1 to 65535, or 0 for a free one")
    embedded_worker: bool = Field(True, description="true or false: whether `serve` executes steps itself")
    worker_check_interval: float = Field(
        5, gt=0, le=3600, description="how often a worker looks for work when nothing wakes it, in seconds"
    )
    worker_batch_size: int = Field(256, ge=1, le=10_000, description="how many runs a worker drives at a time")
    lease_s: float = Field(30, ge=1, le=3600, description="after how many seconds a silent worker counts as dead")
    command_timeout_s: float = Field(30, gt=0, le=86_400, description="the time limit of a command, in seconds")
    step_timeout_s: float = Field(300, gt=0, le=86_400, description="the time limit of a step, in seconds")
    max_read_bytes: int = Field(
        1 << 20, ge=1, le=1 << 30, description="the most that read_file returns unless the step says so, in bytes"
    )
    max_output_bytes: int = Field(
        1 << 20, ge=1, le=1 << 26, description="how much of a command's output is kept, in bytes"
    )
    concurrency: Annotated[dict[str, int], NoDecode] = Field(
        default_factory=default_concurrency,
        description="how many steps run at once in a worker, by type: run_command=2,analyze=8,*=64",
    )
    sandbox_levels: Annotated[tuple[SandboxLevel, ...], NoDecode] = Field(
        ("bwrap-full",),
        min_length=1,
        description="the acceptable sandbox levels, the best first: bwrap-full",
    )
    sandbox_readonly: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="further folders that commands may read, absolute, with commas between"
    )
    local_trust: bool = Field(False, description="true or false: whether an approval with an empty body is accepted")
    model_router: Literal["auto", "offline", "openai"] = Field(
        "auto", description="who answers for models: auto, offline or openai (any OpenAI-compatible server)"
    )
    model_url: str | None = Field(
        None, description="the base URL of the model router, such as http://localhost:4000/v1"
    )
    model_key: SecretStr | None = Field(None, description="the key of the model router")
    model_default: str | None = Field(None, description="the model used where a step names none")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto (text on a terminal, else json), json or text"
    )
    url: str | None = Field(None, description="the API the command line talks to, such as http://127.0.0.1:8002")
    key: SecretStr | None = Field(None, description="the key that the API asks for and the command line sends")

    _notices: tuple[str, ...] = PrivateAttr(())
    _sources: dict[str, Source] = PrivateAttr(default_factory=dict)

    def told(self, sources: Mapping[str, Source], notices: tuple[str, ...]) -> Self:
        """Notes what reading the values showed; once, by `load`."""
        self._sources, self._notices = dict(sources), notices
        return self

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences about names that look like settings and are none."""
        return self._notices

    def source(self, field: str) -> Source:
        return self._sources.get(field, Source.DEFAULT)

    def listing(self) -> tuple[Listed, ...]:
        """Every setting in the order of its declaration."""
        return tuple(
            Listed(variable_of(name), _shown(getattr(self, name)), self.source(name), field.description or "")
            for name, field in type(self).model_fields.items()
        )

    @field_validator("database_url", mode="before")
    @classmethod
    def _one_form_of_url(cls, value: Any) -> Any:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        return SecretStr(normalise(text)) if isinstance(text, str) else value

    @field_validator("state_dir", "postgres_bin", "workspace_root")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else _full_path(value)

    @field_validator("concurrency", mode="before")
    @classmethod
    def _counts_by_type(cls, value: Any) -> Any:
        if isinstance(value, int):
            return {EVERY_OTHER: value}
        if not isinstance(value, str):
            return value
        if value.strip().isdecimal():
            return {EVERY_OTHER: int(value)}
        counts = dict(default_concurrency())
        for part in _parts(value):
            name, equals, count = part.partition("=")
            if not equals or not count.strip().isdecimal():
                raise ValueError(f"{part!r} is not of the form type=number")
            counts[name.strip()] = int(count)
        return counts

    @field_validator("concurrency")
    @classmethod
    def _at_least_one_each(cls, value: dict[str, int]) -> dict[str, int]:
        for name, count in value.items():
            if not 1 <= count <= 10_000:
                raise ValueError(f"{name}={count} is not between 1 and 10000")
        return {EVERY_OTHER: default_concurrency()[EVERY_OTHER]} | value

    @field_validator("sandbox_levels", "sandbox_readonly", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        return tuple(_parts(value)) if isinstance(value, str) else value

    @field_validator("sandbox_readonly")
    @classmethod
    def _absolute_folders(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for path in value:
            if not (path.is_absolute() or str(path).startswith("~")):
                raise ValueError(f"{path} is not an absolute path")
        return tuple(_full_path(path) for path in value)

    @field_validator("model_url", "url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("not a URL that starts with http:// or https://")
        return value.rstrip("/")

    @field_validator("log_level", "log_format", "model_router", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _router_has_an_address(self) -> Self:
        if self.model_router == "openai" and self.model_url is None:
            raise InvalidValue(
                "the model router has no address",
                field="STEPGATE_MODEL_URL",
                fix="set it, such as http://localhost:4000/v1, or set STEPGATE_MODEL_ROUTER=offline",
            )
        return self


def load(overrides: Mapping[str, Any] | None = None, *, env_file: Path | None = None) -> Settings:
    """Reads options, the environment and `.env` of the current folder, in this order of precedence.

    `overrides` are values of command-line options by field name; None means not given.
    Raises InvalidValue whose `problems` name each faulty variable and its fix.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    path = env_file or Path(ENV_FILE)
    written = _read_env_file(path)
    try:
        by_alias = {DATABASE_URL if name == "database_url" else name: value for name, value in given.items()}
        settings = Settings(_env_file=path, **by_alias)
    except ValidationError as error:
        raise _explained(error) from None
    names = {name.upper() for name in os.environ if os.environ[name]}, {name.upper() for name in written}
    return settings.told(dict(_sources(given, *names)), tuple(_notices(names[0] | names[1])))


def variable_of(field: str) -> str:
    return DATABASE_URL if field == "database_url" else PREFIX + field.upper()


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        values = dotenv_values(path, encoding="utf-8") if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(
            f"{path} cannot be read: {error}", field=str(path), fix="make it a readable UTF-8 file or remove it"
        ) from error
    return {name: value for name, value in values.items() if value}


def _sources(given: Mapping[str, Any], environment: set[str], written: set[str]) -> Iterator[tuple[str, Source]]:
    for field in Settings.model_fields:
        if field in given:
            yield field, Source.OPTION
        elif variable_of(field) in environment:
            yield field, Source.ENVIRONMENT
        elif variable_of(field) in written:
            yield field, Source.ENV_FILE


def _notices(names: set[str]) -> Iterator[str]:
    known = {field.upper(): variable_of(field) for field in Settings.model_fields}
    for name in sorted(names - set(known.values())):
        if name.startswith(PREFIX):
            nearest = difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1)
            hint = f"; did you mean {known[nearest[0]]}?" if nearest else ""
            yield f"{name} is not a setting of Stepgate and is ignored{hint}"


def _explained(error: ValidationError) -> InvalidValue:
    problems: list[Problem] = []
    for fault in error.errors(include_url=False, include_input=False):
        cause = fault.get("ctx", {}).get("error")
        if isinstance(cause, InvalidValue):
            problems.extend(cause.problems)
            continue
        field = str(fault["loc"][0]) if fault["loc"] else ""
        field = "database_url" if field == DATABASE_URL else field
        known = Settings.model_fields.get(field)
        message = str(fault["msg"]).removeprefix("Value error, ")
        problems.append(Problem(variable_of(field), message, f"expected: {known.description}" if known else None))
    first = problems[0]
    return InvalidValue(first.message, field=first.field, fix=first.fix, problems=tuple(problems))


def _full_path(path: Path) -> Path:
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no such user") from error
    return Path(os.path.abspath(path))  # noqa: PTH100 - links are followed where a path is used


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case SecretStr():
            return MASK
        case bool():
            return "true" if value else "false"
        case dict():
            return ",".join(f"{name}={count}" for name, count in value.items())
        case tuple():
            return ",".join(str(part) for part in value)
        case _:
            return str(value)
