"""Find-and-replace edits that happen exactly as they were written, or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stepgate.domain.errors import EditConflict, InvalidValue

_COUNTED: Final = 1000


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the only place where `find` stands by `replace`."""

    find: str
    replace: str


def apply_edits(data: bytes, edits: Sequence[Edit], field: str = "edits") -> bytes:
    """The file after the edits, each seeing what the ones before it made; its line endings are kept.

    In a file whose every line ends in CRLF, LF in an edit means CRLF. Raises EditConflict naming `edits[i].find` unless
    it matches exactly once, and for files that are not UTF-8; InvalidValue for an empty `find` or no edits.
    """
    if not edits:
        raise InvalidValue("there is no edit", field=field, fix="give at least one find and replace")
    text = decode_text(data, field)
    crlf = uses_crlf(text)
    for number, edit in enumerate(edits):
        text = _apply(text, edit, crlf, f"{field}[{number}].find")
    return text.encode()


def _apply(text: str, edit: Edit, crlf: bool, field: str) -> str:
    if not edit.find:
        raise InvalidValue("the text to find is empty", field=field, fix="give the text to replace")
    find = as_crlf(edit.find) if crlf else edit.find
    replace = as_crlf(edit.replace) if crlf else edit.replace
    place = text.find(find)
    if place < 0:
        raise EditConflict(
            "the text to find is not in the file",
            field=field,
            fix="copy it from the file as it is now, blanks included",
            details={"matches": 0},
        )
    count = _count(text, find)
    if count > 1:
        shown = f"{_COUNTED} or more" if count >= _COUNTED else str(count)
        raise EditConflict(
            f"the text to find matches {shown} times, not once",
            field=field,
            fix="add lines around it until it is the only one",
            details={"matches": count},
        )
    return text[:place] + replace + text[place + len(find) :]


def _count(text: str, find: str) -> int:
    """Matches, overlapping ones too, since any of them could have been meant."""
    count, place = 0, text.find(find)
    while place >= 0 and count < _COUNTED:
        count += 1
        place = text.find(find, place + 1)
    return count


def decode_text(data: bytes, field: str) -> str:
    """The file's text; raises EditConflict when it is not UTF-8 or holds NUL, as binary files do."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise EditConflict(
            f"the file is not UTF-8 text (byte {error.start})", field=field, fix="give the whole new content instead"
        ) from error
    if "\x00" in text:
        raise EditConflict("the file is binary", field=field, fix="give the whole new content instead")
    return text


def uses_crlf(text: str) -> bool:
    """Whether every line of the text ends in CRLF."""
    lines = text.count("\n")
    return lines > 0 and lines == text.count("\r\n")


def as_crlf(text: str) -> str:
    """The text with every line end as CRLF."""
    return text.replace("\r\n", "\n").replace("\n", "\r\n")
