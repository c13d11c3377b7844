"""What every endpoint's OpenAPI entry shares: the problems it may answer with, and its examples."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from stepgate.api.problems import MEDIA_TYPE, TYPE_PREFIX, ProblemDocument

_MEANING: Mapping[int, tuple[str, str, str, str]] = {
    400: ("The body is not JSON", "invalid_json", "body", "Expecting value at line 1, column 10"),
    401: ("Without proof of who calls", "key_required", "Authorization", "this is not a key that counts here"),
    403: ("By one who may not, from another site, or under another host name", "foreign_origin", "Origin", "foreign"),
    404: ("No such run or step", "not_found", "run_id", "there is no run of this id"),
    409: ("Does not fit the present state", "illegal_transition", "", "cannot start a run that is completed"),
    410: ("The question has expired", "expired", "", "the approval request has expired"),
    413: ("A body over 8 MiB", "too_large", "body", "more than 8388608 bytes"),
    415: ("A body that is not application/json", "unsupported_media_type", "Content-Type", "text/plain is not JSON"),
    422: ("A field is not acceptable", "invalid_value", "goal", "a run needs a goal"),
    429: ("Too many failed attempts", "too_many_requests", "Authorization", "too many failed attempts"),
    503: ("The database does not answer", "database_unavailable", "DATABASE_URL", "the database cannot be used"),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint for these statuses, and for those that any endpoint may give."""
    return {status: _entry(status) for status in sorted({*statuses, 401, 403, 429, 503})}


def read(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return problems(422, *statuses)


def write(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return problems(400, 409, 413, 415, 422, *statuses)


def _entry(status: int) -> dict[str, Any]:
    description, code, field, message = _MEANING[status]
    example = {
        "type": TYPE_PREFIX + code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": f"{field}: {message}" if field else message,
        "errors": [{"field": field, "message": message, "fix": None}] if field else [],
    }
    schema = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}
