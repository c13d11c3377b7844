"""Webhooks: who is told what happens, and what was sent to them."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import EXAMPLE_ID, Body, Paging, ServicesDep, canonical_id, cursor_id
from stepgate.domain.webhooks import Format
from stepgate.engine.views import Page
from stepgate.engine.webhooks.hooks import MadeWebhook, Sent, Webhook

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=StrictRoute)

WebhookPath = Annotated[str, Path(description="the webhook's id", examples=[EXAMPLE_ID])]
DeliveryPath = Annotated[str, Path(description="the delivery's id", examples=[EXAMPLE_ID])]


class CreateWebhook(Body):
    """Where events are sent. https, and a public host, unless the installation allows others."""

    url: str = Field(examples=["https://example.org/hooks/stepgate"])
    events: list[str] | None = Field(
        None, description="which events, such as approval.requested; not given: all", examples=[["approval.requested"]]
    )
    format: Format = Field(Format.JSON, strict=False, description="json (Standard Webhooks), or slack")


@router.post("", response_model=MadeWebhook, status_code=201, summary="Add a webhook", responses=documents.write())
async def add_webhook(body: CreateWebhook, services: ServicesDep, principal: PrincipalDep) -> Response:
    """`secret` is shown this once; every message is signed with it. Counts for events from a second later on."""
    made = await services.hooks.add(principal, body.url, body.events, body.format)
    services.wake_sender()
    return Response(made.model_dump_json(), 201, media_type="application/json")


@router.get("", summary="List webhooks", responses=documents.read())
async def list_webhooks(services: ServicesDep, principal: PrincipalDep, query: Paging) -> Page[Webhook]:
    """In the order they were made."""
    return await services.hooks.page(principal.tenant, cursor_id(query.cursor), query.limit)


@router.get("/{webhook_id}", summary="One webhook", responses=documents.read(404))
async def get_webhook(webhook_id: WebhookPath, services: ServicesDep, principal: PrincipalDep) -> Webhook:
    """Its address and events, never its secret."""
    return await services.hooks.get(principal.tenant, canonical_id(webhook_id, "webhook"))


@router.delete("/{webhook_id}", summary="Remove a webhook", responses=documents.read(404))
async def remove_webhook(webhook_id: WebhookPath, services: ServicesDep, principal: PrincipalDep) -> Webhook:
    """Nothing more is sent; its deliveries are forgotten."""
    return await services.hooks.remove(principal.tenant, canonical_id(webhook_id, "webhook"))


@router.get("/{webhook_id}/deliveries", summary="What was sent", responses=documents.read(404))
async def list_deliveries(
    webhook_id: WebhookPath, services: ServicesDep, principal: PrincipalDep, query: Paging
) -> Page[Sent]:
    """The newest first, each with its attempts, their answers and when the next is due. Kept for 30 days."""
    found = canonical_id(webhook_id, "webhook")
    return await services.hooks.deliveries(principal.tenant, found, cursor_id(query.cursor), query.limit)


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", summary="Send again", responses=documents.write(404))
async def redeliver(
    webhook_id: WebhookPath, delivery_id: DeliveryPath, services: ServicesDep, principal: PrincipalDep
) -> Sent:
    """Once more at once, under the same id, whether it arrived before or not."""
    found = canonical_id(webhook_id, "webhook"), canonical_id(delivery_id, "delivery")
    sent = await services.hooks.redeliver(principal.tenant, *found)
    services.wake_sender()
    return sent
