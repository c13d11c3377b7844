"""Durations as people write them in plans, because bare numbers hide their unit."""

import re
from typing import Any

from stepgate.domain.errors import InvalidValue

PATTERN = r"^(\d+(?:\.\d+)?)(ms|s|m|h)$"
FIX = 'write seconds as a number, or "500ms", "30s", "5m", "1h"'
_DURATION = re.compile(PATTERN, re.ASCII)
_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
# Longer texts are no durations, and converting a very long row of digits is slow.
_MAX_CHARS = 20


def milliseconds(value: Any) -> int:
    """Whole milliseconds of a number of seconds (30, 0.5) or a text with a unit ("500ms", "30s", "5m", "1h").

    Raises InvalidValue for anything else, for negatives and for what is not finite.
    """
    match value:
        case bool():
            raise InvalidValue("not a duration", fix=FIX)
        case int() if 0 <= value < 10**12:
            return value * 1000
        case float() if 0 <= value < 10**12:
            return round(value * 1000)
        case str() if len(value) <= _MAX_CHARS and (found := _DURATION.fullmatch(value)):
            return round(float(found[1]) * _MS[found[2]])
        case _:
            raise InvalidValue("not a duration", fix=FIX)
