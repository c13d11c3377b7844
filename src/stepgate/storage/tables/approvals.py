"""Questions, answers, and who may answer for whom."""

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from stepgate.domain.state import ApprovalStatus
from stepgate.storage.tables.parts import (
    SCHEMA,
    STEP,
    id_column,
    int_column,
    metadata,
    one_of,
    tenant_column,
    text_column,
    time_column,
)

approval_requests = Table(
    "approval_requests",
    metadata,
    id_column("run_id"),
    id_column("id"),
    tenant_column(),
    id_column("step_id"),
    int_column("revision"),
    text_column("action_hash"),
    text_column("risk"),
    text_column("rendering_sha256"),
    text_column("rendering"),
    int_column("required"),
    text_column("roles"),
    Column("exclude_requester", Boolean, nullable=False),
    time_column("expires_at"),
    text_column("on_expiry"),
    text_column("policy_version"),
    text_column("matched_rules"),
    time_column("requested_at", nullable=False),
    text_column("status"),
    Column("reminded", SmallInteger, nullable=False),
    PrimaryKeyConstraint("run_id", "id"),
    UniqueConstraint("run_id", "step_id", "revision", name="revision"),
    ForeignKeyConstraint(["run_id", "step_id"], STEP, name="step"),
    one_of("status", ApprovalStatus, "status"),
    CheckConstraint("revision > 0 AND required > 0", name="counts"),
)
Index("ix_approval_requests_id", approval_requests.c.id)
Index("ix_approval_requests_open", approval_requests.c.id, postgresql_where=text("status = 'open'"))

approval_decisions = Table(
    "approval_decisions",
    metadata,
    id_column("run_id"),
    id_column("request_id"),
    tenant_column(),
    Column("number", SmallInteger, nullable=False),
    Column("settles", Boolean, nullable=False),
    text_column("actor"),
    text_column("actor_kind"),
    text_column("channel"),
    text_column("on_behalf_of", nullable=True),
    text_column("roles"),
    text_column("verdict"),
    text_column("reason", nullable=True),
    text_column("then", nullable=True),
    text_column("action_hash"),
    Column("implied", Boolean, nullable=False),
    time_column("at", nullable=False),
    PrimaryKeyConstraint("run_id", "request_id", "number"),
    ForeignKeyConstraint(
        ["run_id", "request_id"],
        [f"{SCHEMA}.approval_requests.run_id", f"{SCHEMA}.approval_requests.id"],
        name="request",
    ),
    one_of("verdict", (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED, ApprovalStatus.EDITED), "verdict"),
)

# One decision stands: the index itself refuses a second one.
Index(
    "ix_approval_decisions_standing",
    approval_decisions.c.run_id,
    approval_decisions.c.request_id,
    unique=True,
    postgresql_where=text("settles"),
)

delegations = Table(
    "delegations",
    metadata,
    id_column("id"),
    tenant_column(),
    text_column("delegator"),
    text_column("delegate"),
    Column("roles", ARRAY(Text), nullable=False),
    text_column("reason", nullable=True),
    time_column("starts_at", nullable=False),
    time_column("ends_at", nullable=False),
    time_column("created_at", nullable=False),
    time_column("revoked_at"),
    text_column("revoked_by", nullable=True),
    PrimaryKeyConstraint("id"),
    CheckConstraint("delegator <> delegate", name="another"),
    CheckConstraint("starts_at < ends_at", name="time"),
)
Index("ix_delegations_delegate", delegations.c.tenant_id, delegations.c.delegate, delegations.c.delegator)
