"""Reads request bodies strictly, before any model sees them: what could not be stored or hashed never gets further."""

import email.message
import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from stepgate.api.access import ACCESS, admit
from stepgate.api.problems import Refused
from stepgate.domain import canonical
from stepgate.domain.errors import InvalidValue, Problem

MAX_BODY_BYTES = 8 * 1024 * 1024
_LONGEST_INTEGER = 20
_TOO_LONG = 1 << 64
"""Stands for integers too long to convert cheaply; the check for 64 bits refuses it, naming the field."""


class StrictRequest(Request):
    """A request whose body is at most 8 MiB of strict JSON."""

    _read: bytes
    _value: Any

    async def load(self) -> None:
        """Reads and checks the body. Raises Refused (400, 413, 415), or InvalidValue naming the field."""
        self._read = await self._bounded()
        declared = self.headers.get("content-type")
        if (self._read or declared is not None) and not _is_json(declared):
            raise Refused(
                415,
                "the body must be JSON",
                faults=(Problem("Content-Type", f"{declared or 'none'} is not JSON", "send application/json"),),
            )
        if self._read:
            self._value = parse(self._read)

    async def body(self) -> bytes:
        return self._read

    async def json(self) -> Any:
        return self._value

    async def _bounded(self) -> bytes:
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length[:_LONGEST_INTEGER]) > MAX_BODY_BYTES:
            raise _too_large()
        chunks, size = [], 0
        async for chunk in self.stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise _too_large()
            chunks.append(chunk)
        return b"".join(chunks)


class StrictRoute(APIRoute):
    """A route that asks who calls before it looks at anything, and reads bodies so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        (method,) = self.methods or {"GET"}
        role = ACCESS[method, self.path]

        async def strict(request: Request) -> Response:
            await admit(request, role)
            if request.method in ("GET", "HEAD"):
                return await answer(request)
            checked = StrictRequest(request.scope, request.receive)
            await checked.load()
            return await answer(checked)

        return strict


def parse(data: bytes) -> Any:
    """The value of a JSON text; raises Refused where it is none, InvalidValue where it holds what cannot be kept."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise _malformed(f"byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise InvalidValue("nested too deep", field="body", fix="flatten the value") from error
    if isinstance(value, dict):
        for name, item in value.items():
            canonical.check_text(name, "body (a key)")
            canonical.check(item, name, 1)
    else:
        canonical.check(value, "body")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two values under one name would let two readers of a request see two requests."""
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in value if names.count(name) > 1)
        raise InvalidValue("appears twice", field=_visible(twice), fix="send each name once")
    return value


def _visible(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:200]


def _integer(text: str) -> int:
    return int(text) if len(text) <= _LONGEST_INTEGER else _TOO_LONG


def _is_json(content_type: str | None) -> bool:
    if content_type is None:
        return False
    message = email.message.Message()
    message["content-type"] = content_type
    charset = message.get_content_charset("utf-8")
    return message.get_content_type() == "application/json" and charset in ("utf-8", "utf8", "us-ascii")


def _malformed(what: str) -> Refused:
    return Refused(400, f"the body is not valid JSON: {what}", code="invalid_json", faults=(Problem("body", what),))


def _too_large() -> Refused:
    return Refused(
        413,
        f"the body has more than {MAX_BODY_BYTES} bytes",
        faults=(Problem("body", f"more than {MAX_BODY_BYTES} bytes", "send less in one request"),),
    )
