"""Webhooks as both ends agree on them: which events, how a message is signed, and how long it is tried.

Ids, times and signatures are those of Standard Webhooks (version 1), so that receivers find libraries for them.
"""

import base64
import hmac
from enum import StrEnum
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from stepgate.domain.errors import InvalidValue
from stepgate.domain.states import EventType

SECRET_BYTES: Final = 32
MAX_URL_CHARS: Final = 2000

_TOLD: Final = frozenset(
    {
        "approval.requested",
        "approval.reminded",
        "approval.edited",
        "approval.approved",
        "approval.rejected",
        "approval.expired",
        "run.paused",
        "run.completed",
        "run.failed",
        "run.cancelled",
        "budget.alerted",
    }
)
EVENTS: Final = tuple(type_ for type_ in EventType if type_.value in _TOLD)
"""What can be told: questions, decisions, and runs that stand still or came to their end."""

RETRY_S: Final = (5, 30, 120, 600, 1800, 7200, 18_000, 36_000, 36_000)
"""Waits between attempts, before jitter; ten attempts over a good day, then a person has to ask."""
JITTER: Final = 0.2
LONGEST_HINT_S: Final = 3600.0


class Format(StrEnum):
    """What a receiver is sent."""

    JSON = "json"
    """The event as Standard Webhooks recommends it: `{type, timestamp, data}`."""
    SLACK = "slack"
    """Text and blocks for a Slack incoming webhook."""


def new_secret(random: bytes) -> str:
    """`SECRET_BYTES` random bytes as receivers' libraries take them."""
    return "whsec_" + base64.b64encode(random).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: HMAC-SHA256 over id, timestamp (seconds) and body."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, sha256).digest()).decode()


def retry_s(attempts: int, random: float, hint_s: float | None = None) -> float | None:
    """How long to wait after so many failed attempts, None after the last; `random` is from 0 to 1.

    A receiver's own hint counts where it is longer, up to an hour.
    """
    if attempts > len(RETRY_S):
        return None
    wait = RETRY_S[attempts - 1] * (1 + JITTER * (2 * random - 1))
    return wait if hint_s is None else max(wait, min(hint_s, LONGEST_HINT_S))


def check_url(url: str, *, private: bool) -> str:
    """An address that may be posted to: https, or http too where `private` targets are allowed.

    Raises InvalidValue; whether its host may be reached is asked of its addresses, at each delivery.
    """
    fix = "send an address such as https://example.org/hooks/stepgate"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidValue(f"is no address: {error}", field="url", fix=fix) from error
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > MAX_URL_CHARS or "\\" in url:
        raise InvalidValue(f"must be at most {MAX_URL_CHARS} plain ASCII characters", field="url", fix=fix)
    if parts.scheme not in ("https", "http") or not host:
        raise InvalidValue("must begin with https://", field="url", fix=fix)
    if parts.scheme == "http" and not private:
        raise InvalidValue("must begin with https://: others could read what is sent", field="url", fix=fix)
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidValue("must hold no user, password or fragment", field="url", fix=fix)
    return url


def check_events(events: "list[str] | None") -> tuple[str, ...]:
    """The wanted events in their usual order, all where none is named. Raises InvalidValue."""
    if events is None:
        return tuple(type_.value for type_ in EVENTS)
    known = {type_.value for type_ in EVENTS}
    for name in events:
        if name not in known:
            listed = ", ".join(type_.value for type_ in EVENTS)
            raise InvalidValue(f"{name[:100]!r} is never told", field="events", fix=f"one or more of {listed}")
    if not events:
        raise InvalidValue("a webhook without events is never called", field="events", fix="leave it out for all")
    return tuple(type_.value for type_ in EVENTS if type_.value in events)
