"""Sessions of browsers: who is signed in, and the way in and out."""

import secrets
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote, unquote, urlsplit

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse, RedirectResponse

from stepgate.api.access import caller_by, place_of
from stepgate.api.console.forms import check_token, fields_of
from stepgate.api.console.rendering import HEADERS, page
from stepgate.api.problems import Refused, status_of
from stepgate.api.services import Services, services_of
from stepgate.api.sign_on import Begun
from stepgate.api.tokens import expiry_of
from stepgate.domain.errors import NotFound, StepgateError, Unauthenticated
from stepgate.domain.identity import Principal
from stepgate.engine.sessions import SESSION_S, Session

COOKIE: Final = "stepgate_session"
SIGN_IN_COOKIE: Final = "stepgate_sign_in"
SIGN_ON_COOKIE: Final = "stepgate_sign_on"
NEXT_COOKIE: Final = "stepgate_next"
HOME: Final = "/console/approvals"
SIGN_IN: Final = "/console/sign-in"
SIGN_IN_S: Final = 1800
SIGNED_ON_S: Final = 3600
"""Then the issuer is asked again, which mostly needs nobody's hand: it may have taken a role away."""
_TOKEN_CHARS: Final = 43
_MAX_PROOF: Final = 16_384


class _SignInNeeded(Exception):
    """Nobody is signed in."""


