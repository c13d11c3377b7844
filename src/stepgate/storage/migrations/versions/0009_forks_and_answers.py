"""Forks, models' answers by digest, and questions about a run that is being planned."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_PHASE = "phase = status OR (status = 'awaiting_approval' AND ({phases}))"
_ASKED = ("queued", "running")

UP = (
    "ALTER TABLE stepgate.runs ADD COLUMN origin text",
    "ALTER TABLE stepgate.model_calls ADD COLUMN answer_sha256 text",
    "CREATE INDEX ix_model_calls_answers ON stepgate.model_calls (request_hash) WHERE answer_sha256 IS NOT NULL",
)
DOWN = (
    "DROP INDEX stepgate.ix_model_calls_answers",
    "ALTER TABLE stepgate.model_calls DROP COLUMN answer_sha256",
    "ALTER TABLE stepgate.runs DROP COLUMN origin",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)
    _allow((*_ASKED, "planning"))


def downgrade() -> None:
    _allow(_ASKED)
    for statement in DOWN:
        op.execute(statement)


def _allow(phases: tuple[str, ...]) -> None:
    """In which phases only a person's decision can be what a run waits for."""
    told = " OR ".join(f"phase = '{phase}'" for phase in phases)
    op.execute("ALTER TABLE stepgate.runs DROP CONSTRAINT ck_runs_phase")
    op.execute(f"ALTER TABLE stepgate.runs ADD CONSTRAINT ck_runs_phase CHECK ({_PHASE.format(phases=told)})")
