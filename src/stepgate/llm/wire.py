"""What bodies and headers of model routers have in common, read without trusting any of it."""

import json
from collections.abc import Mapping
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from stepgate.domain import money
from stepgate.domain.errors import InvalidValue

_MAX_HINT_S = 3600.0
_MAX_TOKENS = 10**12


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


def amount(value: Any) -> Decimal | None:
    """US dollars as a router wrote them; None for what is no amount of money."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        return money.usd(value)
    except InvalidValue:
        return None


def count(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 13:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_TOKENS else None


def storable(text: str) -> str:
    """The text without what a database cannot hold."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def text_of(value: Any) -> str | None:
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
    return error_message_of(body)


def error_message_of(body: Mapping[str, Any]) -> str:
    """The same of a body that is parsed."""
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
