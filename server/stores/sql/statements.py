"""Runs the statements of the hot path as cheaply as the driver takes them.

A statement that is built once is compiled once for each length of its lists. SQLite's driver then
takes it as it is: what Core does around each statement costs many times what a few rows cost. Other
databases are spoken to through Core.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import Connection, Dialect, Select, Update

Row: TypeAlias = Sequence[Any]
Reader: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as the driver takes it."""

    sql: str
    order: Callable[[Mapping[str, Any]], Any]
    """Returns the parameters, or the only one, in their order."""
    single: bool
    constants: dict[str, Any]
    lists: dict[str, list[str]]
    """Names of the parameters that a list's elements stand under."""
    readers: list[tuple[int, Reader]]
    """What makes a column's value of what is stored, where that differs."""


def driver_of(connection: Connection) -> sqlite3.Connection | None:
    """Return SQLite's own connection, or None on another database."""
    if connection.dialect.name != "sqlite":
        return None
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # Any
    return driver


def rows_of(
    connection: Connection, statement: Select[Any], values: Mapping[str, Any]
) -> Sequence[Row]:
    """Return the rows of a statement that is built once; a list among the values fills its IN."""
    driver = driver_of(connection)
    if driver is None:
        return connection.execute(statement, values).all()
    text, parameters = _prepared(connection.dialect, statement, values)
    found = driver.execute(text.sql, parameters).fetchall()
    return [_read(row, text.readers) for row in found] if text.readers else found


def run(connection: Connection, statement: Update, values: Mapping[str, Any]) -> None:
    """Run a statement that is built once and returns nothing."""
    driver = driver_of(connection)
    if driver is None:
        connection.execute(statement, values)
    else:
        text, parameters = _prepared(connection.dialect, statement, values)
        driver.execute(text.sql, parameters)


def _prepared(
    dialect: Dialect, statement: Select[Any] | Update, values: Mapping[str, Any]
) -> tuple[_Text, Sequence[Any]]:
    padded = {name: _padded(v) if isinstance(v, list) else v for name, v in values.items()}
    sizes = tuple((name, len(v)) for name, v in padded.items() if isinstance(v, list))
    text = _compiled(statement, tuple(values), sizes, dialect)
    flat = {**text.constants, **padded}
    for name, names in text.lists.items():
        flat.update(zip(names, padded[name], strict=True))
    parameters = text.order(flat)
    return text, (parameters,) if text.single else parameters


def _padded(keys: list[Any]) -> list[Any]:
    """Return a list with its last element repeated, so that there are few different lengths."""
    wanted = 1 << (len(keys) - 1).bit_length() if keys else 0
    return keys + keys[-1:] * (wanted - len(keys))


@lru_cache(maxsize=512)
def _compiled(
    statement: Select[Any] | Update,
    names: tuple[str, ...],
    sizes: tuple[tuple[str, int], ...],
    dialect: Dialect,
) -> _Text:
    lists = {name: [None] * size for name, size in sizes}
    state = statement.compile(dialect=dialect).construct_expanded_state(
        {**dict.fromkeys(names), **lists}
    )
    order = state.positiontup or []
    return _Text(
        state.statement,
        itemgetter(*order),
        len(order) == 1,
        {name: value for name, value in state.parameters.items() if name not in names},
        {name: list(state.parameter_expansion[name]) for name in lists},
        _readers(statement, dialect),
    )


def _readers(statement: Select[Any] | Update, dialect: Dialect) -> list[tuple[int, Reader]]:
    if isinstance(statement, Update):
        return []
    found: list[tuple[int, Reader]] = []
    for place, column in enumerate(statement.selected_columns):
        reader = column.type.dialect_impl(dialect).result_processor(dialect, None)
        if reader is not None:
            found.append((place, reader))
    return found


def _read(row: Row, readers: Sequence[tuple[int, Reader]]) -> Row:
    values = list(row)
    for place, reader in readers:
        values[place] = reader(values[place])
    return values
