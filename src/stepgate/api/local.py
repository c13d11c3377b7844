"""The rules of every request: this service under its own names only, and no writes from other sites' pages.

1. `Host` must be a loopback name or one that is configured; another one means that a name of somebody else's was
   made to point here (DNS rebinding), so nothing is answered at all, not even reads.
2. Whatever writes is refused when the browser says that another site's page sent it: an `Origin` that is not this
   very host and port, or a `Sec-Fetch-Site` other than `same-origin` and `none`. Programs send neither.

Who may call is said in `access`.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepgate.api.problems import Refused, refusal
from stepgate.api.services import Services
from stepgate.domain.errors import Problem

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
ALWAYS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every answer: not kept by others, not framed by others, not guessed at."""


class LocalRules:
    """Rules 1 and 2, before anything else looks at a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        services: Services = scope["app"].state.services
        refused = _refused(scope["method"], Headers(scope=scope), services.allowed_hosts)
        if refused is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await refusal(refused)(scope, receive, send_with_headers)


def _refused(method: str, headers: Headers, allowed: Collection[str]) -> Refused | None:
    hosts = headers.getlist("host")
    host = hosts[0] if len(hosts) == 1 else ""
    if not _known(host, allowed):
        return _foreign("Host", host, "foreign_host", "call it by localhost, 127.0.0.1 or a configured name")
    if method in SAFE_METHODS:
        return None
    for origin in headers.getlist("origin"):
        if not _same(origin, host):
            return _foreign("Origin", origin, "foreign_origin", "send the request from a program or its own pages")
    for site in headers.getlist("sec-fetch-site"):
        if site.strip().lower() not in ("same-origin", "none"):
            return _foreign("Sec-Fetch-Site", site, "foreign_origin", "send it from a program or its own pages")
    return None


def _known(host: str, allowed: Collection[str]) -> bool:
    name = _split(f"//{host}")[0]
    return name is not None and (name == "localhost" or is_loopback(name) or name in allowed)


def is_loopback(address: str) -> bool:
    """Whether the text is a loopback address; names are none."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _split(url: str) -> tuple[str | None, int | None]:
    """Host name, lower case and without brackets, and port; (None, None) for anything else than these two."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None, None
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return None, None
    return name, port


def _same(origin: str, host: str) -> bool:
    """Whether a page of this origin was served under this host; the scheme may be a proxy's."""
    scheme = origin.partition("://")[0].lower()
    default = {"http": 80, "https": 443}.get(scheme)
    name, port = _split(origin)
    own_name, own_port = _split(f"//{host}")
    return default is not None and name is not None and (name, port or default) == (own_name, own_port or default)


def _foreign(header: str, value: str, code: str, fix: str) -> Refused:
    shown = value[:200] or "nothing"
    fault = Problem(header, f"{shown} is not this service", fix)
    return Refused(403, f"{header} is {shown}, which is not this service", code=code, faults=(fault,))
