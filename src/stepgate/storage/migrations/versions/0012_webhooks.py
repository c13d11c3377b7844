"""Webhooks, their outbox, the log of attempts; and an index for the runs of tenants beside the default one."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UP = (
    "CREATE INDEX ix_runs_tenant ON stepgate.runs (tenant_id, id) WHERE tenant_id <> 'default'",
    """
    CREATE TABLE stepgate.webhooks (
        id uuid NOT NULL,
        tenant_id text NOT NULL DEFAULT 'default',
        url text NOT NULL,
        events text[] NOT NULL,
        format text NOT NULL,
        secret text NOT NULL,
        created_at timestamptz NOT NULL,
        created_by text NOT NULL,
        disabled_at timestamptz,
        disabled_reason text,
        CONSTRAINT pk_webhooks PRIMARY KEY (id),
        CONSTRAINT ck_webhooks_format CHECK (format IN ('json', 'slack'))
    )
    """,
    "CREATE INDEX ix_webhooks_tenant ON stepgate.webhooks (tenant_id, id)",
    """
    CREATE TABLE stepgate.webhook_deliveries (
        webhook_id uuid NOT NULL,
        id uuid NOT NULL,
        tenant_id text NOT NULL DEFAULT 'default',
        run_id uuid NOT NULL,
        seq integer NOT NULL,
        type text NOT NULL,
        happened_at timestamptz NOT NULL,
        status text NOT NULL DEFAULT 'pending',
        attempts integer NOT NULL DEFAULT 0,
        next_at timestamptz,
        CONSTRAINT pk_webhook_deliveries PRIMARY KEY (webhook_id, id),
        CONSTRAINT ck_webhook_deliveries_status CHECK (status IN ('pending', 'delivered', 'failed'))
    )
    """,
    """
    CREATE INDEX ix_webhook_deliveries_due ON stepgate.webhook_deliveries (webhook_id, next_at)
    WHERE next_at IS NOT NULL
    """,
    """
    CREATE TABLE stepgate.webhook_attempts (
        webhook_id uuid NOT NULL,
        delivery_id uuid NOT NULL,
        number integer NOT NULL,
        at timestamptz NOT NULL,
        http_status integer,
        error text,
        duration_ms integer NOT NULL,
        next_at timestamptz,
        CONSTRAINT pk_webhook_attempts PRIMARY KEY (webhook_id, delivery_id, number)
    )
    """,
    """
    DO $$
    BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stepgate_app') THEN
            GRANT SELECT, INSERT, UPDATE, DELETE
            ON stepgate.webhooks, stepgate.webhook_deliveries, stepgate.webhook_attempts TO stepgate_app;
        END IF;
    END $$
    """,
)
DOWN = (
    "DROP TABLE stepgate.webhook_attempts",
    "DROP TABLE stepgate.webhook_deliveries",
    "DROP TABLE stepgate.webhooks",
    "DROP INDEX stepgate.ix_runs_tenant",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
