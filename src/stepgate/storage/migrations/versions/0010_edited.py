"""Edits are decisions too, and a question is found by its own id, whatever became of it."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

BEFORE = ("'open', 'approved', 'rejected', 'expired', 'superseded', 'void'", "'approved', 'rejected'")
AFTER = (
    "'open', 'approved', 'rejected', 'edited', 'expired', 'superseded', 'void'",
    "'approved', 'rejected', 'edited'",
)


def _allow(statuses: str, verdicts: str) -> None:
    for table, column, values in (
        ("approval_requests", "status", statuses),
        ("approval_decisions", "verdict", verdicts),
    ):
        op.execute(f"""
            ALTER TABLE stepgate.{table}
                DROP CONSTRAINT ck_{table}_{column},
                ADD CONSTRAINT ck_{table}_{column} CHECK ({column} IN ({values}))
        """)


def upgrade() -> None:
    _allow(*AFTER)
    op.execute("CREATE INDEX ix_approval_requests_id ON stepgate.approval_requests (id)")


def downgrade() -> None:
    op.execute("DROP INDEX stepgate.ix_approval_requests_id")
    _allow(*BEFORE)
