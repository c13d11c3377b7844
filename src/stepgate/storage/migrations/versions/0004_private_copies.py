"""Names for workspaces, private copies of them, and what each run began from."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UP = (
    "ALTER TABLE stepgate.workspaces ADD COLUMN name text, ADD COLUMN source_id uuid",
    """
    ALTER TABLE stepgate.workspaces
        ADD CONSTRAINT uq_workspaces_name UNIQUE (tenant_id, name),
        ADD CONSTRAINT fk_workspaces_source FOREIGN KEY (source_id) REFERENCES stepgate.workspaces (id),
        ADD CONSTRAINT ck_workspaces_copy CHECK (source_id IS NULL OR name IS NULL)
    """,
    """
    CREATE TABLE stepgate.run_origins (
        run_id uuid NOT NULL,
        tenant_id text NOT NULL DEFAULT 'default',
        git_ref text,
        git_commit text,
        copied_files integer,
        copied_bytes bigint,
        left_out text,
        recorded_at timestamptz NOT NULL,
        discarded_at timestamptz,
        CONSTRAINT pk_run_origins PRIMARY KEY (run_id),
        CONSTRAINT fk_run_origins_run FOREIGN KEY (run_id) REFERENCES stepgate.runs (id)
    )
    """,
    """
    DO $$
    BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stepgate_app') THEN
            GRANT SELECT, INSERT, UPDATE, DELETE ON stepgate.run_origins TO stepgate_app;
        END IF;
    END $$
    """,
)
DOWN = (
    "DROP TABLE stepgate.run_origins",
    """
    ALTER TABLE stepgate.workspaces
        DROP CONSTRAINT ck_workspaces_copy,
        DROP CONSTRAINT fk_workspaces_source,
        DROP CONSTRAINT uq_workspaces_name,
        DROP COLUMN source_id,
        DROP COLUMN name
    """,
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
