"""The OpenAI chat-completions wire format, with the deviations of LiteLLM, OpenRouter, vLLM and Ollama."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from stepgate.domain import money
from stepgate.domain.errors import InvalidValue
from stepgate.llm.protocol import CostSource, ModelAnswer, ModelRequest, Usage

_MAX_HINT_S = 3600.0
_MAX_TOKENS = 10**12


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


def parse_json(data: bytes) -> dict[str, Any]:
    """The object in a body, with decimal numbers as Decimal; raises InvalidValue for anything else."""
    try:
        value = json.loads(data, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"not JSON: {str(error)[:100]}") from error
    if not isinstance(value, dict):
        raise InvalidValue("JSON, but not an object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read_completion(headers: Mapping[str, str], body: Mapping[str, Any], status: int, latency_ms: int) -> Completion:
    """The answer in a body; raises InvalidValue where it has no choice with a message."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        raise InvalidValue("no choice with a message")
    usage = body.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    cost, source = _cost(headers, usage)
    model, provider = _model(headers, body)
    answer = ModelAnswer(
        text=_content(message.get("content")),
        model=model,
        provider=provider,
        latency_ms=latency_ms,
        finish_reason=_text(choice.get("finish_reason")),
        usage=_usage(usage),
        cost_usd=cost,
        cost_source=source,
        status=status,
        request_id=_text(headers.get("x-litellm-call-id") or headers.get("x-request-id")),
        upstream_id=_text(headers.get("llm_provider-x-request-id")),
        response_id=_text(body.get("id")),
        fingerprint=_text(body.get("system_fingerprint")),
        cache_hit=source is CostSource.ROUTER_CACHE,
        router_retries=_count(headers.get("x-litellm-attempted-retries")),
        router_fallbacks=_count(headers.get("x-litellm-attempted-fallbacks")),
    )
    return Completion(answer, _text(message.get("refusal")))


def _content(content: Any) -> str:
    """Text, or the text parts of a content list, as some servers answer, without what a database cannot hold."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        return ""
    return content.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _cost(headers: Mapping[str, str], usage: Mapping[str, Any]) -> tuple[Decimal | None, CostSource]:
    if "x-litellm-cache-key" in headers:
        # The proxy repeats the first call's cost on a hit; this key is its only mark.
        return Decimal(0), CostSource.ROUTER_CACHE
    candidates = (
        (usage.get("cost"), CostSource.USAGE),
        (headers.get("x-litellm-response-cost"), CostSource.LITELLM_HEADER),
    )
    for amount, source in candidates:
        if isinstance(amount, str | int | Decimal) and not isinstance(amount, bool):
            try:
                return money.usd(amount), source
            except InvalidValue:
                continue
    return None, CostSource.UNKNOWN


def _model(headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The model that answered and its provider; LiteLLM's body names only the alias that was asked for."""
    if named := headers.get("x-litellm-model-name"):
        provider, slash, model = named.partition("/")
        return (_text(model), _text(provider)) if slash else (_text(named), None)
    return _text(body.get("model")), _text(body.get("provider"))


def _usage(usage: Mapping[str, Any]) -> Usage:
    def detail(of: str, name: str) -> int | None:
        details = usage.get(of)
        return _count(details.get(name)) if isinstance(details, Mapping) else None

    return Usage(
        input=_count(usage.get("prompt_tokens")),
        output=_count(usage.get("completion_tokens")),
        cached=detail("prompt_tokens_details", "cached_tokens"),
        reasoning=detail("completion_tokens_details", "reasoning_tokens"),
    )


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 13:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_TOKENS else None


def _text(value: Any) -> str | None:
    """Short text as it may be stored; a router's text is no more to be trusted than a model's."""
    if not isinstance(value, str) or not value:
        return None
    return printable(value, 200)


def printable(text: str, most: int) -> str:
    """At most so many characters, without control characters and lone surrogates."""
    return "".join(c if c.isprintable() else " " for c in text[:most])


def error_message(data: bytes) -> str:
    """The sentence for people in an error body, whatever its form; empty where there is none."""
    try:
        body = parse_json(data)
    except InvalidValue:
        return printable(data[:300].decode("utf-8", "replace"), 300).strip()
    error = body.get("error", body.get("detail", body.get("message")))
    if isinstance(error, Mapping):
        error = error.get("message")
    return printable(error, 500).strip() if isinstance(error, str) else ""


def retry_hint(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from the hint that is most exact; at most an hour, None without a readable hint."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0), ("llm_provider-retry-after", 1.0)):
        if (text := headers.get(name)) is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            dated = _until(text, headers.get("date"))
            if dated is None:
                continue
            seconds = dated
        if 0 <= seconds < float("inf"):
            return min(seconds, _MAX_HINT_S)
    return None


def _until(text: str, date: str | None) -> float | None:
    """Seconds to an HTTP date, on the clock of the server that set it."""
    try:
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(date or "")).total_seconds())
    except (ValueError, TypeError):
        return None
