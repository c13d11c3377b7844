"""What running commands print, for people who watch: never part of the journal, gone when the step ends."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Unlogged: losing it in a crash of the server loses nothing that is recorded.
TABLE = """
CREATE UNLOGGED TABLE stepgate.output_chunks (
    run_id uuid NOT NULL,
    step_id uuid NOT NULL,
    attempt integer NOT NULL,
    seq bigint NOT NULL,
    stream text NOT NULL,
    at timestamptz NOT NULL,
    text text NOT NULL,
    CONSTRAINT pk_output_chunks PRIMARY KEY (run_id, step_id, seq)
)
"""

GRANT = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stepgate_app') THEN
        GRANT SELECT, INSERT, DELETE ON stepgate.output_chunks TO stepgate_app;
    END IF;
END $$
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(GRANT)


def downgrade() -> None:
    op.execute("DROP TABLE stepgate.output_chunks")
