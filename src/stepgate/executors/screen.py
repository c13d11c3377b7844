"""Text for a person's screen: what would act there instead of showing is written out."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

SHOWN_TEXT: Final = 16 * 1024
# Control characters, and what reorders or hides text on a screen (CVE-2021-42574); line feeds and tabs are harmless.
UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def visible(text: str, most: int = SHOWN_TEXT) -> str:
    """The text with control characters, and those that reorder or hide others, as escapes; lines and tabs stay.

    Only for people: what is hashed, run or given to a later step keeps its characters. Cut to `most` characters.
    """
    shown = UNSEEN.sub(_escaped, text[:most])
    return shown if len(text) <= most else f"{shown}… ({len(text) - most} more characters)"


def one_line(text: str, most: int = 1000) -> str:
    """The same for a title, a path or a name: line feeds and tabs are written out too."""
    return visible(text, most).replace("\n", "\\x0a").replace("\t", "\\x09")


def is_cut(value: Any, most: int = SHOWN_TEXT) -> bool:
    """Whether `visible_json` (or `visible`, of a text) would not show all of it."""
    match value:
        case str():
            return len(value) > most
        case Mapping():
            return any(is_cut(item, most) for item in value.values())
        case Sequence():
            return any(is_cut(item, most) for item in value)
        case _:
            return False


def visible_json(value: Any) -> Any:
    """A JSON value with all its texts visible, names included."""
    match value:
        case str():
            return visible(value)
        case Mapping():
            return {one_line(name): visible_json(item) for name, item in value.items()}
        case Sequence():
            return [visible_json(item) for item in value]
        case _:
            return value


def _escaped(found: "re.Match[str]") -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
