"""What a model router says it saved: what cached answers avoided, its own estimate, and how hard it thought it."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE stepgate.model_calls
            ADD COLUMN avoided_cost_usd numeric(20, 12),
            ADD COLUMN estimated_savings_usd numeric(20, 12),
            ADD COLUMN difficulty_tag text
    """)


def downgrade() -> None:
    op.execute("""
        ALTER TABLE stepgate.model_calls
            DROP COLUMN avoided_cost_usd,
            DROP COLUMN estimated_savings_usd,
            DROP COLUMN difficulty_tag
    """)
