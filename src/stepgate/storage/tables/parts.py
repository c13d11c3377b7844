"""What tables are made of: one schema, one way to name constraints, one column for each kind of value."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Integer,
    MetaData,
    Numeric,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

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


def id_column(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Uuid(as_uuid=False), nullable=nullable)


def text_column(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


def int_column(name: str, *, nullable: bool = False, default: int | None = None) -> Column[int]:
    return Column(name, Integer, nullable=nullable, server_default=None if default is None else text(str(default)))


def big_column(name: str, *, nullable: bool = True) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def time_column(name: str, *, nullable: bool = True) -> Column[Any]:
    return Column(name, TIMESTAMP(timezone=True), nullable=nullable)


def money_column(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, Numeric(20, 12), nullable=nullable, server_default=None if nullable else text("0"))


def tenant_column() -> Column[str]:
    """One tenant today; a column from the start, because a key cannot be widened later without a rewrite."""
    return Column("tenant_id", Text, nullable=False, server_default=text("'default'"))


def usage_columns() -> tuple[Column[Any], ...]:
    counts = (
        int_column("model_calls", default=0),
        int_column("unknown_cost_calls", default=0),
        money_column("known_cost_usd"),
    )
    tokens = (f"tokens_{kind}" for kind in ("input", "output", "cached", "reasoning"))
    return (*counts, *(big_column(name) for name in tokens))


def one_of(column: str, values: type[StrEnum] | Iterable[str], name: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=name)


STEP = [f"{SCHEMA}.steps.run_id", f"{SCHEMA}.steps.id"]
