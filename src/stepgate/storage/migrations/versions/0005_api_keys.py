"""API keys: who may call, found by a public prefix, proved by a digest."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE stepgate.api_keys (
    id uuid NOT NULL,
    tenant_id text NOT NULL DEFAULT 'default',
    name text NOT NULL,
    kind text NOT NULL,
    roles text[] NOT NULL,
    prefix text NOT NULL,
    digest bytea NOT NULL,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT uq_api_keys_name UNIQUE (tenant_id, name),
    CONSTRAINT uq_api_keys_prefix UNIQUE (prefix),
    CONSTRAINT ck_api_keys_kind CHECK (kind IN ('person', 'service', 'agent')),
    CONSTRAINT ck_api_keys_digest CHECK (octet_length(digest) = 32)
)
"""

GRANT = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stepgate_app') THEN
        GRANT SELECT, INSERT, UPDATE ON stepgate.api_keys TO stepgate_app;
    END IF;
END $$
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(GRANT)


def downgrade() -> None:
    op.execute("DROP TABLE stepgate.api_keys")
