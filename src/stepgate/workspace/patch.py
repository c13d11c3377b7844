"""Applying a unified diff to one file in memory: what does not fit to the letter is refused, never guessed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stepgate.domain.errors import EditConflict, InvalidValue
from stepgate.workspace.edits import decode_text, uses_crlf

_HUNK: Final = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_REFUSED: Final = ("rename ", "copy ", "old mode ", "new mode ", "GIT binary patch", "Binary files ")
_NEW_MODES: Final = ("new file mode 100644", "deleted file mode 100644", "deleted file mode 100755")
_ABSENT: Final = "/dev/null"
_NO_NEWLINE: Final = "\\"
_FIX: Final = "make the patch from the file as it is now"


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines with their line ends: `old` is what must stand there, `new` what replaces it; `start` counts from 0."""

    number: int
    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FilePatch:
    """A parsed patch of one file; the names are None when the patch has no header."""

    old_name: str | None
    new_name: str | None
    hunks: tuple[Hunk, ...]


def apply_patch(data: bytes | None, patch: str, path: str, field: str = "patch") -> bytes | None:
    """The file's bytes after the patch; None for an absent file, on the way in or out (`/dev/null`).

    Every hunk must match to the letter, at its line or, where only one other place matches, there. In a file
    whose every line ends in CRLF, a patch without any CRLF means CRLF by LF. Raises InvalidValue for text that is no
    unified diff of the one file `path`, EditConflict naming the hunk where it does not fit.
    """
    parsed = parse_patch(patch, field)
    _check_names(parsed, path, field)
    if parsed.old_name == _ABSENT:
        if data is not None:
            raise EditConflict(f"the patch creates {path!r}, which exists", field=field, fix=_FIX)
        text = ""
    elif data is None:
        raise EditConflict(f"the patch changes {path!r}, which does not exist", field=field, fix=_FIX)
    else:
        text = decode_text(data, field)
    lines = _lines(text)
    hunks = _with_crlf(parsed.hunks) if uses_crlf(text) and not _has_crlf(parsed.hunks) else parsed.hunks
    result = _apply(lines, hunks, field)
    if parsed.new_name == _ABSENT:
        if result:
            raise EditConflict(f"the patch deletes {path!r}, but the file has more lines", field=field, fix=_FIX)
        return None
    return "".join(result).encode()


def _check_names(parsed: FilePatch, path: str, field: str) -> None:
    if parsed.old_name == parsed.new_name == _ABSENT:
        raise InvalidValue("the patch names no file", field=field)
    for name, prefix in ((parsed.old_name, "a/"), (parsed.new_name, "b/")):
        if name not in (None, _ABSENT, path, prefix + path, "./" + path):
            raise InvalidValue(
                f"the patch is for {name!r}, the step for {path!r}", field=field, fix="use the same path in both"
            )


def _apply(lines: Sequence[str], hunks: Sequence[Hunk], field: str) -> list[str]:
    result, done, shift = list[str](), 0, 0
    for hunk in hunks:
        place = _place(lines, hunk, done, hunk.start + shift, field)
        shift = place - hunk.start
        result += lines[done:place]
        result += hunk.new
        done = place + len(hunk.old)
    return result + list(lines[done:])


def _place(lines: Sequence[str], hunk: Hunk, done: int, wanted: int, field: str) -> int:
    size = len(hunk.old)
    if done <= wanted <= len(lines) and tuple(lines[wanted : wanted + size]) == hunk.old:
        return wanted
    places = list[int]()
    if hunk.old:
        places = [
            place
            for place in range(done, len(lines) - size + 1)
            if lines[place] == hunk.old[0] and tuple(lines[place : place + size]) == hunk.old
        ]
    if len(places) == 1:
        return places[0]
    reason = f"matches in {len(places)} places, none at its line" if places else "does not match the file"
    raise EditConflict(
        f"hunk {hunk.number} (line {hunk.start + 1}) {reason}",
        field=field,
        fix=_FIX,
        details={"hunk": hunk.number, "line": hunk.start + 1},
    )


def _has_crlf(hunks: Sequence[Hunk]) -> bool:
    return any(line.endswith("\r\n") for hunk in hunks for line in (*hunk.old, *hunk.new))