class ConsoleRoute(APIRoute):
    """A route that answers with pages, also where something is wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await answer(request)
            except _SignInNeeded:
                return _to_sign_in(request)
            except Refused as error:
                return page("problem.html", error.status, title=HTTPStatus(error.status).phrase, detail=error.detail)
            except StepgateError as error:
                return page("problem.html", status_of(error), title=error.title, detail=str(error))

        return shown


router = APIRouter(prefix="/console", include_in_schema=False, route_class=ConsoleRoute)


async def _session(request: Request) -> Session:
    """Who is signed in. Raises what leads to the sign-in page."""
    cookie = request.cookies.get(_name(request, COOKIE))
    services = services_of(request)
    found = None if cookie is None else await services.sessions.find(cookie, services.local_secret)
    if found is None or (found.local and not services.key_configured and not place_of(request).local):
        raise _SignInNeeded
    return found


SessionDep = Annotated[Session, Depends(_session)]


def _to_sign_in(request: Request) -> Response:
    asked = _asked(request)
    if request.method not in ("GET", "HEAD"):
        asked = HOME
    elif _came_from_elsewhere(request):
        return _once_more(request)
    return RedirectResponse(f"{SIGN_IN}?next={quote(asked, safe='')}", HTTPStatus.SEE_OTHER, dict(HEADERS))


def _asked(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _came_from_elsewhere(request: Request) -> bool:
    return request.headers.get("sec-fetch-site", "") in ("cross-site", "same-site")


def _once_more(request: Request) -> Response:
    """Somebody followed a link from elsewhere, so the browser kept the cookie back; from here it sends it."""
    return HTMLResponse("", headers={**HEADERS, "Refresh": f"0; url={quote(_asked(request), safe='/?=&%-._~')}"})


@router.get("/sign-in")
async def show_sign_in(request: Request, next: str = HOME) -> Response:  # noqa: A002 - the name in the address
    """The form; its token is kept in a cookie of its own until somebody is signed in."""
    return _form(request, next)


def _form(request: Request, onward: str, status: int = 200, fault: str | None = None) -> Response:
    services = services_of(request)
    token = request.cookies.get(_name(request, SIGN_IN_COOKIE), "")
    if len(token) != _TOKEN_CHARS:  # else there may be another tab with this form
        token = secrets.token_urlsafe(32)
    keyed = services.key_configured or services.issuer is not None
    answer = page(
        "sign_in.html",
        status,
        csrf=token,
        next=_own_page(onward),
        sign_on=services.sign_on is not None,
        fault=fault,
        what="API key or token" if keyed else "API key or local secret",
        hint="An administrator gives out keys: stepgate keys create NAME --role approver."
        if keyed
        else "The local secret stands in the file local-secret in the state folder; it counts from this machine.",
    )
    _keep(request, answer, SIGN_IN_COOKIE, token, SIGN_IN_S)
    return answer


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """With a key, a token or the local secret; slowed down for whoever guesses, like every other door."""
    fields = await fields_of(request)
    check_token(fields, request.cookies.get(_name(request, SIGN_IN_COOKIE), ""))
    services, place = services_of(request), place_of(request)
    proof, onward = fields.get("proof", "").strip()[:_MAX_PROOF], fields.get("next", HOME)
    wait_s = services.attempts.wait_s(place.address)
    try:
        principal = await caller_by(services, proof, place, waits=wait_s > 0)
    except Unauthenticated:
        principal = None
    if principal is None:
        if wait_s > 0:
            fault = f"Too many failed attempts from this address; wait {max(1, round(wait_s))} seconds."
            return _form(request, onward, HTTPStatus.TOO_MANY_REQUESTS, fault)
        services.attempts.failed(place.address)
        return _form(request, onward, HTTPStatus.UNAUTHORIZED, "That does not count here.")
    until = expiry_of(proof) if principal.id.startswith("oidc:") else None
    return await _signed_in(request, principal, proof, until, onward)


@router.get("/sign-on")
async def sign_on(request: Request, next: str = HOME) -> Response:  # noqa: A002 - the name in the address
    """To the issuer, with what only this browser can come back with."""
    flow = services_of(request).sign_on
    if flow is None:
        raise NotFound("there is no issuer to sign in at", fix="sign in with a key")
    begun = Begun.new()
    answer = RedirectResponse(await flow.address(begun), HTTPStatus.SEE_OTHER, dict(HEADERS))
    _keep(request, answer, SIGN_ON_COOKIE, begun.text, SIGN_IN_S)
    _keep(request, answer, NEXT_COOKIE, quote(_own_page(next), safe=""), SIGN_IN_S)
    return answer


@router.get("/callback")
async def come_back(request: Request, state: str = "", code: str = "", error: str = "") -> Response:
    """From the issuer, with a code that is exchanged for whom it names."""
    services, place = services_of(request), place_of(request)
    kept = request.cookies.get(_name(request, SIGN_ON_COOKIE))
    if kept is None and _came_from_elsewhere(request):
        return _once_more(request)
    begun, onward = Begun.read(kept or ""), unquote(request.cookies.get(_name(request, NEXT_COOKIE), HOME))
    if services.sign_on is None or begun is None or error:
        return _form(request, onward, HTTPStatus.UNAUTHORIZED, "Signing in there came to nothing; begin again.")
    if (wait_s := services.attempts.wait_s(place.address)) > 0:
        fault = f"Too many failed attempts from this address; wait {max(1, round(wait_s))} seconds."
        return _form(request, onward, HTTPStatus.TOO_MANY_REQUESTS, fault)
    try:
        principal = await services.sign_on.principal(begun, state, code)
    except Unauthenticated as refused:
        services.attempts.failed(place.address)
        return _form(request, onward, HTTPStatus.UNAUTHORIZED, refused.message)
    until = datetime.now(UTC) + timedelta(seconds=SIGNED_ON_S)
    answer = await _signed_in(request, principal, "", until, onward)
    for name in (SIGN_ON_COOKIE, NEXT_COOKIE):
        _drop(request, answer, name)
    return answer


async def _signed_in(
    request: Request, principal: Principal, proof: str, until: datetime | None, onward: str
) -> RedirectResponse:
    services = services_of(request)
    await _forget_earlier(request, services)
    cookie = await services.sessions.sign_in(principal, proof, until=until)
    answer = RedirectResponse(_own_page(onward), HTTPStatus.SEE_OTHER, dict(HEADERS))
    _keep(request, answer, COOKIE, cookie, SESSION_S)
    _drop(request, answer, SIGN_IN_COOKIE)
    return answer


async def _forget_earlier(request: Request, services: Services) -> None:
    earlier = request.cookies.get(_name(request, COOKIE))
    if earlier is not None:
        await services.sessions.sign_out(earlier)


@router.post("/sign-out")
async def sign_out(request: Request, session: SessionDep) -> Response:
    """The session ends here, not only in this browser."""
    check_token(await fields_of(request), session.csrf)
    await services_of(request).sessions.sign_out(request.cookies[_name(request, COOKIE)])
    answer = RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER, dict(HEADERS))
    _drop(request, answer, COOKIE)
    return answer


def _own_page(onward: str) -> str:
    """A page of the console, whatever was sent: nobody is led elsewhere."""
    if not onward.isascii() or not onward.isprintable() or "\\" in onward or not onward.startswith("/console/"):
        return HOME
    path = urlsplit(onward).path
    return HOME if "//" in path or path == SIGN_IN else onward


def _secure(request: Request) -> bool:
    return request.url.scheme == "https" or services_of(request).https


def _name(request: Request, name: str) -> str:
    """Behind TLS no other host or path of the domain can set it."""
    return f"__Host-{name}" if _secure(request) else name


def _keep(request: Request, answer: Response, name: str, value: str, lasts_s: int) -> None:
    answer.set_cookie(
        _name(request, name),
        value,
        max_age=lasts_s,
        path="/",
        secure=_secure(request),
        httponly=True,
        samesite="strict",
    )


def _drop(request: Request, answer: Response, name: str) -> None:
    answer.delete_cookie(_name(request, name), path="/", secure=_secure(request), httponly=True, samesite="strict")
