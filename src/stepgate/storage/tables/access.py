"""Who may call, and by which rules."""

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from stepgate.domain.identity import Kind
from stepgate.storage.tables.parts import (
    id_column,
    int_column,
    metadata,
    one_of,
    tenant_column,
    text_column,
    time_column,
)

api_keys = Table(
    "api_keys",
    metadata,
    id_column("id"),
    tenant_column(),
    text_column("name"),
    text_column("kind"),
    Column("roles", ARRAY(Text), nullable=False),
    text_column("prefix"),
    Column("digest", LargeBinary, nullable=False),
    time_column("created_at", nullable=False),
    text_column("created_by"),
    time_column("expires_at"),
    time_column("revoked_at"),
    time_column("last_used_at"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("tenant_id", "name", name="name"),
    UniqueConstraint("prefix", name="prefix"),
    one_of("kind", Kind, "kind"),
    CheckConstraint("octet_length(digest) = 32", name="digest"),
)

# Rows are added and stay; the highest number of a source is its newest.
policy_versions = Table(
    "policy_versions",
    metadata,
    tenant_column(),
    int_column("number"),
    text_column("version"),
    text_column("content"),
    text_column("source"),
    text_column("created_by"),
    time_column("created_at", nullable=False),
    PrimaryKeyConstraint("tenant_id", "number"),
    one_of("source", ("file", "api"), "source"),
    CheckConstraint("version = encode(sha256(convert_to(content, 'UTF8')), 'hex')", name="version"),
)
Index("ix_policy_versions_version", policy_versions.c.tenant_id, policy_versions.c.version)
Index(
    "uq_policy_versions_file",
    policy_versions.c.tenant_id,
    policy_versions.c.version,
    unique=True,
    postgresql_where=text("source = 'file'"),
)

console_sessions = Table(
    "console_sessions",
    metadata,
    Column("digest", LargeBinary, nullable=False),
    tenant_column(),
    text_column("name"),
    text_column("kind"),
    Column("roles", ARRAY(Text), nullable=False),
    text_column("key_prefix", nullable=True),
    Column("proof", LargeBinary),
    text_column("csrf"),
    time_column("created_at", nullable=False),
    time_column("expires_at", nullable=False),
    PrimaryKeyConstraint("digest"),
    one_of("kind", Kind, "kind"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    tenant_column(),
    text_column("scope"),
    text_column("key"),
    text_column("request_sha256"),
    id_column("run_id", nullable=True),
    int_column("status"),
    text_column("response", nullable=True),
    time_column("created_at", nullable=False),
    PrimaryKeyConstraint("tenant_id", "scope", "key"),
)
Index("ix_idempotency_keys_created", idempotency_keys.c.created_at)