def _with_crlf(hunks: Sequence[Hunk]) -> tuple[Hunk, ...]:
    def convert(lines: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(line[:-1] + "\r\n" if line.endswith("\n") else line for line in lines)

    return tuple(Hunk(hunk.number, hunk.start, convert(hunk.old), convert(hunk.new)) for hunk in hunks)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def parse_patch(patch: str, field: str = "patch") -> FilePatch:
    """A unified diff of one file; raises InvalidValue naming the line or hunk that is wrong."""
    lines = _lines(patch)
    old_name, new_name, index = _header(lines, field)
    hunks = list[Hunk]()
    while index < len(lines):
        if not lines[index].startswith("@@"):
            if not lines[index].strip():
                index += 1
                continue
            raise _wrong(f"line {index + 1} is no hunk header", field)
        hunk, index = _hunk(lines, index, len(hunks) + 1, field)
        hunks.append(hunk)
    if not hunks and _ABSENT not in (old_name, new_name):
        raise _wrong("there is no hunk in it", field)
    return FilePatch(old_name, new_name, tuple(hunks))


def _header(lines: Sequence[str], field: str) -> tuple[str | None, str | None, int]:
    old_name: str | None = None
    for index, line in enumerate(lines):
        text = line.rstrip("\r\n")
        if text.startswith(_REFUSED):
            raise _wrong(f"line {index + 1} ({text!r}) is not a change of text", field)
        if text.startswith(("new file mode ", "deleted file mode ")) and text not in _NEW_MODES:
            raise InvalidValue(f"{text!r} cannot be done by a patch", field=field, fix="give the mode as `mode`")
        if text.startswith("--- "):
            old_name = _name(text[4:])
        elif text.startswith("+++ ") and old_name is not None:
            return old_name, _name(text[4:]), index + 1
        elif text.startswith("@@"):
            return None, None, index
    raise _wrong("there is no hunk in it", field)


def _name(text: str) -> str:
    name = text.split("\t", 1)[0].strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        raw = re.sub(r'\\([0-7]{3}|["\\tnr])', _unescape, name[1:-1]).encode("latin-1", "backslashreplace")
        return raw.decode("utf-8", "replace")
    return name


def _unescape(match: re.Match[str]) -> str:
    code = match.group(1)
    return {"t": "\t", "n": "\n", "r": "\r", '"': '"', "\\": "\\"}.get(code) or chr(int(code, 8) & 0xFF)


def _hunk(lines: Sequence[str], index: int, number: int, field: str) -> tuple[Hunk, int]:
    header = _HUNK.match(lines[index])
    if header is None:
        raise _wrong(f"the header of hunk {number} (line {index + 1}) is wrong", field)
    start, old_count = int(header[1]), int(header[2] or "1")
    new_count = int(header[4] or "1")
    old, new = list[str](), list[str]()
    index += 1
    while len(old) < old_count or len(new) < new_count:
        if index >= len(lines):
            raise _wrong(f"hunk {number} ends before its {old_count} old and {new_count} new lines", field)
        sides = _take(lines[index], old, new)
        if not sides:
            raise _wrong(f"line {index + 1} in hunk {number} starts with neither blank, '-' nor '+'", field)
        index += 1
        if index < len(lines) and lines[index].startswith(_NO_NEWLINE):
            for side in sides:
                side[-1] = side[-1].removesuffix("\n")
            index += 1
    if len(old) > old_count or len(new) > new_count:
        raise _wrong(f"hunk {number} has more lines than its header says", field)
    # Without old lines the header names the line after which to insert.
    return Hunk(number, start - 1 if old_count else start, tuple(old), tuple(new)), index


def _take(line: str, old: list[str], new: list[str]) -> tuple[list[str], ...]:
    """Adds a hunk's line to the sides it belongs to, and returns those sides."""
    # Editors strip the blank of an empty context line.
    sign, rest = (" ", line) if line in ("\n", "\r\n") else (line[:1], line[1:])
    ended = rest if rest.endswith("\n") else rest + "\n"
    sides = {" ": (old, new), "-": (old,), "+": (new,)}.get(sign, ())
    for side in sides:
        side.append(ended)
    return sides


def _wrong(reason: str, field: str) -> InvalidValue:
    return InvalidValue(f"not a unified diff of one file: {reason}", field=field, fix="give the output of `diff -u`")
