"""The schema as SQLAlchemy tables, for queries and for `alembic check`; migrations/versions says the same in SQL.

Columns that change with every step carry no index and pages keep room, so that PostgreSQL's updates stay heap-only.
"""

from stepgate.storage.tables.access import api_keys, console_sessions, idempotency_keys, policy_versions
from stepgate.storage.tables.approvals import approval_decisions, approval_requests, delegations
from stepgate.storage.tables.effects import change_set_files, change_sets, run_origins, workspaces
from stepgate.storage.tables.money import budget_holds, budgets, model_calls
from stepgate.storage.tables.parts import SCHEMA, metadata
from stepgate.storage.tables.runs import events, runs, step_needs, steps
from stepgate.storage.tables.webhooks import webhook_attempts, webhook_deliveries, webhooks
from stepgate.storage.tables.work import output_chunks, workers

__all__ = [
    "SCHEMA",
    "api_keys",
    "approval_decisions",
    "approval_requests",
    "budget_holds",
    "budgets",
    "change_set_files",
    "change_sets",
    "console_sessions",
    "delegations",
    "events",
    "idempotency_keys",
    "metadata",
    "model_calls",
    "output_chunks",
    "policy_versions",
    "run_origins",
    "runs",
    "step_needs",
    "steps",
    "webhook_attempts",
    "webhook_deliveries",
    "webhooks",
    "workers",
    "workspaces",
]
