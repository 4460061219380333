"""The base of every table row: SQLAlchemy's dataclass mapping, with frozen values.

A row class is the one definition of its table: column names, types, indexes and defaults. Its
instances are values: they are built by anybody, compared by equality, changed with
`dataclasses.replace`, and used outside of sessions. The catalogue writes them with explicit
statements and reads them in sessions of one query, so nothing refreshes or flushes them later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, MappedAsDataclass

BigInt = Annotated[int, "64 bits"]
Text16 = Annotated[str, 16]  # a state, a kind, a file suffix
Text32 = Annotated[str, 32]
Text40 = Annotated[str, 40]  # a time in ISO 8601
Text64 = Annotated[str, 64]  # a sha256 in hexadecimal, and shorter ids
Text128 = Annotated[str, 128]


class IntTuple(sa.TypeDecorator[tuple[int, ...]]):
    """A tuple of integers, stored as a JSON list."""

    impl = sa.JSON
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> tuple[int, ...] | None:
        """Return the stored list as a tuple."""
        return None if value is None else tuple(value)


def _frozen_dataclass(cls: Any, **options: Any) -> Any:
    """`dataclasses.dataclass(frozen=True)` that lets SQLAlchemy attach its instance state.

    SQLAlchemy does not map frozen dataclasses by itself (its issue 9197): it sets one attribute,
    the instance state, on every instance. Loaded values go into `__dict__`, which is not barred.
    """
    made: Any = dataclasses.dataclass(cls, frozen=True, **options)
    refuse = made.__setattr__

    def set_state_only(self: Any, name: str, value: Any) -> None:
        if name == "_sa_instance_state":
            object.__setattr__(self, name, value)
        else:
            refuse(self, name, value)

    made.__setattr__ = set_state_only
    return made


class Row(MappedAsDataclass, DeclarativeBase, dataclass_callable=_frozen_dataclass):
    """Base of all rows; `Row.metadata` holds all tables."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads the class attribute
        str: sa.Text,
        float: sa.Float,
        BigInt: sa.BigInteger,
        Text16: sa.String(16),
        Text32: sa.String(32),
        Text40: sa.String(40),
        Text64: sa.String(64),
        Text128: sa.String(128),
        Mapping[str, Any]: sa.JSON,
        Sequence[str]: sa.JSON,
    }


def enum_column(kind: type[StrEnum]) -> sa.Enum:
    """Column type of a StrEnum: its value as text of up to 16 characters."""
    return sa.Enum(
        kind,
        native_enum=False,
        length=16,
        values_callable=lambda members: [str(m) for m in members],
    )


def partial_index(name: str, condition: str, *columns: str) -> sa.Index:
    """An index over the few rows that fulfil a condition.

    Args:
        name: of the index.
        condition: in SQL, spelled as the queries that use it: SQLite compares the text.
        columns: names.
    """
    for_sqlite = condition.replace("IS true", "IS 1")  # as SQLAlchemy writes `.is_(True)` there
    return sa.Index(
        name, *columns, sqlite_where=sa.text(for_sqlite), postgresql_where=sa.text(condition)
    )


def table_of(kind: type[Row]) -> sa.Table:
    """The table that a row class defines."""
    table = kind.__table__
    assert isinstance(table, sa.Table)
    return table


def to_column_values(row: Row) -> dict[str, Any]:
    """Return the column values of a row, by column name."""
    attributes = sa.inspect(type(row)).column_attrs
    return {each.columns[0].name: getattr(row, each.key) for each in attributes}
