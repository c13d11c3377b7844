"""Where runs work, and what they changed there."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from stepgate.storage.tables.parts import (
    SCHEMA,
    STEP,
    big_column,
    id_column,
    int_column,
    metadata,
    tenant_column,
    text_column,
    time_column,
)

change_sets = Table(
    "change_sets",
    metadata,
    id_column("run_id"),
    id_column("id"),
    tenant_column(),
    id_column("step_id"),
    id_column("workspace_id"),
    text_column("digest"),
    time_column("created_at", nullable=False),
    int_column("applied_seq", nullable=True),
    time_column("applied_at"),
    PrimaryKeyConstraint("run_id", "id"),
    ForeignKeyConstraint(["run_id", "step_id"], STEP, name="step"),
    ForeignKeyConstraint(["workspace_id"], [f"{SCHEMA}.workspaces.id"], name="workspace"),
)
Index("ix_change_sets_id", change_sets.c.id)

change_set_files = Table(
    "change_set_files",
    metadata,
    id_column("run_id"),
    id_column("change_set_id"),
    int_column("position"),
    text_column("path"),
    text_column("op"),
    text_column("before", nullable=True),
    text_column("after", nullable=True),
    PrimaryKeyConstraint("run_id", "change_set_id", "position"),
    ForeignKeyConstraint(
        ["run_id", "change_set_id"],
        [f"{SCHEMA}.change_sets.run_id", f"{SCHEMA}.change_sets.id"],
        name="change_set",
    ),
    CheckConstraint("before IS NOT NULL OR after IS NOT NULL", name="present"),
)

workspaces = Table(
    "workspaces",
    metadata,
    id_column("id"),
    tenant_column(),
    text_column("pool"),
    # Ordered by bytes, so that a range finds what lies below a folder.
    Column("root", Text(collation="C"), nullable=False),
    text_column("mode"),
    text_column("rev", nullable=True),
    id_column("holder_run_id", nullable=True),
    id_column("holder_step_id", nullable=True),
    time_column("created_at", nullable=False),
    text_column("name", nullable=True),
    # Of a run's private copy: the workspace it was copied from.
    id_column("source_id", nullable=True),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("tenant_id", "pool", "root", name="root"),
    UniqueConstraint("tenant_id", "name", name="name"),
    ForeignKeyConstraint(["source_id"], [f"{SCHEMA}.workspaces.id"], name="source"),
    CheckConstraint("(holder_run_id IS NULL) = (holder_step_id IS NULL)", name="holder"),
    CheckConstraint("source_id IS NULL OR name IS NULL", name="copy"),
)

# What a run began from, where it works on a copy or in a repository; written once, when it is first driven.
run_origins = Table(
    "run_origins",
    metadata,
    id_column("run_id"),
    tenant_column(),
    text_column("git_ref", nullable=True),
    text_column("git_commit", nullable=True),
    int_column("copied_files", nullable=True),
    big_column("copied_bytes"),
    text_column("left_out", nullable=True),
    time_column("recorded_at", nullable=False),
    time_column("discarded_at"),
    PrimaryKeyConstraint("run_id"),
    ForeignKeyConstraint(["run_id"], [f"{SCHEMA}.runs.id"], name="run"),
)
