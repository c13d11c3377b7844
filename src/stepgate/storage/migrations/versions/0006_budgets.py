"""Budgets: what a run may still spend beside its row, and the budgets that runs share."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OWN = "ALTER TABLE stepgate.runs ADD COLUMN budget text"
BUDGETS = """
CREATE TABLE stepgate.budgets (
    id uuid NOT NULL,
    tenant_id text NOT NULL DEFAULT 'default',
    label_name text NOT NULL,
    label_value text NOT NULL,
    daily boolean NOT NULL,
    cost_usd numeric(20, 12),
    tokens bigint,
    day date,
    spent_usd numeric(20, 12) NOT NULL DEFAULT 0,
    spent_tokens bigint NOT NULL DEFAULT 0,
    held_usd numeric(20, 12) NOT NULL DEFAULT 0,
    held_tokens bigint NOT NULL DEFAULT 0,
    unknown_calls integer NOT NULL DEFAULT 0,
    told integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    CONSTRAINT pk_budgets PRIMARY KEY (id),
    CONSTRAINT uq_budgets_scope UNIQUE (tenant_id, label_name, label_value, daily),
    CONSTRAINT ck_budgets_limit CHECK (cost_usd IS NOT NULL OR tokens IS NOT NULL),
    CONSTRAINT ck_budgets_scope CHECK (daily OR label_name <> '')
) WITH (fillfactor = 70)
"""
HOLDS = """
CREATE TABLE stepgate.budget_holds (
    call_id uuid NOT NULL,
    budget_id uuid NOT NULL,
    run_id uuid NOT NULL,
    epoch integer NOT NULL,
    day date,
    cost_usd numeric(20, 12),
    tokens bigint NOT NULL,
    alerts integer[],
    CONSTRAINT pk_budget_holds PRIMARY KEY (call_id, budget_id),
    CONSTRAINT fk_budget_holds_budget FOREIGN KEY (budget_id) REFERENCES stepgate.budgets (id) ON DELETE CASCADE
)
"""
INDEX = "CREATE INDEX ix_budget_holds_run ON stepgate.budget_holds (run_id)"
GRANT = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stepgate_app') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON stepgate.budgets, stepgate.budget_holds TO stepgate_app;
    END IF;
END $$
"""


def upgrade() -> None:
    for statement in (OWN, BUDGETS, HOLDS, INDEX, GRANT):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE stepgate.budget_holds")
    op.execute("DROP TABLE stepgate.budgets")
    op.execute("ALTER TABLE stepgate.runs DROP COLUMN budget")
