"""Canonical JSON, the one text that is hashed: sorted keys, UTF-8, no blanks, shortest float form."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson

from stepgate.domain.errors import InvalidValue

_INT64 = range(-(2**63), 2**63)
MAX_DEPTH = 64


def dumps(value: Any) -> bytes:
    """The canonical JSON of a value made of dict, list, tuple, str, int, float, bool, None (Decimal as string).

    Raises InvalidValue where the value has no such form (see `check`).
    """
    try:
        return orjson.dumps(value, default=_default, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"the value has no canonical JSON form: {error}") from error


def _default(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError(f"{type(value).__name__} is not JSON")


def loads(text: bytes | str) -> Any:
    """Parses JSON; raises InvalidValue with the place of the fault."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidValue(f"not valid JSON: {error}") from error


def digest(data: bytes) -> str:
    """The sha256 of the bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def check(value: Any, field: str = "value", depth: int = 0) -> None:
    """Refuses what PostgreSQL text or canonical JSON cannot hold: NUL, lone surrogates, NaN, infinities,
    integers over 64 bits, keys that are not strings, nesting over 64 levels.

    Raises InvalidValue naming the field by its path, as in `input.args[2]`.
    """
    if depth > MAX_DEPTH:
        raise InvalidValue(f"nested more than {MAX_DEPTH} levels deep", field=field, fix="flatten the value")
    match value:
        case None | bool():
            return
        case str():
            check_text(value, field)
        case int():
            if value not in _INT64:
                raise InvalidValue("an integer over 64 bits", field=field, fix="send it as a string")
        case float():
            if not math.isfinite(value):
                raise InvalidValue("not a finite number", field=field, fix="send a finite number or null")
        case Mapping():
            _check_mapping(value, field, depth)
        case Sequence():
            for index, item in enumerate(value):
                check(item, f"{field}[{index}]", depth + 1)
        case _:
            raise InvalidValue(f"{type(value).__name__} is not a JSON value", field=field)


def _check_mapping(value: Mapping[Any, Any], field: str, depth: int) -> None:
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidValue("a key that is not a string", field=field, fix="quote the key")
        check_text(key, f"{field} (a key)")
        check(item, f"{field}.{key}", depth + 1)


def check_text(value: str, field: str) -> None:
    """Refuses NUL and lone surrogates, naming the field."""
    if "\x00" in value:
        raise InvalidValue("contains a NUL character", field=field, fix="remove the NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidValue(
            "contains a lone surrogate (not valid Unicode)", field=field, fix="send valid UTF-8 text"
        ) from error
