"""One HTTP server that answers for models: a pool of connections, deadlines, a cap, and refusals told by status."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx2

from stepgate.domain.errors import InvalidValue, ModelFailure
from stepgate.llm.wire import error_message, printable, retry_hint

MAX_RESPONSE_BYTES = 16 * 1024 * 1024
_CONNECT_S = 10.0
_CONNECTIONS = 64
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
_UNUSABLE = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL)


class Endpoint:
    """Nothing is retried here, redirects are not followed, and no error repeats the key."""

    def __init__(
        self,
        base: httpx2.URL,
        key: str | None,
        key_headers: Mapping[str, str],
        *,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        if key and not (key.isascii() and key.isprintable()):
            raise InvalidValue("not a key: it has other than ASCII characters", field="MODEL_KEY", fix="paste it anew")
        self._key = key
        self._max_bytes = max_response_bytes
        self._client = httpx2.AsyncClient(
            base_url=base,
            headers={"accept-encoding": "identity", "user-agent": "stepgate", **key_headers},
            # The deadline of each request bounds everything else.
            timeout=httpx2.Timeout(None, connect=_CONNECT_S),
            limits=httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            transport=transport,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def send(
        self, method: str, path: str, content: bytes | None, timeout_s: float
    ) -> tuple[httpx2.Response, bytes]:
        """The response and its body; raises ModelFailure where there is none within the time and size."""
        async with self.open(method, path, content, timeout_s) as response:
            return response, await self.body(response)

    @asynccontextmanager
    async def open(
        self, method: str, path: str, content: bytes | None, timeout_s: float, accept: str = "application/json"
    ) -> AsyncIterator[httpx2.Response]:
        """The response's head, its body still to be read; all of it within `timeout_s`, else ModelFailure."""
        headers = {"accept": accept}
        if content is not None:
            headers["content-type"] = "application/json"
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._client.stream(method, path, content=content, headers=headers) as response,
            ):
                yield response
        except TimeoutError as error:
            raise ModelFailure(
                f"no whole answer within {timeout_s:g} seconds", code="model_timeout", retryable=True
            ) from error
        except _NOT_SENT as error:
            message = f"the router cannot be reached: {self.clean(str(error)) or type(error).__name__}"
            fix = "check STEPGATE_MODEL_URL and that the router runs"
            raise ModelFailure(message, code="model_unreachable", retryable=True, billed=False, fix=fix) from error
        except _UNUSABLE as error:
            message, fix = f"the router's address cannot be used: {type(error).__name__}", "check STEPGATE_MODEL_URL"
            raise ModelFailure(message, code="model_unreachable", billed=False, fix=fix) from error
        except httpx2.HTTPError as error:
            message = f"the connection broke: {self.clean(str(error)) or type(error).__name__}"
            raise ModelFailure(message, code="model_connection_lost", retryable=True) from error

    async def body(self, response: httpx2.Response) -> bytes:
        data = bytearray()
        async for chunk in self.chunks(response):
            data += chunk
        return bytes(data)

    async def chunks(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """The body as it comes; raises ModelFailure `model_answer_too_large` past the cap."""
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > self._max_bytes:
                raise ModelFailure(
                    f"the answer is larger than {self._max_bytes} bytes",
                    code="model_answer_too_large",
                    status=response.status_code,
                    billed=True if response.status_code == 200 else None,
                    fix="bound it with fewer output tokens",
                )
            yield chunk

    def refused(self, response: httpx2.Response, data: bytes) -> ModelFailure:
        """Classified by the status alone: the types that routers write in the body contradict it."""
        status = response.status_code
        code, words, retryable, billed, fix = _classify(status)
        said = self.clean(error_message(data))
        return ModelFailure(
            f"{words} (status {status})" + (f": {said}" if said else ""),
            code=code,
            retryable=retryable,
            retry_after_s=retry_hint(response.headers) if retryable else None,
            status=status,
            billed=billed,
            fix=fix,
        )

    def clean(self, text: str) -> str:
        """Some servers repeat the key in their errors, and these end in journals and on screens."""
        text = text.replace(self._key, "***") if self._key else text
        return printable(text, 500)


def base_url(url: str, *, below: str = "", default: str = "/v1") -> httpx2.URL:
    """The address that request paths are added to, without the path of a request (`below`) that people paste."""
    try:
        base = httpx2.URL(url.strip())
    except httpx2.InvalidURL as error:
        raise InvalidValue(f"not a URL: {error}", field="MODEL_URL", fix="such as http://localhost:4000") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise InvalidValue("not an http or https URL", field="MODEL_URL", fix="such as http://localhost:4000")
    path = base.path.rstrip("/").removesuffix(below)
    return base.copy_with(path=(path or default) + "/", query=None, fragment=None)


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
