"""Sessions of the console: who is signed in, found by the digest of what the browser holds."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE stepgate.console_sessions (
    digest bytea NOT NULL,
    tenant_id text NOT NULL DEFAULT 'default',
    name text NOT NULL,
    kind text NOT NULL,
    roles text[] NOT NULL,
    key_prefix text,
    proof bytea,
    csrf text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_console_sessions PRIMARY KEY (digest),
    CONSTRAINT ck_console_sessions_kind CHECK (kind IN ('person', 'service', 'agent'))
)
"""

GRANT = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stepgate_app') THEN
        GRANT SELECT, INSERT, DELETE ON stepgate.console_sessions TO stepgate_app;
    END IF;
END $$
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(GRANT)


def downgrade() -> None:
    op.execute("DROP TABLE stepgate.console_sessions")
