"""Keeps the values of secrets out of what commands leave behind: their output, their files, the words about them."""

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote, quote_plus

LEAST_BYTES: Final = 8
"""Shorter text is found everywhere by chance, and taking it out would tell more than it hides."""
_WRAPS: Final = (64, 76)
_ARMOUR: Final = b"-----"
_ESCAPED: Final = re.compile(r"%[0-9A-F]{2}")
_CHUNK: Final = 1 << 20
_HEAD: Final = 4

Span = tuple[int, int, str]
"""Where a form of a secret begins and ends, and the secret's name."""


class Forms:
    """Every way in which the values of some secrets (by name) are looked for.

    These are the value itself, its longer lines one by one, and what base64 (at any offset, wrapped as usual), URLs
    and JSON make of it. What a command does to hide a value any other way is not found.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        found: dict[bytes, str] = {}
        for name, value in secrets.items():
            for form in _forms(value):
                if len(form) >= LEAST_BYTES:
                    found.setdefault(form, name)
        self.patterns: Final = tuple(found.items())
        self.longest: Final = max(map(len, found), default=0)

    def spans(self, data: bytes) -> list[Span]:
        """Every occurrence, by its beginning; they may overlap."""
        spans: list[Span] = []
        for pattern, name in self.patterns:
            at = data.find(pattern)
            while at >= 0:
                spans.append((at, at + len(pattern), name))
                at = data.find(pattern, at + 1)
        return sorted(spans)

    def beginning(self, data: bytes) -> int:
        """Where, at the end of the data, an occurrence may begin that is not over yet; its length where none does."""
        return min((_overhang(data, pattern) for pattern, _ in self.patterns), default=len(data))

    def name_in(self, data: bytes) -> str | None:
        """The name of a secret whose value is in the data."""
        return next((name for pattern, name in self.patterns if pattern in data), None)

    def name_in_file(self, descriptor: int) -> str | None:
        """The same for an open file, from where it stands to its end; blocks."""
        kept = b""
        while chunk := os.read(descriptor, _CHUNK):
            data = kept + chunk
            if (name := self.name_in(data)) is not None:
                return name
            kept = data[-self.longest + 1 :]
        return None

    def clean(self, text: str) -> str:
        """The text without the values."""
        redactor = Redactor(self)
        data = redactor.feed(text.encode("utf-8", "surrogateescape")) + redactor.end()
        return data.decode("utf-8", "surrogateescape")


class Redactor:
    """Takes the values out of a stream of bytes, wherever its pieces are cut: each becomes `[secret:NAME]`.

    What may be the beginning of a value is held back until it is known not to be one.
    """

    def __init__(self, forms: Forms) -> None:
        self._forms = forms
        self._held = b""
        self._covered = 0
        """How much of what is held belongs to a value that was already taken out, and may begin another one."""

    def feed(self, data: bytes) -> bytes:
        """What can be given on now."""
        whole = self._held + data
        return self._give(whole, self._forms.beginning(whole))

    def end(self) -> bytes:
        """The rest, when nothing more will come."""
        return self._give(self._held, len(self._held))

    def _give(self, whole: bytes, hold: int) -> bytes:
        given: list[bytes] = []
        at = self._covered
        for begin, end, name in self._forms.spans(whole):
            if begin >= hold:
                break
            if end <= at:
                continue
            if begin >= at:
                given += [whole[at:begin], f"[secret:{name}]".encode()]
            at = end
        if at < hold:
            given.append(whole[at:hold])
            at = hold
        self._held, self._covered = whole[hold:], at - hold
        return b"".join(given)


def _forms(value: str) -> Iterator[bytes]:
    raw = value.encode()
    yield raw
    lines = [line.strip() for line in raw.splitlines()]
    if len(lines) > 1:
        yield from (line for line in lines if not line.startswith(_ARMOUR))
        yield b"\r\n".join(raw.splitlines())
    for encoded in _base64(raw):
        yield encoded
        yield encoded.translate(bytes.maketrans(b"+/", b"-_"))
    for text in (quote(value, safe=""), quote(value), quote_plus(value)):
        yield text.encode()
        yield _ESCAPED.sub(lambda found: found[0].lower(), text).encode()
    yield json.dumps(value)[1:-1].encode()
    yield json.dumps(value, ensure_ascii=False)[1:-1].encode()


def _base64(raw: bytes) -> Iterator[bytes]:
    """What stands for the bytes in base64, at each place they can have in a group of three."""
    # A shell's `echo` adds a line feed, which changes the end.
    whole = (raw, raw + b"\n")
    for before in range(3):
        texts = [base64.b64encode(bytes(before) + one) for one in whole]
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        yield texts[0][first:last]
        yield from (text[first:] for text in texts)
    for text in map(base64.b64encode, whole):
        for width in _WRAPS:
            if len(text) > width:
                yield from (text[at : at + width] for at in range(0, len(text), width))


def _overhang(data: bytes, pattern: bytes) -> int:
    start = max(0, len(data) - len(pattern) + 1)
    head = pattern[:_HEAD]
    at = data.find(head, start)
    while at >= 0:
        if pattern.startswith(data[at:]):
            return at
        at = data.find(head, at + 1)
    for at in range(max(start, len(data) - _HEAD + 1), len(data)):
        if pattern.startswith(data[at:]):
            return at
    return len(data)
