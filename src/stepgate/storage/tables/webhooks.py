"""Who is told of what, and whether it arrived."""

from sqlalchemy import ARRAY, Column, Index, PrimaryKeyConstraint, Table, Text, text

from stepgate.domain.webhooks import Format
from stepgate.storage.tables.parts import (
    id_column,
    int_column,
    metadata,
    one_of,
    tenant_column,
    text_column,
    time_column,
)

webhooks = Table(
    "webhooks",
    metadata,
    id_column("id"),
    tenant_column(),
    text_column("url"),
    Column("events", ARRAY(Text), nullable=False),
    text_column("format"),
    text_column("secret"),
    time_column("created_at", nullable=False),
    text_column("created_by"),
    time_column("disabled_at"),
    text_column("disabled_reason", nullable=True),
    PrimaryKeyConstraint("id"),
    one_of("format", Format, "format"),
)
Index("ix_webhooks_tenant", webhooks.c.tenant_id, webhooks.c.id)

# The outbox. No foreign key to `webhooks`: one that is removed must not make the commit of a run fail.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    id_column("webhook_id"),
    id_column("id"),
    tenant_column(),
    id_column("run_id"),
    int_column("seq"),
    text_column("type"),
    time_column("happened_at", nullable=False),
    Column("status", Text, nullable=False, server_default=text("'pending'")),
    int_column("attempts", default=0),
    time_column("next_at"),
    PrimaryKeyConstraint("webhook_id", "id"),
    one_of("status", ("pending", "delivered", "failed"), "status"),
)
Index(
    "ix_webhook_deliveries_due",
    webhook_deliveries.c.webhook_id,
    webhook_deliveries.c.next_at,
    postgresql_where=text("next_at IS NOT NULL"),
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    id_column("webhook_id"),
    id_column("delivery_id"),
    int_column("number"),
    time_column("at", nullable=False),
    int_column("http_status", nullable=True),
    text_column("error", nullable=True),
    int_column("duration_ms"),
    time_column("next_at"),
    PrimaryKeyConstraint("webhook_id", "delivery_id", "number"),
)
