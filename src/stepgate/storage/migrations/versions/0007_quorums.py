"""Questions that several persons answer: how many and which it takes, and each answer a row of its own."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UPGRADE = (
    """
ALTER TABLE stepgate.approval_requests
    ADD COLUMN roles text NOT NULL DEFAULT '[]',
    ADD COLUMN exclude_requester boolean NOT NULL DEFAULT false,
    ADD COLUMN reminded smallint NOT NULL DEFAULT 0
""",
    """
ALTER TABLE stepgate.approval_requests
    ALTER COLUMN roles DROP DEFAULT,
    ALTER COLUMN exclude_requester DROP DEFAULT,
    ALTER COLUMN reminded DROP DEFAULT
""",
    # Until now there was one answer to a question, and it settled it.
    """
ALTER TABLE stepgate.approval_decisions
    ADD COLUMN number smallint NOT NULL DEFAULT 1,
    ADD COLUMN settles boolean NOT NULL DEFAULT true,
    ADD COLUMN roles text NOT NULL DEFAULT '[]',
    DROP CONSTRAINT pk_approval_decisions
""",
    """
ALTER TABLE stepgate.approval_decisions
    ALTER COLUMN number DROP DEFAULT,
    ALTER COLUMN settles DROP DEFAULT,
    ALTER COLUMN roles DROP DEFAULT,
    ADD CONSTRAINT pk_approval_decisions PRIMARY KEY (run_id, request_id, number)
""",
    """
CREATE UNIQUE INDEX ix_approval_decisions_standing ON stepgate.approval_decisions (run_id, request_id) WHERE settles
""",
)
# Answers that did not settle their question, and what was asked of several, cannot be kept by the older schema.
DOWNGRADE = (
    "DELETE FROM stepgate.approval_decisions WHERE NOT settles",
    "DROP INDEX stepgate.ix_approval_decisions_standing",
    """
ALTER TABLE stepgate.approval_decisions
    DROP CONSTRAINT pk_approval_decisions,
    DROP COLUMN number,
    DROP COLUMN settles,
    DROP COLUMN roles,
    ADD CONSTRAINT pk_approval_decisions PRIMARY KEY (run_id, request_id)
""",
    """
ALTER TABLE stepgate.approval_requests DROP COLUMN roles, DROP COLUMN exclude_requester, DROP COLUMN reminded
""",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
