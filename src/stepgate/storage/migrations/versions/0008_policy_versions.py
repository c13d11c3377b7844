"""Policy versions: every set of rules that any process went by, kept for good."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

UP = (
    # A version names what it says: no row can claim another text.
    """
    CREATE TABLE stepgate.policy_versions (
        tenant_id text NOT NULL DEFAULT 'default',
        number integer NOT NULL,
        version text NOT NULL,
        content text NOT NULL,
        source text NOT NULL,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT pk_policy_versions PRIMARY KEY (tenant_id, number),
        CONSTRAINT ck_policy_versions_source CHECK (source IN ('file', 'api')),
        CONSTRAINT ck_policy_versions_version CHECK (version = encode(sha256(convert_to(content, 'UTF8')), 'hex'))
    )
    """,
    "CREATE INDEX ix_policy_versions_version ON stepgate.policy_versions (tenant_id, version)",
    """
    CREATE UNIQUE INDEX uq_policy_versions_file ON stepgate.policy_versions (tenant_id, version)
    WHERE source = 'file'
    """,
    """
    CREATE FUNCTION stepgate.refuse_new_rules() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'policy versions stay as they are: % refused', TG_OP
            USING ERRCODE = 'integrity_constraint_violation';
    END $$
    """,
    """
    CREATE TRIGGER policy_versions_stay BEFORE UPDATE OR DELETE ON stepgate.policy_versions
        FOR EACH ROW EXECUTE FUNCTION stepgate.refuse_new_rules()
    """,
    """
    CREATE TRIGGER policy_versions_no_truncate BEFORE TRUNCATE ON stepgate.policy_versions
        FOR EACH STATEMENT EXECUTE FUNCTION stepgate.refuse_new_rules()
    """,
    """
    DO $$
    BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stepgate_app') THEN
            GRANT SELECT, INSERT ON stepgate.policy_versions TO stepgate_app;
        END IF;
    END $$
    """,
)
DOWN = ("DROP TABLE stepgate.policy_versions", "DROP FUNCTION stepgate.refuse_new_rules()")


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
