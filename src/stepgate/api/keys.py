"""API keys: give one out, list them, take one back; and who one is."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import Body, Moment, PageQuery, ServicesDep, Text
from stepgate.domain.identity import Kind, Role
from stepgate.engine.keys import ApiKey, GivenKey
from stepgate.engine.views import Page, View

router = APIRouter(prefix="/v1", tags=["keys"], route_class=StrictRoute)

NamePath = Annotated[Text, Path(max_length=64, description="the key's name", examples=["ada"])]


OF_ANOTHER = "whose keys; not given: those of the caller's tenant. Only the tenant `default` may name another"
TenantQuery = Annotated[Text | None, Query(max_length=64, description=OF_ANOTHER)]


class KeysQuery(PageQuery):
    """Whose keys to list."""

    tenant: Text | None = Field(None, max_length=64, description=OF_ANOTHER)


class CreateKey(Body):
    """A key's name stands in journals; it is never given twice, not even after the key was revoked."""

    name: str = Field(description="1 to 64 letters, digits, dots, at signs, hyphens and underscores", examples=["ada"])
    kind: Kind = Field(strict=False, description="an agent never decides, whatever its roles")
    roles: list[Annotated[Role, Field(strict=False)]] = Field(description="viewer, operator, approver, admin")
    expires_at: Moment | None = Field(None, strict=False, description="RFC 3339; not given: it does not expire")
    tenant: str | None = Field(
        None, description="whose key it is; not given: the caller's. Only the tenant `default` gives out others' keys"
    )


class WhoAmI(View):
    """The caller as the journal will name them."""

    id: str
    kind: Kind
    roles: list[Role]
    tenant: str


@router.post("/keys", response_model=GivenKey, status_code=201, summary="Give out a key", responses=documents.write())
async def create_key(body: CreateKey, services: ServicesDep, principal: PrincipalDep) -> Response:
    """`key` is shown this once; only a digest of it is kept. From the first key on, every caller needs one."""
    given = await services.keys.give(body.name, body.kind, body.roles, principal, body.expires_at, body.tenant)
    return Response(given.model_dump_json(), 201, media_type="application/json")


@router.get("/keys", summary="List keys", responses=documents.read())
async def list_keys(
    services: ServicesDep, principal: PrincipalDep, query: Annotated[KeysQuery, Query()]
) -> Page[ApiKey]:
    """In order of their names, also those that no longer count."""
    found = await services.keys.page(principal, query.cursor or "", query.limit + 1, query.tenant)
    items = found[: query.limit]
    return Page[ApiKey](items=items, next_cursor=items[-1].name if len(found) > query.limit else None)


@router.post("/keys/{name}/revoke", summary="Revoke a key", responses=documents.write(404))
async def revoke_key(
    name: NamePath, services: ServicesDep, principal: PrincipalDep, tenant: TenantQuery = None
) -> ApiKey:
    """It counts no more from the next request on, for good. Again: the same answer."""
    return await services.keys.revoke(principal, name, tenant)


@router.get("/whoami", summary="Who I am", responses=documents.read())
async def whoami(principal: PrincipalDep) -> WhoAmI:
    """How this service knows the caller."""
    return WhoAmI(id=principal.id, kind=principal.kind, roles=sorted(principal.roles), tenant=principal.tenant)
