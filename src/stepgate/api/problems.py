"""Every error as `application/problem+json` (RFC 9457), the framework's own too; the one place with status codes."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from stepgate.domain import errors
from stepgate.domain.errors import Problem, StepgateError
from stepgate.domain.plan_faults import field_path
from stepgate.engine.views import Fault

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:stepgate:error:"
MAX_FAULTS = 100

STATUS: Mapping[type[StepgateError], int] = {
    errors.StepgateError: 500,
    errors.InvalidValue: 422,
    errors.InvalidPlan: 422,
    errors.InvalidPolicy: 422,
    errors.InvalidReference: 422,
    errors.PathRefused: 422,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.IllegalTransition: 409,
    errors.AlreadyDecided: 409,
    errors.StaleApproval: 409,
    errors.StaleSteps: 409,
    errors.NoSteps: 409,
    errors.BudgetExhausted: 409,
    errors.IdempotencyMismatch: 422,
    errors.EditConflict: 409,
    errors.WorkspaceConflict: 409,
    errors.Expired: 410,
    errors.Forbidden: 403,
    errors.Unauthenticated: 401,
    errors.ChangeRefused: 422,
    errors.Unavailable: 503,
    errors.DatabaseUnavailable: 503,
    errors.SchemaMismatch: 503,
    errors.SandboxUnavailable: 503,
    errors.WorkspaceUnavailable: 503,
    errors.ModelUnavailable: 503,
    errors.ModelFailure: 502,
    errors.LeaseLost: 409,
    errors.IntegrityError: 500,
}
"""Every class of the domain's errors, and only they, by its own row: a test compares the two."""

TRANSPORT = {
    400: ("bad_request", "Bad request"),
    403: ("forbidden", "Forbidden"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    413: ("too_large", "Request too large"),
    415: ("unsupported_media_type", "Unsupported media type"),
    429: ("too_many_requests", "Too many requests"),
}
"""Errors that HTTP itself has: code and title by status."""


class ProblemDocument(BaseModel):
    """An error: `type` and `status` for programs, the rest for people. Unknown members may follow."""

    type: str = Field(examples=["urn:stepgate:error:invalid_value"])
    title: str
    status: int
    detail: str
    errors: list[Fault] = Field(description="each fault with its field and a way out; empty where no field is at fault")
    details: dict[str, Any] | None = Field(
        default=None, description="what stands instead, such as the present action of a stale approval"
    )


class Refused(Exception):
    """A request that HTTP itself refuses, before any rule of the domain is asked."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        faults: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.faults = faults
        self.headers = dict(headers or {})


def document(
    status: int,
    code: str,
    title: str,
    detail: str,
    faults: Sequence[Problem] = (),
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response; `details` is left out where there are none."""
    body: dict[str, Any] = {
        "type": TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
        "errors": [Fault.of(fault).model_dump() for fault in faults[:MAX_FAULTS]],
    }
    if details:
        body["details"] = dict(details)
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def refusal(refused: Refused) -> Response:
    code, title = TRANSPORT[refused.status]
    told = (refused.status, refused.code or code, title, refused.detail)
    return document(*told, refused.faults, headers=refused.headers)


def status_of(error: StepgateError) -> int:
    """The status of the nearest class in the table."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def domain_problem(error: StepgateError) -> Response:
    status = status_of(error)
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    detail = error.message
    if error.field and not detail.startswith(error.field):
        detail = f"{error.field}: {detail}"
    if error.fix and not error.problems:
        detail = f"{detail}; {error.fix}"
    return document(status, error.reason_code, error.title, detail, error.problems, error.details, headers)


def validation_problem(error: RequestValidationError) -> Response:
    """What the declared shape of a request refuses."""
    faults = [_fault(item) for item in error.errors()]
    first = faults[0]
    detail = f"{first.field}: {first.message}" if first.field else first.message
    if len(faults) > 1:
        detail += f" (and {len(faults) - 1} more)"
    return document(422, "invalid_value", errors.InvalidValue.title, detail, faults)


def _fault(item: Mapping[str, Any]) -> Problem:
    place, *location = item["loc"]
    if place == "query":
        location = location[:1]
    field = field_path("", location) if location else str(place)
    context = item.get("ctx", {})
    match item["type"]:
        case "missing":
            where = "" if place == "body" else f" ({place})"
            return Problem(field, f"is missing{where}", "add it")
        case "extra_forbidden":
            return Problem(field, "no such parameter" if place == "query" else "no such field", "remove it")
        case "string_type":
            return Problem(field, "must be text")
        case "bool_type" | "bool_parsing":
            return Problem(field, "must be true or false")
        case "dict_type" | "model_attributes_type" | "model_type":
            return Problem(field, "must be a JSON object")
        case "value_error" | "assertion_error":
            cause = context.get("error")
            if isinstance(cause, StepgateError):
                return Problem(field, cause.message, cause.fix)
            return Problem(field, str(cause))
        case _:
            text = str(item["msg"])
            return Problem(field, text[:1].lower() + text[1:])


def http_problem(request: Request, error: HTTPException) -> Response:
    status = error.status_code
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        taken = _methods(request.app.openapi()["paths"], request.url.path)
        headers["allow"] = ", ".join(sorted(taken)) or headers.get("allow", "GET")
    code, title = TRANSPORT.get(status, ("error", HTTPStatus(status).phrase))
    detail = {404: "there is no such address", 405: "this address does not take this method"}.get(status, error.detail)
    return document(status, code, title, detail, headers=headers)


def _methods(paths: Mapping[str, Mapping[str, Any]], path: str) -> set[str]:
    """What an address takes, over all endpoints that share it."""
    taken = set[str]()
    for template, endpoints in paths.items():
        if compile_path(template)[0].match(path):
            taken |= {method.upper() for method in endpoints}
    return taken


def unexpected_problem() -> Response:
    return document(500, "internal", "Internal error", "something failed that should not; the log says what")


def install(app: FastAPI) -> None:
    """Answers every exception of the app as a problem."""
    for kind in (StepgateError, RequestValidationError, HTTPException, Refused, Exception):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    match error:
        case StepgateError():
            if status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                log.error("request failed", path=request.url.path, code=error.reason_code, error=str(error))
            return domain_problem(error)
        case RequestValidationError():
            return validation_problem(error)
        case HTTPException():
            return http_problem(request, error)
        case Refused():
            return refusal(error)
        case _:
            return unexpected_problem()
