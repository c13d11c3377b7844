"""The client for the Smart Model Router, which chooses the cheapest able model itself and says what that saved."""

import time
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import httpx2
import orjson

from stepgate.domain.errors import InvalidValue, ModelFailure, ModelUnavailable
from stepgate.llm import structured
from stepgate.llm.endpoint import MAX_RESPONSE_BYTES, Endpoint, base_url
from stepgate.llm.flatten import flattened
from stepgate.llm.protocol import CostSource, ModelAnswer, ModelRequest, OnText, Role, RouterHealth
from stepgate.llm.wire import amount, parse_json, printable, storable, text_of

TIERS: Final = ("simple", "medium", "complex")
MAX_PROMPT_CHARS: Final = 100_000
MAX_SYSTEM_CHARS: Final = 10_000
_CHECK_S: Final = 5.0


class SmartRouter:
    """A `ModelRouter` over `POST /v1/complete` and `/v1/structure`. It names no tokens and no finish reason: unknown.

    `url` is the server's address, with or without `/v1`.
    """

    name = "smart_router"
    default_model: str | None = None

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"x-api-key": key} if key else {}
        base = base_url(url, below="/v1", default="/")
        self._endpoint = Endpoint(
            base.copy_with(path=base.path.replace("//", "/")),
            key,
            headers,
            max_response_bytes=max_response_bytes,
            transport=transport,
        )

    def blocked(self) -> ModelFailure | None:
        """Never: who wants a router left alone puts a `Breaker` around it."""
        return None

    def asks(self, request: ModelRequest) -> str | None:
        """Nobody knows before."""
        return None

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelAnswer:
        """One attempt, never streamed. Raises ModelUnavailable for a model or tier that this router does not take."""
        _check(request)
        if request.schema is not None:
            structured.check_schema(request.schema)
            return await self._structure(request, request.schema)
        body: dict[str, Any] = {"prompt": _prompt(request, Role.SYSTEM, Role.USER)}
        if request.tier is not None:
            body["force_tier"] = request.tier
        response, said, latency_ms = await self._post("v1/complete", body, request.timeout_s)
        text = said.get("response")
        if not isinstance(text, str):
            raise _unreadable("it has no response", response)
        answer = _answer(said, storable(text), response.status_code, latency_ms)
        if not answer.text.strip():
            raise _useless(answer, "model_answer_empty", "the model answered nothing")
        return answer

    async def _structure(self, request: ModelRequest, schema: Mapping[str, Any]) -> ModelAnswer:
        """The router's own schema check is of another schema (it knows neither `const` nor `oneOf`): ours decides."""
        system = "\n\n".join(one.content for one in request.messages if one.role is Role.SYSTEM)
        body: dict[str, Any] = {"json_schema": flattened(schema)}
        if system and len(system) <= MAX_SYSTEM_CHARS:
            body |= {"prompt": _prompt(request, Role.USER), "system_prompt": system}
        else:
            body["prompt"] = _prompt(request, Role.SYSTEM, Role.USER)
        response, said, latency_ms = await self._post("v1/structure", body, request.timeout_s)
        if not isinstance(said.get("data"), dict | list):
            raise _unreadable("it has no data", response)
        text = orjson.dumps(said["data"], default=float).decode()
        answer = _answer(said, storable(text), response.status_code, latency_ms)
        try:
            return replace(answer, data=structured.read(answer.text, schema))
        except InvalidValue as error:
            message = f"the answer does not fit the schema: {error.message}"
            raise _useless(answer, "model_answer_invalid", printable(message, 500)) from error

    async def _post(
        self, path: str, body: Mapping[str, Any], timeout_s: float
    ) -> tuple[httpx2.Response, dict[str, Any], int]:
        started = time.monotonic()
        response, data = await self._endpoint.send("POST", path, orjson.dumps(body), timeout_s)
        latency_ms = round((time.monotonic() - started) * 1000)
        if response.status_code != 200:
            failure = self._endpoint.refused(response, data)
            if failure.status == 500:
                # Whatever is wrong, with the question too, it answers 500: once more, never for long.
                failure.most_attempts = 2
            raise failure
        try:
            return response, parse_json(data), latency_ms
        except InvalidValue as error:
            raise _unreadable(error.message, response) from error

    async def check(self) -> RouterHealth:
        """Asks its health page, which needs no key."""
        started = time.monotonic()
        try:
            response, data = await self._endpoint.send("GET", "health", None, _CHECK_S)
        except ModelFailure as failure:
            return RouterHealth("failing", failure.message)
        latency_ms = round((time.monotonic() - started) * 1000)
        if response.status_code != 200:
            return RouterHealth("failing", self._endpoint.refused(response, data).message, latency_ms)
        return RouterHealth("ok", f"{self.name} answers", latency_ms)

    async def aclose(self) -> None:
        await self._endpoint.aclose()


def _check(request: ModelRequest) -> None:
    if request.model is not None:
        raise ModelUnavailable(
            f"this router chooses the model itself; {printable(request.model, 100)!r} cannot be asked for",
            code="model_not_selectable",
            field="input.model",
            fix=f"leave model out, or give a tier: {', '.join(TIERS)}",
        )
    if request.tier is not None and request.tier not in TIERS:
        raise ModelUnavailable(
            f"this router knows no tier {printable(request.tier, 100)!r}",
            code="unknown_tier",
            field="input.tier",
            fix=f"one of {', '.join(TIERS)}",
        )


def _prompt(request: ModelRequest, *roles: Role) -> str:
    """Everything in one text: this API drops a system prompt sent beside it without a word."""
    prompt = "\n\n".join(one.content for one in request.messages if one.role in roles)
    if len(prompt) > MAX_PROMPT_CHARS:
        raise ModelFailure(
            f"the prompt has {len(prompt)} characters, more than the {MAX_PROMPT_CHARS} this router takes",
            code="model_request_refused",
            billed=False,
            fix="give fewer steps as context, or read less of the files",
        )
    return prompt


def _answer(said: Mapping[str, Any], text: str, status: int, latency_ms: int) -> ModelAnswer:
    cost = amount(said.get("estimated_cost"))
    hit = said.get("cache_hit") is True
    known = CostSource.UNKNOWN if cost is None else CostSource.SMART_ROUTER
    return ModelAnswer(
        text=text,
        model=text_of(said.get("model_used")),
        latency_ms=latency_ms,
        # A hit repeats the first call's cost.
        cost_usd=Decimal(0) if hit else cost,
        cost_source=CostSource.ROUTER_CACHE if hit else known,
        avoided_cost_usd=cost if hit else None,
        estimated_savings_usd=amount(said.get("estimated_savings")),
        difficulty_tag=text_of(said.get("difficulty_tag")),
        status=status,
        cache_hit=hit,
    )


def _unreadable(why: str, response: httpx2.Response) -> ModelFailure:
    return ModelFailure(
        f"the router's answer cannot be read: {why}",
        code="model_answer_unreadable",
        retryable=True,
        status=response.status_code,
        fix="check that STEPGATE_MODEL_URL is a Smart Model Router",
    )


def _useless(answer: ModelAnswer, code: str, message: str) -> ModelFailure:
    return ModelFailure(message, code=code, retryable=True, status=answer.status, billed=True, answer=answer)
