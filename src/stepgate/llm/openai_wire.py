"""The OpenAI chat-completions wire format, with the deviations of LiteLLM, OpenRouter, vLLM and Ollama."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from stepgate.domain.errors import InvalidValue
from stepgate.llm.protocol import CostSource, ModelAnswer, ModelRequest, Usage
from stepgate.llm.wire import amount, count, storable, text_of


@dataclass(frozen=True, slots=True)
class Completion:
    """What a 200 said, before it is known whether its text is of use."""

    answer: ModelAnswer
    refusal: str | None


def request_body(request: ModelRequest, model: str, length_field: str) -> dict[str, Any]:
    """The JSON to send; `length_field` is what this server calls the bound on output tokens."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role.value, "content": message.content} for message in request.messages],
    }
    if request.max_output_tokens is not None:
        body[length_field] = request.max_output_tokens
    if request.schema is not None:
        json_schema = {"name": "answer", "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
    return body


def read_completion(headers: Mapping[str, str], body: Mapping[str, Any], status: int, latency_ms: int) -> Completion:
    """The answer in a body; raises InvalidValue where it has no choice with a message."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        raise InvalidValue("no choice with a message")
    finish_reason = text_of(choice.get("finish_reason"))
    answer = answer_of(headers, body, content(message.get("content")), finish_reason, status, latency_ms)
    return Completion(answer, text_of(message.get("refusal")))


def answer_of(
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    text: str,
    finish_reason: str | None,
    status: int,
    latency_ms: int,
    ttft_ms: int | None = None,
) -> ModelAnswer:
    """The answer with what headers and body (of a stream: its chunks' fields put together) say about it."""
    usage = body.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    cost, avoided, source = _cost(headers, usage)
    model, provider = _model(headers, body)
    return ModelAnswer(
        text=text,
        model=model,
        provider=provider,
        latency_ms=latency_ms,
        ttft_ms=ttft_ms,
        finish_reason=finish_reason,
        usage=_usage(usage),
        cost_usd=cost,
        cost_source=source,
        avoided_cost_usd=avoided,
        status=status,
        request_id=text_of(headers.get("x-litellm-call-id") or headers.get("x-request-id")),
        upstream_id=text_of(headers.get("llm_provider-x-request-id")),
        response_id=text_of(body.get("id")),
        fingerprint=text_of(body.get("system_fingerprint")),
        cache_hit=source is CostSource.ROUTER_CACHE,
        router_retries=count(headers.get("x-litellm-attempted-retries")),
        router_fallbacks=count(headers.get("x-litellm-attempted-fallbacks")),
    )


def content(given: Any) -> str:
    """Text, or the text parts of a content list, as some servers answer, without what a database cannot hold."""
    if isinstance(given, list):
        parts = [part.get("text") for part in given if isinstance(part, Mapping)]
        given = "".join(part for part in parts if isinstance(part, str))
    return storable(given) if isinstance(given, str) else ""


def _cost(headers: Mapping[str, str], usage: Mapping[str, Any]) -> tuple[Decimal | None, Decimal | None, CostSource]:
    """(cost, what a cached answer would have cost, where it was learned)"""
    candidates = (
        (usage.get("cost"), CostSource.USAGE),
        (headers.get("x-litellm-response-cost"), CostSource.LITELLM_HEADER),
    )
    known = ((cost, source) for value, source in candidates if (cost := amount(value)) is not None)
    cost, source = next(known, (None, CostSource.UNKNOWN))
    if "x-litellm-cache-key" in headers:
        # The proxy repeats the first call's cost on a hit; this key is its only mark.
        return Decimal(0), cost, CostSource.ROUTER_CACHE
    return cost, None, source


def _model(headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The model that answered and its provider; LiteLLM's body names only the alias that was asked for."""
    if named := headers.get("x-litellm-model-name"):
        provider, slash, model = named.partition("/")
        return (text_of(model), text_of(provider)) if slash else (text_of(named), None)
    return text_of(body.get("model")), text_of(body.get("provider"))


def _usage(usage: Mapping[str, Any]) -> Usage:
    def detail(of: str, name: str) -> int | None:
        details = usage.get(of)
        return count(details.get(name)) if isinstance(details, Mapping) else None

    return Usage(
        input=count(usage.get("prompt_tokens")),
        output=count(usage.get("completion_tokens")),
        cached=detail("prompt_tokens_details", "cached_tokens"),
        reasoning=detail("completion_tokens_details", "reasoning_tokens"),
    )
