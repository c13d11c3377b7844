"""The schema as SQLAlchemy tables, for queries and for `alembic check`; migrations/versions says the same in SQL.

Columns that change with every step carry no index and pages keep room, so that PostgreSQL's updates stay heap-only.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

from stepgate.domain.state import ApprovalStatus, Effect, Gate
from stepgate.domain.states import RunStatus, StepStatus

SCHEMA = "stepgate"

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(constraint_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(column_0_label)s",
    },
)


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction number, which SQLAlchemy does not know."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


ischema_names["xid8"] = Xid8


def _id(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Uuid(as_uuid=False), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


def _int(name: str, *, nullable: bool = False, default: int | None = None) -> Column[int]:
    return Column(name, Integer, nullable=nullable, server_default=None if default is None else text(str(default)))


def _big(name: str, *, nullable: bool = True) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _time(name: str, *, nullable: bool = True) -> Column[Any]:
    return Column(name, TIMESTAMP(timezone=True), nullable=nullable)


def _money(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, Numeric(20, 12), nullable=nullable, server_default=None if nullable else text("0"))


def _tenant() -> Column[str]:
    """One tenant today; a column from the start, because a key cannot be widened later without a rewrite."""
    return Column("tenant_id", Text, nullable=False, server_default=text("'default'"))


def _usage() -> tuple[Column[Any], ...]:
    counts = (_int("model_calls", default=0), _int("unknown_cost_calls", default=0), _money("known_cost_usd"))
    tokens = (f"tokens_{kind}" for kind in ("input", "output", "cached", "reasoning"))
    return (*counts, *(_big(name) for name in tokens))


def _one_of(column: str, values: type[StrEnum] | Iterable[str], name: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=name)


runs = Table(
    "runs",
    metadata,
    _id("id"),
    _tenant(),
    _text("goal"),
    _text("name", nullable=True),
    _id("workspace_id"),
    _text("workspace_path"),
    _text("workspace_mode"),
    _text("pool"),
    Column("labels", JSONB, nullable=False),
    _text("metadata"),
    _text("limits"),
    _text("requester"),
    _text("requester_kind"),
    _text("requester_channel"),
    _id("parent_run_id", nullable=True),
    _id("parent_step_id", nullable=True),
    _text("plan", nullable=True),
    _text("status"),
    _text("phase"),
    _text("reason", nullable=True),
    _text("allowance", nullable=True),
    _int("plan_revision"),
    _int("steps_total"),
    _int("steps_done"),
    *_usage(),
    _text("workspace_rev", nullable=True),
    _time("wake_at"),
    _time("created_at", nullable=False),
    _time("updated_at", nullable=False),
    _time("started_at"),
    _time("completed_at"),
    _time("undone_at"),
    _int("head_seq"),
    Column("head_hash", LargeBinary, nullable=False),
    _id("worker_id", nullable=True),
    _int("lease_epoch", default=0),
    _int("lost_leases", default=0),
    _time("held_until"),
    _text("held_for", nullable=True),
    PrimaryKeyConstraint("id"),
    ForeignKeyConstraint(["workspace_id"], [f"{SCHEMA}.workspaces.id"], name="workspace"),
    _one_of("status", RunStatus, "status"),
    # Few and short: PostgreSQL reads every check anew for each statement. `awaiting_approval` is a view of two phases.
    CheckConstraint(
        "phase = status OR (status = 'awaiting_approval' AND (phase = 'queued' OR phase = 'running'))", name="phase"
    ),
    postgresql_with={"fillfactor": 70},
)
# The queue: what may be claimed, oldest first, within a pool.
Index(
    "ix_runs_due",
    runs.c.pool,
    runs.c.wake_at,
    postgresql_where=text("worker_id IS NULL AND wake_at IS NOT NULL"),
)
Index("ix_runs_worker", runs.c.worker_id, postgresql_where=text("worker_id IS NOT NULL"))
Index("ix_runs_held", runs.c.workspace_id, postgresql_where=text("held_for IS NOT NULL"))
Index(
    "ix_runs_labels",
    runs.c.labels,
    postgresql_using="gin",
    postgresql_ops={"labels": "jsonb_path_ops"},
    postgresql_where=text("labels <> '{}'::jsonb"),
)

steps = Table(
    "steps",
    metadata,
    _id("run_id"),
    _id("id"),
    _tenant(),
    _text("key"),
    _int("number"),
    _text("type"),
    _text("effect"),
    _text("gate"),
    _int("max_attempts"),
    _big("backoff_ms", nullable=False),
    _big("timeout_ms"),
    _text("on_error"),
    _text("why", nullable=True),
    _text("input_sha256"),
    _big("input_size", nullable=False),
    _text("input"),
    _id("parent_id", nullable=True),
    _int("iteration", default=0),
    _id("compensates", nullable=True),
    _text("status"),
    _text("reason", nullable=True),
    Column("granted", Boolean, nullable=False),
    _int("attempt"),
    _time("retry_at"),
    _text("error", nullable=True),
    _text("output_sha256", nullable=True),
    _big("output_size"),
    _text("output", nullable=True),
    _id("change_set_id", nullable=True),
    _text("change_set_digest", nullable=True),
    _text("workspace_before", nullable=True),
    _text("workspace_after", nullable=True),
    _big("latency_ms"),
    *_usage(),
    _text("cost_source", nullable=True),
    _text("model", nullable=True),
    _time("created_at", nullable=False),
    _time("started_at"),
    _time("completed_at"),
    PrimaryKeyConstraint("run_id", "id"),
    ForeignKeyConstraint(["run_id"], [f"{SCHEMA}.runs.id"], name="run"),
    UniqueConstraint("run_id", "number", name="number"),
    UniqueConstraint("run_id", "key", name="key"),
    _one_of("status", StepStatus, "status"),
    _one_of("effect", Effect, "effect"),
    _one_of("gate", Gate, "gate"),
    postgresql_with={"fillfactor": 70},
)

step_needs = Table(
    "step_needs",
    metadata,
    _id("run_id"),
    _id("step_id"),
    Column("position", SmallInteger, nullable=False),
    _id("need_id"),
    PrimaryKeyConstraint("run_id", "step_id", "position"),
    ForeignKeyConstraint(["run_id", "step_id"], [f"{SCHEMA}.steps.run_id", f"{SCHEMA}.steps.id"], name="step"),
    ForeignKeyConstraint(["run_id", "need_id"], [f"{SCHEMA}.steps.run_id", f"{SCHEMA}.steps.id"], name="need"),
    CheckConstraint("step_id <> need_id", name="other"),
)

# No foreign key to `runs`: the guard of every write proves the run, and partitions are detached by age.
events = Table(
    "events",
    metadata,
    _id("run_id"),
    _int("seq"),
    _text("type"),
    _id("step_id", nullable=True),
    _text("actor"),
    _time("at", nullable=False),
    _text("body"),
    Column("prev_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("tx", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    PrimaryKeyConstraint("run_id", "seq"),
    CheckConstraint("seq > 0 AND octet_length(prev_hash) = 32 AND octet_length(hash) = 32", name="chain"),
    postgresql_partition_by="RANGE (run_id)",
)

_STEP = [f"{SCHEMA}.steps.run_id", f"{SCHEMA}.steps.id"]

approval_requests = Table(
    "approval_requests",
    metadata,
    _id("run_id"),
    _id("id"),
    _tenant(),
    _id("step_id"),
    _int("revision"),
    _text("action_hash"),
    _text("risk"),
    _text("rendering_sha256"),
    _text("rendering"),
    _int("required"),
    _time("expires_at"),
    _text("on_expiry"),
    _text("policy_version"),
    _text("matched_rules"),
    _time("requested_at", nullable=False),
    _text("status"),
    PrimaryKeyConstraint("run_id", "id"),
    UniqueConstraint("run_id", "step_id", "revision", name="revision"),
    ForeignKeyConstraint(["run_id", "step_id"], _STEP, name="step"),
    _one_of("status", ApprovalStatus, "status"),
    CheckConstraint("revision > 0 AND required > 0", name="counts"),
)
Index("ix_approval_requests_open", approval_requests.c.id, postgresql_where=text("status = 'open'"))

approval_decisions = Table(
    "approval_decisions",
    metadata,
    _id("run_id"),
    _id("request_id"),
    _tenant(),
    _text("actor"),
    _text("actor_kind"),
    _text("channel"),
    _text("on_behalf_of", nullable=True),
    _text("verdict"),
    _text("reason", nullable=True),
    _text("then", nullable=True),
    _text("action_hash"),
    Column("implied", Boolean, nullable=False),
    _time("at", nullable=False),
    # One decision stands: the key itself refuses a second one.
    PrimaryKeyConstraint("run_id", "request_id"),
    ForeignKeyConstraint(
        ["run_id", "request_id"],
        [f"{SCHEMA}.approval_requests.run_id", f"{SCHEMA}.approval_requests.id"],
        name="request",
    ),
    _one_of("verdict", (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED), "verdict"),
)

change_sets = Table(
    "change_sets",
    metadata,
    _id("run_id"),
    _id("id"),
    _tenant(),
    _id("step_id"),
    _id("workspace_id"),
    _text("digest"),
    _time("created_at", nullable=False),
    _int("applied_seq", nullable=True),
    _time("applied_at"),
    PrimaryKeyConstraint("run_id", "id"),
    ForeignKeyConstraint(["run_id", "step_id"], _STEP, name="step"),
    ForeignKeyConstraint(["workspace_id"], [f"{SCHEMA}.workspaces.id"], name="workspace"),
)
Index("ix_change_sets_id", change_sets.c.id)

change_set_files = Table(
    "change_set_files",
    metadata,
    _id("run_id"),
    _id("change_set_id"),
    _int("position"),
    _text("path"),
    _text("op"),
    _text("before", nullable=True),
    _text("after", nullable=True),
    PrimaryKeyConstraint("run_id", "change_set_id", "position"),
    ForeignKeyConstraint(
        ["run_id", "change_set_id"],
        [f"{SCHEMA}.change_sets.run_id", f"{SCHEMA}.change_sets.id"],
        name="change_set",
    ),
    CheckConstraint("before IS NOT NULL OR after IS NOT NULL", name="present"),
)

model_calls = Table(
    "model_calls",
    metadata,
    _id("run_id"),
    _id("id"),
    _tenant(),
    _id("step_id"),
    _int("attempt"),
    _text("router"),
    _text("provider", nullable=True),
    _text("request_hash"),
    _text("model_asked", nullable=True),
    _text("model_used", nullable=True),
    _text("status"),
    _money("cost_usd", nullable=True),
    _text("cost_source", nullable=True),
    _big("tokens_input"),
    _big("tokens_output"),
    _big("tokens_cached"),
    _big("tokens_reasoning"),
    _big("latency_ms"),
    _big("first_token_ms"),
    _text("finish_reason", nullable=True),
    _int("http_status", nullable=True),
    _text("request_ids", nullable=True),
    Column("cache_hit", Boolean),
    _int("retries", nullable=True),
    _time("called_at", nullable=False),
    _time("settled_at"),
    PrimaryKeyConstraint("run_id", "id"),
    ForeignKeyConstraint(["run_id", "step_id"], _STEP, name="step"),
    CheckConstraint("cost_usd >= 0", name="cost"),
)

workspaces = Table(
    "workspaces",
    metadata,
    _id("id"),
    _tenant(),
    _text("pool"),
    # Ordered by bytes, so that a range finds what lies below a folder.
    Column("root", Text(collation="C"), nullable=False),
    _text("mode"),
    _text("rev", nullable=True),
    _id("holder_run_id", nullable=True),
    _id("holder_step_id", nullable=True),
    _time("created_at", nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("tenant_id", "pool", "root", name="root"),
    CheckConstraint("(holder_run_id IS NULL) = (holder_step_id IS NULL)", name="holder"),
)

workers = Table(
    "workers",
    metadata,
    _id("id"),
    _text("host"),
    _int("pid"),
    Column("pools", ARRAY(Text), nullable=False),
    _time("started_at", nullable=False),
    _time("lease_until", nullable=False),
    PrimaryKeyConstraint("id"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _tenant(),
    _text("scope"),
    _text("key"),
    _text("request_sha256"),
    _id("run_id", nullable=True),
    _int("status"),
    _text("response", nullable=True),
    _time("created_at", nullable=False),
    PrimaryKeyConstraint("tenant_id", "scope", "key"),
)
Index("ix_idempotency_keys_created", idempotency_keys.c.created_at)
