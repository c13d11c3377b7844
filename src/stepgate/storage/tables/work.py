"""Who executes, and what it prints meanwhile."""

from sqlalchemy import ARRAY, Column, PrimaryKeyConstraint, Table, Text

from stepgate.storage.tables.parts import big_column, id_column, int_column, metadata, text_column, time_column

workers = Table(
    "workers",
    metadata,
    id_column("id"),
    text_column("host"),
    int_column("pid"),
    Column("pools", ARRAY(Text), nullable=False),
    time_column("started_at", nullable=False),
    time_column("lease_until", nullable=False),
    PrimaryKeyConstraint("id"),
)

# No foreign keys: its rows come and go beside the commits of their run and must not lock what these write.
output_chunks = Table(
    "output_chunks",
    metadata,
    id_column("run_id"),
    id_column("step_id"),
    int_column("attempt"),
    big_column("seq", nullable=False),
    text_column("stream"),
    time_column("at", nullable=False),
    text_column("text"),
    PrimaryKeyConstraint("run_id", "step_id", "seq"),
    prefixes=["UNLOGGED"],
)
