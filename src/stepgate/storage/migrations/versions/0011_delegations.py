"""Delegations: one person's approvals given to another for a time."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE stepgate.delegations (
    id uuid NOT NULL,
    tenant_id text NOT NULL DEFAULT 'default',
    delegator text NOT NULL,
    delegate text NOT NULL,
    roles text[] NOT NULL,
    reason text,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_by text,
    CONSTRAINT pk_delegations PRIMARY KEY (id),
    CONSTRAINT ck_delegations_another CHECK (delegator <> delegate),
    CONSTRAINT ck_delegations_time CHECK (starts_at < ends_at)
)
"""
INDEX = "CREATE INDEX ix_delegations_delegate ON stepgate.delegations (tenant_id, delegate, delegator)"
GRANT = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stepgate_app') THEN
        GRANT SELECT, INSERT, UPDATE ON stepgate.delegations TO stepgate_app;
    END IF;
END $$
"""


def upgrade() -> None:
    for statement in (TABLE, INDEX, GRANT):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE stepgate.delegations")
