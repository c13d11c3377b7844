"""Delegations: a person's approvals go to another person for a time."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import EXAMPLE_ID, Body, Moment, Paging, ServicesDep
from stepgate.engine.delegations import Delegation, check_id
from stepgate.engine.views import Page

router = APIRouter(prefix="/v1/delegations", tags=["delegations"], route_class=StrictRoute)

IdPath = Annotated[str, Path(description="the delegation's id", examples=[EXAMPLE_ID])]


class Delegate(Body):
    """To whom, and for how long. Whoever sends it gives their own approvals away, nobody else's."""

    to: str = Field(
        max_length=205, description="the name of a person's key, or `oidc:` and a token's subject", examples=["bob"]
    )
    ends_at: Moment = Field(strict=False, description="RFC 3339, at most 90 days from now")
    starts_at: Moment | None = Field(None, strict=False, description="RFC 3339; not given: now")
    reason: str | None = Field(None, description="at most 2,000 characters")


@router.post("", response_model=Delegation, status_code=201, summary="Delegate approvals", responses=documents.write())
async def delegate(body: Delegate, services: ServicesDep, principal: PrincipalDep) -> Response:
    """While it stands, a decision that the delegate sends with `on_behalf_of` counts with the delegator's roles.

    409 `already_delegated` where that person has them for some of the time. What was delegated to the caller does not
    go on to the delegate.
    """
    given = await services.delegations.give(principal, body.to, body.starts_at, body.ends_at, body.reason)
    return Response(given.model_dump_json(), 201, media_type="application/json")


@router.get("", summary="List delegations", responses=documents.read())
async def list_delegations(services: ServicesDep, principal: PrincipalDep, query: Paging) -> Page[Delegation]:
    """The newest first, also those that are over; `stands` says which count now."""
    cursor = None if query.cursor is None else check_id(query.cursor)
    found = await services.delegations.page(principal.tenant, cursor, query.limit + 1)
    items = found[: query.limit]
    return Page[Delegation](items=items, next_cursor=items[-1].id if len(found) > query.limit else None)


@router.delete("/{delegation_id}", summary="End a delegation", responses=documents.read(404))
async def end_delegation(delegation_id: IdPath, services: ServicesDep, principal: PrincipalDep) -> Delegation:
    """At once and for good, by either of the two or an administrator; what was decided stands.

    Again: the same answer.
    """
    return await services.delegations.end(principal, check_id(delegation_id))
