"""Reads one file of the workspace: the step plans use most, so the whole way costs tens of microseconds."""

import asyncio
from base64 import b64encode
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from stepgate.domain.errors import InvalidValue, PathRefused
from stepgate.domain.policy.action import Reach
from stepgate.executors.base import Context, Done, Executor, Params
from stepgate.executors.fields import RelativePath
from stepgate.workspace.access import FileContent, Root

INLINE_BYTES = 64 * 1024
"""Files up to this size are read in the event loop: a thread costs more than the read."""

Line = Annotated[int, Field(ge=1, le=2**53)]


class ReadFileParams(Params):
    """What to read."""

    path: RelativePath = Field(description="the file, relative to the workspace")
    lines: list[Line] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="[first, last], counted from 1, both included; the whole file if not given",
        examples=[[1, 200]],
    )
    max_bytes: int | None = Field(
        default=None, ge=1, le=2**53, description="give back at most this many bytes, and say that it is truncated"
    )

    @field_validator("lines")
    @classmethod
    def _in_order(cls, lines: list[int] | None) -> list[int] | None:
        if lines is not None and lines[0] > lines[1]:
            raise PydanticCustomError("refused", "the first line is after the last", {"fix": "write [first, last]"})
        return lines


class ReadFile(Executor[ReadFileParams]):
    """Text where the bytes are UTF-8 without NUL, else base64."""

    type = "read_file"
    summary = "Reads a file of the workspace, whole or some of its lines."
    params = ReadFileParams

    def reach(self, params: ReadFileParams) -> Reach:
        return Reach(paths=(params.path,), complete=True)

    async def execute(self, context: Context, params: ReadFileParams) -> Done:
        """The file as it was at one moment; `sha256` and `size` are the whole file's.

        Raises PathRefused (links, folders, devices, over the read limit) and NotFound, by the field `path`;
        InvalidValue for lines that are not there or of a file that is not text.
        """
        content = await _read(context.root, params.path, context.bounds.max_read_bytes)
        return Done(_output(content, params))


async def _read(root: Root, path: str, max_bytes: int) -> FileContent:
    inline = min(INLINE_BYTES, max_bytes)
    try:
        return root.read(path, inline)
    except PathRefused as error:
        if inline == max_bytes or error.details.get("size", 0) <= inline:
            raise
    return await asyncio.to_thread(root.read, path, max_bytes)


def _output(content: FileContent, params: ReadFileParams) -> Mapping[str, Any]:
    data, lines, truncated = content.data, params.lines, False
    text = _text(data)
    first = last = None
    if lines is not None:
        if text is None:
            raise InvalidValue("the file is not UTF-8 text, so it has no lines", field="lines", fix="leave lines out")
        data = _select(data, lines)
        first = lines[0]
    if params.max_bytes is not None and len(data) > params.max_bytes:
        data, truncated = _cut(data, params.max_bytes, whole_characters=text is not None), True
    if first is not None and content.data:
        last = first + data.count(b"\n", 0, -1)
    body = {"base64": b64encode(data).decode()} if text is None else {"text": _again(text, data, content)}
    return {
        **body,
        "encoding": "base64" if text is None else "utf-8",
        "sha256": content.sha256,
        "size": len(content.data),
        "first_line": first if last is not None else None,
        "last_line": last,
        "truncated": truncated,
    }


def _text(data: bytes) -> str | None:
    # Neither JSON in PostgreSQL nor a model can hold NUL, so such a file counts as binary.
    if b"\x00" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _again(text: str, data: bytes, content: FileContent) -> str:
    return text if data is content.data else data.decode()


def _select(data: bytes, lines: list[int]) -> bytes:
    """Lines end with a line feed, as in patches and compilers' messages; other separators are just characters."""
    first, last = lines
    count = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    if first > max(count, 1):
        raise InvalidValue(
            f"starts at line {first}, but the file has {count}",
            field="lines",
            fix=f"a first line up to {max(count, 1)}",
        )
    start = _offset(data, first - 1)
    return data[start : _offset(data, last - first + 1, start)]


def _offset(data: bytes, lines: int, start: int = 0) -> int:
    """Where the text goes on after so many lines, its end if it has fewer."""
    for _ in range(lines):
        found = data.find(b"\n", start)
        if found < 0:
            return len(data)
        start = found + 1
    return start


def _cut(data: bytes, size: int, *, whole_characters: bool) -> bytes:
    if whole_characters:
        while size and data[size] & 0xC0 == 0x80:
            size -= 1
    return data[:size]
