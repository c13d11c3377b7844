"""The verbs on webhooks: make one, list them, take one back, look at what was sent, send it again."""

import secrets

from pydantic import Field

from stepgate.domain.errors import InvalidValue, NotFound
from stepgate.domain.identity import Principal
from stepgate.domain.webhooks import SECRET_BYTES, Format, check_events, check_url, new_secret
from stepgate.engine.shapes import moment
from stepgate.engine.views import Id, Page, Time, View
from stepgate.engine.webhooks.targets import check_literal
from stepgate.storage.webhooks import AttemptRow, DeliveryRow, WebhookRow, Webhooks

FIRST_ID = "00000000-0000-0000-0000-000000000000"


class Webhook(View):
    """Where events are told; its secret is shown once, when it is made."""

    id: Id
    url: str = Field(description="of `slack` without its last part, which is a secret")
    events: list[str]
    format: Format
    created_at: Time
    created_by: str
    disabled_at: Time | None = Field(description="when its receiver said (410) that it is gone; nothing is sent since")
    disabled_reason: str | None


class MadeWebhook(Webhook):
    """A webhook that was just made."""

    secret: str = Field(description="proves that messages come from here: `whsec_` and base64, as Standard Webhooks")


class Attempt(View):
    """One request to the receiver."""

    number: int
    at: Time
    http_status: int | None = Field(description="null: there was no answer")
    error: str | None
    duration_ms: int
    next_at: Time | None = Field(description="when the next attempt was due after it; null: none by itself")


class Sent(View):
    """One event for one webhook; `id` is the message's `webhook-id` in every attempt."""

    id: Id
    type: str
    run_id: Id
    seq: int = Field(description="the event's number in the run's journal")
    happened_at: Time
    status: str = Field(description="pending, delivered or failed")
    next_at: Time | None
    attempts: list[Attempt]


class Hooks:
    """The webhooks of one installation; `private` is whether they may lead to private addresses."""

    def __init__(self, webhooks: Webhooks, *, private: bool) -> None:
        self._webhooks = webhooks
        self._private = private

    async def add(self, by: Principal, url: str, events: list[str] | None, format_: Format) -> MadeWebhook:
        """A new webhook of the caller's tenant. Raises InvalidValue by field."""
        check_literal(check_url(url, private=self._private), private=self._private)
        wanted = check_events(events)
        secret = new_secret(secrets.token_bytes(SECRET_BYTES))
        row = await self._webhooks.add(
            by.tenant, url=url, events=wanted, format_=format_.value, secret=secret, created_by=by.id
        )
        return MadeWebhook(**_webhook(row).model_dump(), secret=secret)

    async def page(self, tenant: str, after: str | None, limit: int) -> Page[Webhook]:
        """In the order they were made."""
        found = await self._webhooks.page(tenant, after or FIRST_ID, limit + 1)
        items = [_webhook(row) for row in found[:limit]]
        return Page[Webhook](items=items, next_cursor=items[-1].id if len(found) > limit else None)

    async def get(self, tenant: str, webhook_id: str) -> Webhook:
        """Raises NotFound."""
        row = await self._webhooks.get(tenant, webhook_id)
        if row is None:
            raise _none(webhook_id)
        return _webhook(row)

    async def remove(self, tenant: str, webhook_id: str) -> Webhook:
        """Nothing more is sent, not even what was under way to be tried again. Raises NotFound."""
        row = await self._webhooks.remove(tenant, webhook_id)
        if row is None:
            raise _none(webhook_id)
        return _webhook(row)

    async def deliveries(self, tenant: str, webhook_id: str, before: str | None, limit: int) -> Page[Sent]:
        """The newest first. Raises NotFound."""
        await self.get(tenant, webhook_id)
        found, attempts = await self._webhooks.deliveries(webhook_id, before, limit + 1)
        items = [_sent(row, attempts.get(row.id, [])) for row in found[:limit]]
        return Page[Sent](items=items, next_cursor=items[-1].id if len(found) > limit else None)

    async def redeliver(self, tenant: str, webhook_id: str, delivery_id: str) -> Sent:
        """Sends it once more, under its id. Raises NotFound, InvalidValue where the webhook is disabled."""
        webhook = await self.get(tenant, webhook_id)
        if webhook.disabled_at is not None:
            raise InvalidValue(
                f"the webhook is disabled: {webhook.disabled_reason}",
                field="webhook_id",
                fix="make a new one that leads somewhere",
            )
        row = await self._webhooks.redeliver(webhook_id, delivery_id)
        if row is None:
            raise NotFound("there is no delivery of this id", field="delivery_id", fix="list the webhook's deliveries")
        return _sent(row, [])


def _none(webhook_id: str) -> NotFound:
    return NotFound(f"there is no webhook {webhook_id}", field="webhook_id", fix="list the webhooks to see their ids")


def _webhook(row: WebhookRow) -> Webhook:
    url = row.url
    if row.format == Format.SLACK:
        url = url.partition("?")[0].rpartition("/")[0] + "/…"
    return Webhook(
        id=row.id,
        url=url,
        events=list(row.events),
        format=Format(row.format),
        created_at=moment(row.created_at) or "",
        created_by=row.created_by,
        disabled_at=moment(row.disabled_at),
        disabled_reason=row.disabled_reason,
    )


def _sent(row: DeliveryRow, attempts: list[AttemptRow]) -> Sent:
    return Sent(
        id=row.id,
        type=row.type,
        run_id=row.run_id,
        seq=row.seq,
        happened_at=moment(row.happened_at) or "",
        status=row.status,
        next_at=moment(row.next_at),
        attempts=[
            Attempt(
                number=one.number,
                at=moment(one.at) or "",
                http_status=one.http_status,
                error=one.error,
                duration_ms=one.duration_ms,
                next_at=moment(one.next_at),
            )
            for one in attempts
        ],
    )
