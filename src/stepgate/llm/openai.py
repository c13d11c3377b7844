"""The client for every router that speaks OpenAI's chat completions: LiteLLM, OpenRouter, vLLM, Ollama, llama.cpp."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx2
import orjson

from stepgate.domain.errors import InvalidValue, ModelFailure, ModelUnavailable
from stepgate.llm import structured
from stepgate.llm.openai_wire import (
    Completion,
    error_message,
    parse_json,
    printable,
    read_completion,
    request_body,
    retry_hint,
)
from stepgate.llm.protocol import ModelAnswer, ModelRequest, RouterHealth

MAX_RESPONSE_BYTES = 16 * 1024 * 1024
_CONNECT_S = 10.0
_CHECK_S = 5.0
_CONNECTIONS = 64
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
_UNUSABLE = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL)


class OpenAIRouter:
    """A `ModelRouter` over HTTP with one pool of connections. Nothing is retried here, redirects are not followed.

    `url` is the server, with or without `/v1` or another path before `/chat/completions`. `tiers` maps a request's
    tier to a model; a tier without one is answered by the default model.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        default_model: str | None,
        *,
        name: str = "openai",
        tiers: Mapping[str, str] | None = None,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = name
        self.default_model = default_model
        self._tiers = dict(tiers or {})
        self._max_bytes = max_response_bytes
        self._key = key
        base = _base_url(url)
        # OpenAI's own reasoning models refuse the name that every other server knows.
        self._length_field = "max_completion_tokens" if base.host == "api.openai.com" else "max_tokens"
        headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "stepgate"}
        if key:
            if not (key.isascii() and key.isprintable()):
                raise InvalidValue(
                    "not a key: it has other than ASCII characters", field="MODEL_KEY", fix="paste it anew"
                )
            headers["authorization"] = f"Bearer {key}"
        self._client = httpx2.AsyncClient(
            base_url=base,
            headers=headers,
            # The deadline of each request bounds everything else.
            timeout=httpx2.Timeout(None, connect=_CONNECT_S),
            limits=httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            transport=transport,
        )

    async def complete(self, request: ModelRequest) -> ModelAnswer:
        """One attempt; raises ModelFailure as its status says, ModelUnavailable `no_model` where none is configured."""
        model = request.model or self._tiers.get(request.tier or "") or self.default_model
        if not model:
            raise ModelUnavailable(
                "no model is named", code="no_model", fix="name a model in the step, or set STEPGATE_MODEL_DEFAULT"
            )
        if request.schema is not None:
            structured.check_schema(request.schema)
        content = orjson.dumps(request_body(request, model, self._length_field))
        started = time.monotonic()
        response, data = await self._send("POST", "chat/completions", content, request.timeout_s)
        latency_ms = round((time.monotonic() - started) * 1000)
        if response.status_code != 200:
            raise self._refused(response, data)
        try:
            completion = read_completion(response.headers, parse_json(data), response.status_code, latency_ms)
        except InvalidValue as error:
            raise ModelFailure(
                f"the router's answer cannot be read: {error.message}",
                code="model_answer_unreadable",
                retryable=True,
                status=response.status_code,
                fix="check that STEPGATE_MODEL_URL is an OpenAI-compatible API",
            ) from error
        return _usable(completion, request)

    async def check(self) -> RouterHealth:
        """Lists the models; a server that answers anything but a refusal of the key counts as there."""
        started = time.monotonic()
        try:
            response, data = await self._send("GET", "models", None, _CHECK_S)
        except ModelFailure as failure:
            return RouterHealth("failing", failure.message)
        latency_ms = round((time.monotonic() - started) * 1000)
        if response.status_code in (401, 403) or response.status_code >= 500:
            return RouterHealth("failing", self._refused(response, data).message, latency_ms)
        return RouterHealth("ok", f"{self.name} answers", latency_ms, _models(data))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _send(
        self, method: str, path: str, content: bytes | None, timeout_s: float
    ) -> tuple[httpx2.Response, bytes]:
        """The response and its body; raises ModelFailure where there is none within the time and size."""
        headers = {"content-type": "application/json"} if content is not None else None
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._client.stream(method, path, content=content, headers=headers) as response,
            ):
                return response, await self._body(response)
        except TimeoutError as error:
            raise ModelFailure(
                f"no whole answer within {timeout_s:g} seconds", code="model_timeout", retryable=True
            ) from error
        except _NOT_SENT as error:
            message = f"the router cannot be reached: {self._clean(str(error)) or type(error).__name__}"
            fix = "check STEPGATE_MODEL_URL and that the router runs"
            raise ModelFailure(message, code="model_unreachable", retryable=True, billed=False, fix=fix) from error
        except _UNUSABLE as error:
            message, fix = f"the router's address cannot be used: {type(error).__name__}", "check STEPGATE_MODEL_URL"
            raise ModelFailure(message, code="model_unreachable", billed=False, fix=fix) from error
        except httpx2.HTTPError as error:
            message = f"the connection broke: {self._clean(str(error)) or type(error).__name__}"
            raise ModelFailure(message, code="model_connection_lost", retryable=True) from error

    async def _body(self, response: httpx2.Response) -> bytes:
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > self._max_bytes:
                raise ModelFailure(
                    f"the answer is larger than {self._max_bytes} bytes",
                    code="model_answer_too_large",
                    status=response.status_code,
                    billed=True if response.status_code == 200 else None,
                    fix="bound it with fewer output tokens",
                )
        return bytes(data)

    def _refused(self, response: httpx2.Response, data: bytes) -> ModelFailure:
        """Classified by the status alone: the types that routers write in the body contradict it."""
        status = response.status_code
        code, words, retryable, billed, fix = _classify(status)
        said = self._clean(error_message(data))
        return ModelFailure(
            f"{words} (status {status})" + (f": {said}" if said else ""),
            code=code,
            retryable=retryable,
            retry_after_s=retry_hint(response.headers) if retryable else None,
            status=status,
            billed=billed,
            fix=fix,
        )

    def _clean(self, text: str) -> str:
        """Some servers repeat the key in their errors, and these end in journals and on screens."""
        text = text.replace(self._key, "***") if self._key else text
        return printable(text, 500)


