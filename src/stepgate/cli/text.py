"""Text from runs as it may stand on a terminal, and the JSON that programs read from there."""

import json
import re
from typing import Any

from stepgate.executors.readings import EVERYTHING, escape, exact, exact_line, plain, plain_line
from stepgate.executors.screen import UNSEEN

__all__ = ["EVERYTHING", "escape", "exact", "exact_line", "json_text", "plain", "plain_line"]


def json_text(value: Any) -> str:
    """JSON whose own escapes stand for what would act or hide on a terminal, so that programs read it unchanged."""
    return UNSEEN.sub(_json_escaped, json.dumps(value, ensure_ascii=False, indent=2))


def _json_escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1] if found[0] > "\x7f" else f"\\u{ord(found[0]):04x}"
