"""How alembic meets the schema; runs over a connection that its caller opened, in one transaction."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from stepgate.storage.migrations import SCHEMA, VERSION_TABLE
from stepgate.storage.tables import metadata

# An arbitrary constant: whoever migrates first holds it, and the others then find nothing left to do.
MIGRATION_LOCK = 7_305_808_869_229_538_405


def is_ours(item: Any, name: str | None, kind: str, _reflected: bool, _compared_to: Any) -> bool:
    """Partitions are made by the running system, month by month, so the metadata does not list them."""
    table = name if kind == "table" else getattr(getattr(item, "table", None), "name", None)
    return not (table is not None and (table.startswith("events_p") or table == "events_default"))


def is_our_schema(name: str | None, kind: str, _parents: Any) -> bool:
    return name == SCHEMA if kind == "schema" else True


def run(connection: Connection) -> None:
    """Runs the command alembic was asked for; everything it changes commits together or not at all."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_schemas=True,
        include_name=is_our_schema,
        include_object=is_ours,
        version_table=VERSION_TABLE,
        version_table_schema=SCHEMA,
    )
    with connection.begin():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        with context.begin_transaction():
            context.run_migrations()


def run_offline() -> None:
    """Prints the SQL instead of running it (`alembic upgrade head --sql`)."""
    context.configure(
        dialect_name="postgresql",
        target_metadata=metadata,
        literal_binds=True,
        version_table=VERSION_TABLE,
        version_table_schema=SCHEMA,
    )
    with context.begin_transaction():
        context.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        context.run_migrations()
