"""One request to a receiver: to an address that was checked, followed nowhere, and read no further than its head."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import httpx2

from stepgate.engine.webhooks.targets import Refused, addresses_of

DEADLINE_S: Final = 10.0
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
TRIED_ADDRESSES: Final = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `status` None: nothing did, and `error` says why. `retry_after_s` is the receiver's hint."""

    status: int | None
    error: str | None
    duration_ms: int
    retry_after_s: float | None = None

    @property
    def arrived(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Poster:
    """Sends messages. `private` allows targets inside this machine and its network."""

    def __init__(self, *, private: bool, verify: ssl.SSLContext | bool = True) -> None:
        self._private = private
        self._verify = verify
        self._made: httpx2.AsyncClient | None = None

    @property
    def _client(self) -> httpx2.AsyncClient:
        """Made when there is something to send: reading the world's certificates takes a tenth of a second."""
        if self._made is None:
            # A connection is for one host's message: two hosts may share an address, and not a certificate.
            self._made = httpx2.AsyncClient(
                timeout=DEADLINE_S,
                follow_redirects=False,
                trust_env=False,
                verify=self._verify,
                limits=httpx2.Limits(max_keepalive_connections=0),
            )
        return self._made

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Never raises for what a receiver or the network does."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE_S):
                response = await self._send(url, headers, body)
        except TimeoutError:
            return Answer(None, f"no answer within {DEADLINE_S:g} s", _since(began))
        except (httpx2.HTTPError, httpx2.InvalidURL, Refused, OSError, ValueError) as error:
            return Answer(None, (str(error) or type(error).__name__)[:300], _since(began))
        fault = "a redirect, which is not followed" if response.is_redirect else f"HTTP {response.status_code}"
        told = None if response.is_success else fault
        return Answer(response.status_code, told, _since(began), _hint(response.headers.get("retry-after")))

    async def _send(self, url: str, headers: Mapping[str, str], body: bytes) -> httpx2.Response:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        addresses = await addresses_of(host, port, private=self._private)
        named = {**headers, "Host": parts.netloc, "Connection": "close"}
        for address in addresses[:TRIED_ADDRESSES]:
            place = f"[{address}]" if ":" in address else address
            request = self._client.build_request(
                "POST",
                urlunsplit((parts.scheme, f"{place}:{port}", parts.path or "/", parts.query, "")),
                headers=named,
                content=body,
                extensions={"sni_hostname": host},
            )
            try:
                response = await self._client.send(request, stream=True)
            except httpx2.ConnectError:
                if address == addresses[:TRIED_ADDRESSES][-1]:
                    raise
                continue
            await response.aclose()
            return response
        raise Refused("the host has no address")

    async def aclose(self) -> None:
        """The next message would make another client."""
        made, self._made = self._made, None
        if made is not None:
            await made.aclose()


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _hint(text: str | None) -> float | None:
    """Seconds, or a date (RFC 9110)."""
    if text is None:
        return None
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
