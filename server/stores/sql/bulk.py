"""One statement for many rows, as fast as the driver takes them.

Rows are tuples in the order of the statement's parameters. Core's own way of running a statement
for many rows looks at every value of every row once more, which took a third of a transaction.

SQLite is given many rows in one statement. Its module lets go of the interpreter at each step, and
to get it back from a busy loop takes as long as the loop likes: once a row was far too often.
PostgreSQL's driver pipelines the rows of one statement by itself.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, Table, Update, bindparam, insert, update

from server.stores.sql.statements import driver_of

Row = tuple[Any, ...]

MOST_ROWS = 256
MOST_PARAMETERS = 32_000
"""SQLite takes 32,766 since 3.32."""

# UPDATE … FROM came with 3.33.
_TAKES_MANY = sqlite3.sqlite_version_info >= (3, 33)


def insert_rows(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Row]
) -> None:
    """Insert rows of these columns' values, which stand in the table's order."""
    _run(connection, table, columns, (), rows)


def update_rows(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    keys: tuple[str, ...],
    rows: Sequence[Row],
) -> None:
    """Set these columns in rows of values, each followed by the keys' values."""
    _run(connection, table, columns, keys, rows)


def _run(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    keys: tuple[str, ...],
    rows: Sequence[Row],
) -> None:
    if not rows:
        return
    dialect, driver = connection.dialect, driver_of(connection)
    if driver is not None and _TAKES_MANY:
        for part in _parts(rows, MOST_PARAMETERS // (len(columns) + len(keys))):
            text = _text_for_many(table, columns, keys, len(part), dialect)
            driver.execute(text, tuple(chain.from_iterable(part)))
    else:
        connection.exec_driver_sql(_text(table, columns, keys, dialect), list(rows))


def _parts(rows: Sequence[Row], most: int) -> Iterator[Sequence[Row]]:
    """Yield the rows in parts of 1, 2, 4, 8 … rows, so that there are few different statements."""
    start = 0
    while left := len(rows) - start:
        size = min(MOST_ROWS, 1 << (left.bit_length() - 1))
        while size > most:
            size //= 2
        yield rows[start : start + size]
        start += size


@lru_cache(maxsize=1024)
def _text_for_many(
    table: Table, columns: tuple[str, ...], keys: tuple[str, ...], count: int, dialect: Dialect
) -> str:
    """Return SQLite's INSERT, or with keys its UPDATE, of so many rows."""
    quote = dialect.identifier_preparer.quote
    row = f"({', '.join('?' * (len(columns) + len(keys)))})"
    values = ", ".join([row] * count)
    name = quote(table.name)
    if not keys:
        return f"INSERT INTO {name} ({', '.join(map(quote, columns))}) VALUES {values}"  # noqa: S608 (names of ours)
    fresh = [f"new_{place}" for place in range(len(columns) + len(keys))]
    settings = ", ".join(f"{quote(c)} = v.{new}" for c, new in zip(columns, fresh, strict=False))
    matches = " AND ".join(
        f"{name}.{quote(key)} = v.{new}"
        for key, new in zip(keys, fresh[len(columns) :], strict=True)
    )
    return (
        f"WITH v ({', '.join(fresh)}) AS (VALUES {values}) "  # noqa: S608 (names of ours)
        f"UPDATE {name} SET {settings} FROM v WHERE {matches}"
    )


@lru_cache(maxsize=256)
def _text(table: Table, columns: tuple[str, ...], keys: tuple[str, ...], dialect: Dialect) -> str:
    """Return the INSERT, or with keys the UPDATE, of one row."""
    statement: Insert | Update
    if keys:
        matches = [table.c[key] == bindparam(f"_{key}") for key in keys]
        statement = update(table).where(*matches)
        statement = statement.ordered_values(*((name, bindparam(name)) for name in columns))
    else:
        statement = insert(table)
    compiled = statement.compile(dialect=dialect, column_keys=list(columns))
    wanted = [*columns, *(f"_{key}" for key in keys)]
    if compiled.positiontup != wanted:
        raise AssertionError(f"{table.name} takes its parameters in another order")
    return str(compiled)
