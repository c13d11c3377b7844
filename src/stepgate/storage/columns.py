"""Set-based statements from column lists: rows go in as one array for each column, named after the tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Numeric, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.types import TypeEngine


class _Kind(NamedTuple):
    """The array a column travels in, how it becomes the column's type, and how Python's value becomes an element."""

    array: str
    stored: str
    element: Callable[[Any], Any] | None = None


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount, "f")


_KINDS: Mapping[type[TypeEngine[Any]], _Kind] = {
    Uuid: _Kind("uuid[]", "{}"),
    Text: _Kind("text[]", "{}"),
    BigInteger: _Kind("bigint[]", "{}"),
    SmallInteger: _Kind("smallint[]", "{}"),
    Integer: _Kind("int[]", "{}"),
    Boolean: _Kind("bool[]", "{}"),
    LargeBinary: _Kind("bytea[]", "{}"),
    # Microseconds: a double holds them exactly until the year 2255.
    TIMESTAMP: _Kind("bigint[]", "to_timestamp({}::float8 / 1000000)"),
    JSONB: _Kind("text[]", "{}::jsonb"),
    Numeric: _Kind("text[]", "{}::numeric", _plain),
}


def _kind(table: Table, column: str) -> _Kind:
    return _KINDS[type(table.c[column].type)]


class Source:
    """Rows of a table given as parameters: `alias` in a FROM list, its columns in the order of `columns`.

    `extra` are columns of the rows that the table does not have, with their array types.
    """

    def __init__(
        self, table: Table, alias: str, columns: Sequence[str], extra: Mapping[str, str] | None = None
    ) -> None:
        self.table = table
        self.alias = alias
        self.columns = tuple(columns)
        self.extra = dict(extra or {})
        self._elements = tuple(_kind(table, column).element for column in self.columns) + (None,) * len(self.extra)

    @property
    def width(self) -> int:
        return len(self.columns) + len(self.extra)

    def unnested(self, first: int) -> str:
        """The FROM item, its parameters numbered from `first`."""
        arrays = [_kind(self.table, column).array for column in self.columns] + list(self.extra.values())
        parameters = ", ".join(f"${first + n}::{array}" for n, array in enumerate(arrays))
        names = ", ".join(f'"{name}"' for name in (*self.columns, *self.extra))
        return f"unnest({parameters}) AS {self.alias}({names})"

    def value(self, column: str) -> str:
        """The column's value in its table's type."""
        return _kind(self.table, column).stored.format(f'{self.alias}."{column}"')

    def values(self, columns: Iterable[str]) -> str:
        return ", ".join(self.value(column) for column in columns)

    def assignments(self, columns: Iterable[str]) -> str:
        return ", ".join(f'"{column}" = {self.value(column)}' for column in columns)

    def arrays(self, rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """The parameters for these rows."""
        if not rows:
            return [()] * self.width
        columns = zip(*rows, strict=True)
        return [
            column if element is None else [element(value) for value in column]
            for column, element in zip(columns, self._elements, strict=True)
        ]


def names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)