def _base_url(url: str) -> httpx2.URL:
    try:
        base = httpx2.URL(url.strip())
    except httpx2.InvalidURL as error:
        raise InvalidValue(f"not a URL: {error}", field="MODEL_URL", fix="such as http://localhost:4000") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise InvalidValue("not an http or https URL", field="MODEL_URL", fix="such as http://localhost:4000")
    path = base.path.rstrip("/").removesuffix("/chat/completions")
    return base.copy_with(path=(path or "/v1") + "/", query=None, fragment=None)


def _classify(status: int) -> tuple[str, str, bool, bool | None, str | None]:
    """(code, words, retryable, billed, fix)"""
    match status:
        case 401 | 403:
            return "model_auth", "the router refuses the key", False, False, "check STEPGATE_MODEL_KEY"
        case 402:
            return "model_credit", "the account has no credit left", False, False, "top up the account"
        case 404:
            fix = "check the model's name and STEPGATE_MODEL_URL"
            return "model_not_found", "the router knows no such model or address", False, False, fix
        case 408:
            return "model_timeout", "the router gave up waiting", True, None, None
        case 409:
            return "model_conflict", "the router reports a conflict", True, False, None
        case 429:
            return "model_rate_limited", "too many requests", True, False, None
        case _ if 500 <= status < 600:
            return "model_server_error", "the router or its model failed", True, None, None
        case _ if 300 <= status < 400:
            fix = "set STEPGATE_MODEL_URL to the final address"
            return "model_redirected", "the router redirects, which is not followed", False, False, fix
        case _:
            fix = "check the model's name, the key and the length of the context"
            return "model_request_refused", "the router refuses the request", False, False, fix


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
