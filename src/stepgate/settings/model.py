"""Every setting: its name, its default, its meaning and its check."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from stepgate.domain.errors import InvalidValue
from stepgate.settings.values import (
    EVERY_OTHER,
    check_passed_on,
    command_limits,
    concurrency,
    default_command_limits,
    default_concurrency,
    default_state_dir,
    full_path,
    models_by_tier,
    parts,
    prices_by_model,
    shown,
)
from stepgate.storage.url import normalise
from stepgate.workspace.sandbox.levels import DEFAULT_LEVELS, Level

PREFIX = "STEPGATE_"
DATABASE_URL = "DATABASE_URL"


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
    isolated_max_bytes: int = Field(
        4 << 30, ge=1, description="the most that a run's private copy of a workspace may hold, in bytes"
    )
    isolated_max_files: int = Field(
        200_000, ge=1, description="the most files and folders that a run's private copy of a workspace may hold"
    )
    git_author: str = Field(
        "Stepgate <stepgate@localhost>",
        pattern=r"^[^<>\n\x00-\x1f]+ <[^<>\s]*>$",
        description="author and committer of the commits that deliver a run's result, Name <email>",
    )
    host: str = Field("127.0.0.1", min_length=1, description="the address the API listens on")
    port: int = Field(8002, ge=0, le=65535, description="the port the API listens on, 1 to 65535, or 0 for a free one")
    embedded_worker: bool = Field(True, description="true or false: whether `serve` executes steps itself")
    worker_check_interval: float = Field(
        5, gt=0, le=3600, description="how often a worker looks for work, and anybody for new rules, in seconds"
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
    undo_max_bytes: int = Field(
        1 << 26,
        ge=0,
        le=1 << 40,
        description="the former content of larger files is not kept, so changing them cannot be undone, in bytes",
    )
    command_limits: Annotated[dict[str, int | float], NoDecode] = Field(
        default_factory=default_command_limits,
        description=(
            "what a command may use at most, beside its time and kept output: "
            f"{', '.join(default_command_limits())}; such as memory_bytes=2GiB,cpu_s=5m,pids=64"
        ),
    )
    concurrency: Annotated[dict[str, int], NoDecode] = Field(
        default_factory=default_concurrency,
        description="how many steps run at once in a worker, by type: run_command=2,analyze=8,*=64",
    )
    sandbox_levels: Annotated[tuple[Level, ...], NoDecode] = Field(
        DEFAULT_LEVELS,
        min_length=1,
        description=f"the acceptable sandbox levels, with commas between, of {', '.join(Level)}",
    )
    sandbox_readonly: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="further folders that commands may read, absolute, with commas between"
    )
    sandbox_env: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "which of the worker's own environment variables commands see, with commas between; beside them only "
            "HOME, LANG, PATH, PYTHONDONTWRITEBYTECODE, TMPDIR and TZ, with values of the sandbox"
        ),
    )
    secrets_dir: Path | None = Field(
        None,
        description=(
            "a folder outside every workspace with one file for each secret that commands may be given, named as the "
            "secret and readable by the worker's user alone"
        ),
    )
    policy: Path | None = Field(
        None,
        description="the file of rules that allow, ask or deny; unset: stepgate.policy.yaml in the state folder",
    )
    local_trust: bool = Field(False, description="true or false: whether an approval with an empty body is accepted")
    oidc_issuer: str | None = Field(
        None, description="the OpenID Connect issuer whose tokens (JWT) count here, as it names itself"
    )
    oidc_audience: str | None = Field(None, description="the audience that its tokens must be for")
    oidc_jwks_url: str | None = Field(
        None, description="where the issuer's keys are published; unset: as its own configuration says"
    )
    oidc_roles_claim: str = Field(
        "roles", min_length=1, description="the claim that lists roles; dots lead into objects: realm_access.roles"
    )
    oidc_tenant_claim: str | None = Field(
        None,
        min_length=1,
        description="the claim that names a token's tenant, which it then must have; unset: all are of `default`",
    )
    oidc_client_id: str | None = Field(
        None,
        min_length=1,
        description="the console as the issuer knows it, to sign in there; unset: people paste a key or a token",
    )
    oidc_client_secret: SecretStr | None = Field(
        None, description="the console's secret at the issuer; unset: it is a public client, and PKCE alone proves it"
    )
    webhook_private: bool = Field(
        False,
        description="true or false: whether webhooks may lead to private and loopback addresses, and by plain http",
    )
    audit_key: Path | None = Field(
        None, description="the Ed25519 key (PEM) that signs audit bundles; unset: one made in the state folder"
    )
    model_router: Literal["auto", "offline", "openai", "smart_router"] = Field(
        "auto",
        description="who answers for models: auto, offline, openai (any OpenAI-compatible server) or smart_router",
    )
    model_url: str | None = Field(
        None, description="the base URL of the model router, such as http://localhost:4000/v1"
    )
    model_key: SecretStr | None = Field(None, description="the key of the model router")
    model_default: str | None = Field(None, description="the model used where a step names none")
    model_tiers: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="the model of each tier that a step may ask for: simple=small-model,complex=large-model",
    )
    model_prices: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description=(
            "US dollars for a million tokens, in and out, of models whose router says no cost, before published ones: "
            "small-model=0.15:0.60,*=3:15; the star stands for every other model"
        ),
    )
    model_max_output_tokens: int = Field(
        8192, ge=1, le=1_000_000, description="the most tokens of an answer where a budget is watched"
    )
    model_stream: bool = Field(
        True, description="true or false: whether answers are streamed, so that people see them as they come"
    )
    plan_approval: bool = Field(
        False, description="true or false: whether a person sees a model's steps before they are added to a run"
    )
    max_replans: int = Field(
        3, ge=0, le=100, description="how often a rejection may have a run planned anew (`then: replan`)"
    )
    model_cache: str = Field(
        "off",
        pattern=r"^(off|requester|label:.{1,100})$",
        description=(
            "whose answers to the very same question are used again: off, requester (of the same requester's runs), or "
            "label:NAME (of runs with the same value of this label)"
        ),
    )
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
            Listed(variable_of(name), shown(getattr(self, name)), self.source(name), field.description or "")
            for name, field in type(self).model_fields.items()
        )

    @field_validator("database_url", mode="before")
    @classmethod
    def _one_form_of_url(cls, value: Any) -> Any:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        return SecretStr(normalise(text)) if isinstance(text, str) else value

    @field_validator("state_dir", "postgres_bin", "workspace_root", "secrets_dir", "policy", "audit_key")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else full_path(value)

    @field_validator("concurrency", mode="before")
    @classmethod
    def _counts_by_type(cls, value: Any) -> Any:
        return concurrency(value) if isinstance(value, int | str) else value

    @field_validator("concurrency")
    @classmethod
    def _at_least_one_each(cls, value: dict[str, int]) -> dict[str, int]:
        for name, count in value.items():
            if not 1 <= count <= 10_000:
                raise ValueError(f"{name}={count} is not between 1 and 10000")
        return {EVERY_OTHER: default_concurrency()[EVERY_OTHER]} | value

    @field_validator("model_tiers", mode="before")
    @classmethod
    def _models_by_tier(cls, value: Any) -> Any:
        return models_by_tier(value) if isinstance(value, str) else value

    @field_validator("model_prices", mode="before")
    @classmethod
    def _prices_by_model(cls, value: Any) -> Any:
        return prices_by_model(value) if isinstance(value, str) else value

    @field_validator("command_limits", mode="before")
    @classmethod
    def _limits_by_name(cls, value: Any) -> Any:
        return command_limits(value) if isinstance(value, str) else value

    @field_validator("sandbox_env")
    @classmethod
    def _harmless_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            check_passed_on(name)
        return value

    @field_validator("sandbox_levels", "sandbox_readonly", "sandbox_env", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        return tuple(parts(value)) if isinstance(value, str) else value

    @field_validator("sandbox_readonly")
    @classmethod
    def _absolute_folders(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for path in value:
            if not (path.is_absolute() or str(path).startswith("~")):
                raise ValueError(f"{path} is not an absolute path")
        return tuple(full_path(path) for path in value)

    @field_validator("model_url", "url", "oidc_jwks_url")
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
    def _issuer_has_an_audience(self) -> Self:
        if self.oidc_issuer is not None and self.oidc_audience is None:
            raise InvalidValue(
                "tokens for any audience would count",
                field="STEPGATE_OIDC_AUDIENCE",
                fix="set it to what the issuer puts into `aud` for this service",
            )
        return self

    @model_validator(mode="after")
    def _console_can_be_come_back_to(self) -> Self:
        for name, value in (("STEPGATE_OIDC_ISSUER", self.oidc_issuer), ("STEPGATE_URL", self.url)):
            if self.oidc_client_id is not None and value is None:
                raise InvalidValue(
                    "signing in at the issuer needs to know where that is, and where to come back to",
                    field=name,
                    fix="set it, or leave STEPGATE_OIDC_CLIENT_ID unset",
                )
        return self

    @model_validator(mode="after")
    def _router_has_an_address(self) -> Self:
        if self.model_router in ("openai", "smart_router") and self.model_url is None:
            raise InvalidValue(
                "the model router has no address",
                field="STEPGATE_MODEL_URL",
                fix="set it, such as http://localhost:4000/v1, or set STEPGATE_MODEL_ROUTER=offline",
            )
        return self


def variable_of(field: str) -> str:
    return DATABASE_URL if field == "database_url" else PREFIX + field.upper()
