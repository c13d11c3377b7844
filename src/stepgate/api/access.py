"""Who may call which endpoint: one table, asked before a request's body is read.

1. With no keys and no issuer of tokens configured, only this machine may call (see `local`): everybody who can is
   `local` and may everything, but a decision needs the local secret as proof that a person of this user sends it.
   With local trust (`STEPGATE_LOCAL_TRUST=1`) a caller from a loopback address may leave the secret out; a wrong one is
   refused even then. Behind a proxy on the same machine every connection comes from loopback: there it must stay off.
2. Once a key was ever given out, or a key (`STEPGATE_KEY`) or an issuer is configured, every endpoint but `/health`
   needs `Authorization: Bearer <API key, token, or local secret>`. The local secret counts from this machine only:
   who can read it owns the database.
3. The caller's roles must include the endpoint's; an agent decides nothing.
4. A request counts as the command line's (`Stepgate-Channel: cli`) only with proof of who sends it.
"""

import hmac
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Final, NamedTuple

from fastapi import Depends, Request
from starlette.datastructures import State

from stepgate.api.channel import API, CHANNEL_HEADER, CHANNELS
from stepgate.api.local import is_loopback
from stepgate.api.problems import Refused
from stepgate.api.services import Services, services_of
from stepgate.domain.errors import Forbidden, Problem, Unauthenticated
from stepgate.domain.identity import Principal, Role
from stepgate.domain.state import Actor
from stepgate.engine.keys import LOCAL

PUBLIC: Final = None
_RUN, _STEP = "/v1/agent-runs/{run_id}", "/v1/agent-runs/{run_id}/steps/{step_id}"

