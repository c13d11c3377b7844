"""The client for every router that speaks OpenAI's chat completions: LiteLLM, OpenRouter, vLLM, Ollama, llama.cpp."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx2
import orjson

from stepgate.domain.errors import InvalidValue, ModelFailure, ModelUnavailable
from stepgate.llm import structured
from stepgate.llm.endpoint import MAX_RESPONSE_BYTES, Endpoint, base_url
from stepgate.llm.openai_stream import Assembly, events
from stepgate.llm.openai_wire import Completion, answer_of, read_completion, request_body
from stepgate.llm.protocol import ModelAnswer, ModelRequest, OnText, RouterHealth
from stepgate.llm.wire import parse_json, printable

_CHECK_S = 5.0
_PATH = "chat/completions"
_EVENTS = "text/event-stream"


class OpenAIRouter:
    """A `ModelRouter` over HTTP with one pool of connections. Nothing is retried here, redirects are not followed.

    `url` is the server, with or without `/v1` or another path before `/chat/completions`. `tiers` maps a request's
    tier to a model; a tier without one is answered by the default model. `streams` False: answers are asked for whole,
    for a server that refuses anything else.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        default_model: str | None,
        *,
        name: str = "openai",
        tiers: Mapping[str, str] | None = None,
        streams: bool = True,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = name
        self.default_model = default_model
        self._tiers = dict(tiers or {})
        self._streams = streams
        base = base_url(url, below=f"/{_PATH}")
        # OpenAI's own reasoning models refuse the name that every other server knows.
        self._length_field = "max_completion_tokens" if base.host == "api.openai.com" else "max_tokens"
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._endpoint = Endpoint(base, key, headers, max_response_bytes=max_response_bytes, transport=transport)

    def blocked(self) -> ModelFailure | None:
        """Never: who wants a router left alone puts a `Breaker` around it."""
        return None

    def asks(self, request: ModelRequest) -> str | None:
        """The request's model, else the one of its tier, else the default."""
        return request.model or self._tiers.get(request.tier or "") or self.default_model

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelAnswer:
        """One attempt; raises ModelFailure as its status says, ModelUnavailable `no_model` where none is configured.

        An answer that must be JSON is not streamed: half of it is of no use to anybody.
        """
        model = self.asks(request)
        if not model:
            raise ModelUnavailable(
                "no model is named", code="no_model", fix="name a model in the step, or set STEPGATE_MODEL_DEFAULT"
            )
        if request.schema is not None:
            structured.check_schema(request.schema)
        body = request_body(request, model, self._length_field)
        if self._streams and on_text is not None and request.schema is None:
            return _usable(await self._streamed(body, request.timeout_s, on_text), request)
        return _usable(await self._whole(body, request.timeout_s), request)

    async def _whole(self, body: Mapping[str, Any], timeout_s: float) -> Completion:
        started = time.monotonic()
        response, data = await self._endpoint.send("POST", _PATH, orjson.dumps(body), timeout_s)
        return self._completion(response, data, started)

    async def _streamed(self, body: Mapping[str, Any], timeout_s: float, on_text: OnText) -> Completion:
        started = time.monotonic()
        asked = orjson.dumps({**body, "stream": True, "stream_options": {"include_usage": True}})
        async with self._endpoint.open("POST", _PATH, asked, timeout_s, accept=_EVENTS) as response:
            kind = response.headers.get("content-type", "")
            if response.status_code != 200 or not kind.startswith(_EVENTS):  # a server that cannot stream answers whole
                return self._completion(response, await self._endpoint.body(response), started)
            assembly, ttft_ms = Assembly(), None
            try:
                async for data in events(self._endpoint.chunks(response)):
                    if added := assembly.take(data):
                        ttft_ms = _since(started) if ttft_ms is None else ttft_ms
                        on_text(added)
            except InvalidValue as error:
                raise _unreadable(error, response) from error
        if not assembly.whole:
            raise ModelFailure("the answer broke off", code="model_stream_broken", retryable=True, status=200)
        answer = answer_of(
            response.headers, assembly.body, assembly.text, assembly.finish_reason, 200, _since(started), ttft_ms
        )
        return Completion(answer, assembly.refusal)

    def _completion(self, response: httpx2.Response, data: bytes, started: float) -> Completion:
        if response.status_code != 200:
            raise self._endpoint.refused(response, data)
        try:
            return read_completion(response.headers, parse_json(data), response.status_code, _since(started))
        except InvalidValue as error:
            raise _unreadable(error, response) from error

    async def check(self) -> RouterHealth:
        """Lists the models; a server that answers anything but a refusal of the key counts as there."""
        started = time.monotonic()
        try:
            response, data = await self._endpoint.send("GET", "models", None, _CHECK_S)
        except ModelFailure as failure:
            return RouterHealth("failing", failure.message)
        latency_ms = _since(started)
        if response.status_code in (401, 403) or response.status_code >= 500:
            return RouterHealth("failing", self._endpoint.refused(response, data).message, latency_ms)
        return RouterHealth("ok", f"{self.name} answers", latency_ms, _models(data))

    async def aclose(self) -> None:
        await self._endpoint.aclose()


def _since(started: float) -> int:
    """Milliseconds since then."""
    return round((time.monotonic() - started) * 1000)


def _unreadable(error: InvalidValue, response: httpx2.Response) -> ModelFailure:
    return ModelFailure(
        f"the router's answer cannot be read: {error.message}",
        code="model_answer_unreadable",
        retryable=True,
        status=response.status_code,
        fix="check that STEPGATE_MODEL_URL is an OpenAI-compatible API",
    )


def _usable(completion: Completion, request: ModelRequest) -> ModelAnswer:
    """The answer, with its data where a schema was asked for; raises ModelFailure carrying an answer of no use."""
    answer = completion.answer
    fault: tuple[str, str, bool] | None = None
    fix: str | None = None
    if answer.finish_reason == "length":
        fix = "allow more output tokens, or ask for less"
        fault = "model_answer_cut", "the answer was cut off at the limit of output tokens", False
    elif answer.finish_reason == "content_filter":
        fault = "model_refused", "the provider's content filter stopped the answer", False
    elif not answer.text.strip() and completion.refusal:
        fault = "model_refused", f"the model refused: {completion.refusal}", False
    elif not answer.text.strip():
        fault = "model_answer_empty", "the model answered nothing", True
    elif request.schema is not None:
        try:
            return replace(answer, data=structured.read(answer.text, request.schema))
        except InvalidValue as error:
            message = f"the answer does not fit the schema: {error.message}"
            fault = "model_answer_invalid", printable(message, 500), True
    if fault is None:
        return answer
    code, message, retryable = fault
    raise ModelFailure(
        message, code=code, retryable=retryable, status=answer.status, billed=True, answer=answer, fix=fix
    )


def _models(data: bytes) -> tuple[str, ...]:
    try:
        listed: Any = parse_json(data).get("data")
    except InvalidValue:
        return ()
    names = [item.get("id") for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    return tuple(printable(name, 200) for name in names[:200] if isinstance(name, str))
