"""Named workspaces: give a folder a name, find it by the name, forget the name."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.replays import Answer, Done, OnceDep
from stepgate.api.requests import AddWorkspace, Paging, ServicesDep, Text
from stepgate.domain.ids import RunId
from stepgate.engine import shapes, views
from stepgate.storage.attachments import IdempotencyRow

router = APIRouter(prefix="/v1/workspaces", tags=["workspaces"], route_class=StrictRoute)

NamePath = Annotated[Text, Path(max_length=64, description="the workspace's name", examples=["shop-backend"])]
LOCATION: dict[str, Any] = {"Location": {"description": "the workspace", "schema": {"type": "string"}}}


@router.post(
    "",
    status_code=201,
    response_model=views.Workspace,
    summary="Name a workspace",
    responses=documents.write() | {201: {"headers": LOCATION}},
)
async def add_workspace(body: AddWorkspace, services: ServicesDep, principal: PrincipalDep, once: OnceDep) -> Response:
    """Runs can then say `workspace` in place of `workspace_path`. The same again changes nothing.

    409 `name_taken` where another folder has the name, `already_named` where this folder has another name or mode.
    """
    places, tenant = services.engine.places, principal.tenant

    async def act(key: IdempotencyRow | None) -> Done:
        added = await places.add(tenant, body.name, body.path, body.mode, key)
        return Done(RunId(""), workspace=added.name or "")

    async def tell(done: Done) -> Answer:
        found = shapes.workspace(await places.named(tenant, done.workspace))
        return Answer(201, found, {"Location": f"{router.prefix}/{found.name}"})

    return await once(act, tell)


@router.get("", summary="List named workspaces", responses=documents.read())
async def list_workspaces(services: ServicesDep, principal: PrincipalDep, query: Paging) -> views.Page[views.Workspace]:
    """In order of their names."""
    found = await services.engine.places.page(principal.tenant, query.cursor or "", query.limit + 1)
    items = [shapes.workspace(one) for one in found[: query.limit]]
    cursor = items[-1].name if len(found) > query.limit else None
    return views.Page[views.Workspace](items=items, next_cursor=cursor)


@router.get("/{name}", summary="One named workspace", responses=documents.read(404))
async def get_workspace(name: NamePath, services: ServicesDep, principal: PrincipalDep) -> views.Workspace:
    """Its folder, its mode and its revision."""
    return shapes.workspace(await services.engine.places.named(principal.tenant, name))


@router.delete("/{name}", summary="Forget a workspace's name", responses=documents.read(404))
async def forget_workspace(name: NamePath, services: ServicesDep, principal: PrincipalDep) -> views.Workspace:
    """The folder and everything in it, its runs and their results stay as they are. Tells what had the name."""
    found = await services.engine.places.named(principal.tenant, name)
    await services.engine.places.forget(principal.tenant, name)
    return shapes.workspace(found)