ACCESS: Final[Mapping[tuple[str, str], Role | None]] = {
    ("GET", "/health"): PUBLIC,
    ("GET", "/v1/agent-runs"): Role.VIEWER,
    ("POST", "/v1/agent-runs"): Role.OPERATOR,
    ("GET", _RUN): Role.VIEWER,
    ("GET", f"{_RUN}/diff"): Role.VIEWER,
    ("GET", f"{_RUN}/cost"): Role.VIEWER,
    ("GET", f"{_RUN}/events"): Role.VIEWER,
    ("GET", f"{_RUN}/verify"): Role.VIEWER,
    ("GET", f"{_RUN}/audit"): Role.VIEWER,
    ("POST", f"{_RUN}/budget"): Role.APPROVER,
    ("POST", f"{_RUN}/execute"): Role.OPERATOR,
    ("POST", f"{_RUN}/start"): Role.OPERATOR,
    ("POST", f"{_RUN}/pause"): Role.OPERATOR,
    ("POST", f"{_RUN}/resume"): Role.OPERATOR,
    ("POST", f"{_RUN}/cancel"): Role.OPERATOR,
    ("POST", f"{_RUN}/undo"): Role.OPERATOR,
    ("POST", f"{_RUN}/deliver"): Role.OPERATOR,
    ("POST", f"{_RUN}/discard"): Role.OPERATOR,
    ("POST", f"{_RUN}/fork"): Role.OPERATOR,
    ("POST", f"{_RUN}/replay"): Role.OPERATOR,
    ("GET", f"{_RUN}/steps"): Role.VIEWER,
    ("POST", f"{_RUN}/steps"): Role.OPERATOR,
    ("GET", _STEP): Role.VIEWER,
    ("GET", f"{_STEP}/output"): Role.VIEWER,
    ("GET", f"{_STEP}/output/live"): Role.VIEWER,
    ("GET", f"{_STEP}/diff"): Role.VIEWER,
    ("POST", f"{_STEP}/approve"): Role.APPROVER,
    ("POST", f"{_STEP}/reject"): Role.APPROVER,
    ("POST", f"{_STEP}/skip"): Role.APPROVER,
    ("POST", f"{_STEP}/edit"): Role.APPROVER,
    ("GET", "/v1/approvals"): Role.VIEWER,
    ("POST", "/v1/approvals/bulk"): Role.APPROVER,
    ("GET", "/v1/approvals/{request_id}"): Role.VIEWER,
    ("GET", "/v1/approvals/{request_id}/rule"): Role.VIEWER,
    ("POST", "/v1/approvals/{request_id}/rule"): Role.ADMIN,
    ("GET", "/v1/audit/key"): Role.VIEWER,
    ("GET", "/v1/budgets"): Role.VIEWER,
    ("POST", "/v1/budgets"): Role.ADMIN,
    ("DELETE", "/v1/budgets/{budget_id}"): Role.ADMIN,
    ("GET", "/v1/costs"): Role.VIEWER,
    ("GET", "/v1/delegations"): Role.VIEWER,
    ("POST", "/v1/delegations"): Role.APPROVER,
    ("DELETE", "/v1/delegations/{delegation_id}"): Role.APPROVER,
    ("GET", "/v1/keys"): Role.ADMIN,
    ("POST", "/v1/keys"): Role.ADMIN,
    ("POST", "/v1/keys/{name}/revoke"): Role.ADMIN,
    ("POST", "/v1/plan"): Role.OPERATOR,
    ("GET", "/v1/policies"): Role.VIEWER,
    ("POST", "/v1/policies"): Role.ADMIN,
    ("GET", "/v1/policies/{version}"): Role.VIEWER,
    ("POST", "/v1/policies/explain"): Role.VIEWER,
    ("GET", "/v1/step-types"): Role.VIEWER,
    ("GET", "/v1/webhooks"): Role.ADMIN,
    ("POST", "/v1/webhooks"): Role.ADMIN,
    ("GET", "/v1/webhooks/{webhook_id}"): Role.ADMIN,
    ("DELETE", "/v1/webhooks/{webhook_id}"): Role.ADMIN,
    ("GET", "/v1/webhooks/{webhook_id}/deliveries"): Role.ADMIN,
    ("POST", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"): Role.ADMIN,
    ("GET", "/v1/whoami"): Role.VIEWER,
    ("GET", "/v1/workspaces"): Role.VIEWER,
    ("POST", "/v1/workspaces"): Role.OPERATOR,
    ("GET", "/v1/workspaces/{name}"): Role.VIEWER,
    ("DELETE", "/v1/workspaces/{name}"): Role.OPERATOR,
    ("GET", "/worker/status"): Role.VIEWER,
    ("POST", "/worker/process"): Role.OPERATOR,
}
"""The role that each endpoint needs."""


async def admit(request: Request, role: Role | None) -> None:
    """Notes who calls, for `CallerDep`. Raises Unauthenticated, Forbidden, or Refused 429 after too many failures."""
    services = services_of(request)
    if role is PUBLIC:
        return
    place = place_of(request)
    wait_s = services.attempts.wait_s(place.address)
    try:
        principal, proved = await _identified(request, services, place, role, waits=wait_s > 0)
    except Unauthenticated:
        if "authorization" in request.headers:
            if wait_s > 0:
                raise _too_many(wait_s) from None
            services.attempts.failed(place.address)
        raise
    if not principal.may(role):
        raise Forbidden(
            f"this needs the role {role}; {principal.id} ({principal.kind}) has {', '.join(sorted(principal.roles))}",
            code="role_required",
            field="Authorization",
            fix="ask an administrator for a key that may",
        )
    request.state.principal, request.state.proved = principal, proved


class Place(NamedTuple):
    """Where a request came from; `local`: from this machine."""

    address: str
    local: bool


def place_of(request: Request) -> Place:
    address = request.client.host if request.client is not None else ""
    return Place(address, address == "" or is_loopback(address))


async def caller_by(services: Services, proof: str, place: Place, *, waits: bool) -> Principal | None:
    """Whom the local secret, a key or a token proves; None for what is none of them. Raises Unauthenticated.

    Where the address `waits`, a proof that nobody can guess still counts: many callers may share one address with
    whoever guesses. A configured key was chosen by people and may be guessed.
    """
    known = not waits if services.key_configured else place.local
    if known and hmac.compare_digest(proof.encode(), services.local_secret.encode()):
        return LOCAL
    if proof.startswith("sgk_"):
        return await services.keys.principal(proof)
    if services.issuer is not None and proof.count(".") == 2:
        return await services.issuer.principal(proof)
    return None


async def _identified(
    request: Request, services: Services, place: Place, role: Role, *, waits: bool
) -> tuple[Principal, bool]:
    """The caller, and whether it was proved to be them."""
    token = _token(request)
    if token is not None and (principal := await caller_by(services, token, place, waits=waits)) is not None:
        return principal, True
    keyed = services.key_configured or services.issuer is not None or await services.keys.any()
    if token is not None or keyed:
        raise _unauthenticated(keyed, "this is not a key that counts here" if keyed else "this is not the local secret")
    if not place.local:
        raise _unauthenticated(keyed, "without keys only this machine may call")
    # What even the only user of a machine must prove to want: another program can call, too.
    if role is Role.ADMIN or (role is Role.APPROVER and not services.local_trust):
        raise _unauthenticated(keyed, "this needs the local secret")
    return LOCAL, False


def _token(request: Request) -> str | None:
    """What came as a bearer token; None where nothing came. Raises Unauthenticated for another scheme."""
    given = request.headers.getlist("authorization")
    if not given:
        return None
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise _unauthenticated(False, "Authorization is not of the form: Bearer <key>")
    return token.strip()


def _unauthenticated(keyed: bool, message: str) -> Unauthenticated:
    if keyed:
        fix = "send Authorization: Bearer <key>, one that an administrator gave out (stepgate keys create)"
        return Unauthenticated(message, code="key_required", field="Authorization", fix=fix)
    fix = "send Authorization: Bearer <content of the file local-secret in the state folder>"
    return Unauthenticated(message, code="local_secret_required", field="Authorization", fix=fix)


def _too_many(wait_s: float) -> Refused:
    seconds = max(1, round(wait_s))
    return Refused(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"too many failed attempts from this address; wait {seconds} s",
        faults=(Problem("Authorization", "too many failed attempts", f"wait {seconds} s"),),
        headers={"Retry-After": str(seconds)},
    )


def _caller(request: Request) -> Actor:
    """Rule 4: who asks, and by what."""
    state: State = request.state
    principal: Principal = state.principal
    channel = request.headers.get(CHANNEL_HEADER)
    told = channel if state.proved and channel in CHANNELS else API
    return Actor(principal.id, principal.kind.value, told)


def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


CallerDep = Annotated[Actor, Depends(_caller)]
PrincipalDep = Annotated[Principal, Depends(_principal)]
