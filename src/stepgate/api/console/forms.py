"""What the console's forms send: a few short fields, from a page that this very service made for this very session."""

import hmac
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from fastapi import Request

from stepgate.api.problems import Refused

MAX_BYTES: Final = 64 * 1024
MOST_FIELDS: Final = 10
TYPE: Final = "application/x-www-form-urlencoded"


async def fields_of(request: Request) -> dict[str, str]:
    """The form's fields, line ends as `\\n`. Raises Refused for anything else than one short form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != TYPE:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "this takes the console's own forms")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the form is too large")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "the form cannot be read") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Refused(HTTPStatus.BAD_REQUEST, "a field appears twice")
    return {name: value.replace("\r\n", "\n") for name, value in fields.items()}


def check_token(fields: dict[str, str], expected: str) -> None:
    """Raises Refused where the form is not one that was made for this session."""
    if not expected or not hmac.compare_digest(fields.get("csrf", "").encode(), expected.encode()):
        raise Refused(
            HTTPStatus.FORBIDDEN, "this form was not made for your session; open the page again", code="foreign_form"
        )
