"""What is asked of a model and what comes back, the same for every router, with unknown as None and never as 0."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, Protocol

from stepgate.domain import canonical
from stepgate.domain.errors import ModelFailure


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"


class Purpose(StrEnum):
    """What the answer is for. Text for a person is harmless; what a machine will act on is not."""

    ANALYZE = "analyze"
    SUMMARIZE = "summarize"
    EDIT = "edit"
    PLAN = "plan"


class CostSource(StrEnum):
    """Where a cost was learned."""

    USAGE = "usage.cost"
    LITELLM_HEADER = "litellm.header"
    SMART_ROUTER = "smart_router.estimate"
    ROUTER_CACHE = "router_cache"
    CACHE = "cache"
    PRICED = "priced"
    """By a table of prices, from the tokens that the router counted."""
    OFFLINE = "offline"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One question. `model` goes before `tier`, and with neither the router's default answers.

    With a `schema` (JSON Schema) the answer must be JSON that fits it. `timeout_s` bounds the whole call, from
    connecting to the last byte.
    """

    messages: tuple[Message, ...]
    purpose: Purpose = Purpose.ANALYZE
    model: str | None = None
    tier: str | None = None
    schema: Mapping[str, Any] | None = None
    max_output_tokens: int | None = None
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, each None where the router does not say. `input` includes `cached`, `output` includes `reasoning`."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One answer. `data` is the parsed and validated JSON where a schema was asked for.

    `cost_usd` is None exactly where `cost_source` is `unknown`. A cached answer costs 0, and `avoided_cost_usd` is what
    it would have cost; `estimated_savings_usd` and `difficulty_tag` are the router's own words on why it chose this
    model. `router_retries` and `router_fallbacks` are what the
    router did by itself; `request_id` is the router's, `upstream_id` the provider's, `response_id` the answer's own.
    """

    text: str
    model: str | None
    latency_ms: int
    data: Any | None = None
    provider: str | None = None
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal | None = None
    cost_source: CostSource = CostSource.UNKNOWN
    avoided_cost_usd: Decimal | None = None
    estimated_savings_usd: Decimal | None = None
    difficulty_tag: str | None = None
    ttft_ms: int | None = None
    status: int | None = None
    request_id: str | None = None
    upstream_id: str | None = None
    response_id: str | None = None
    fingerprint: str | None = None
    cache_hit: bool = False
    router_retries: int | None = None
    router_fallbacks: int | None = None


@dataclass(frozen=True, slots=True)
class RouterHealth:
    """Whether the router can be used now; `detail` is for people, without secrets."""

    status: Literal["ok", "offline", "failing"]
    detail: str
    latency_ms: int | None = None
    models: tuple[str, ...] = ()


OnText = Callable[[str], None]
"""Takes a piece of an answer as it comes; must not wait."""


class ModelRouter(Protocol):
    """A way to models. One instance serves all concurrent calls of a process."""

    @property
    def name(self) -> str: ...

    @property
    def default_model(self) -> str | None: ...

    def blocked(self) -> ModelFailure | None:
        """Why a call should not even be tried now; None where it may."""
        ...

    def asks(self, request: ModelRequest) -> str | None:
        """The model that will be asked, as the router names it; None where the router chooses."""
        ...

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelAnswer:
        """One attempt, never retried here. `on_text` gets the answer piece by piece from a router that can stream.

        Raises ModelFailure, or ModelUnavailable where this router cannot answer such a request at all.
        """
        ...

    async def check(self) -> RouterHealth:
        """Asks whether the router answers; costs nothing and never raises for a router that does not."""
        ...

    async def aclose(self) -> None: ...


def request_hash(request: ModelRequest) -> str:
    """The sha256 of everything that shapes the answer (not of the timeout), as 64 hexadecimal digits."""
    return canonical.digest(
        canonical.dumps(
            {
                "v": 1,
                "messages": [[message.role.value, message.content] for message in request.messages],
                "model": request.model,
                "tier": request.tier,
                "schema": request.schema,
                "max_output_tokens": request.max_output_tokens,
            }
        )
    )
