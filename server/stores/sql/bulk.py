"""One statement for many rows, as fast as the driver takes them.

Core compiles the statement once a dialect; rows are tuples in the order of its parameters. Core's
own way of running it looks at every value of every row once more, which took a third of the time
of a transaction.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, Table, Update, bindparam, insert, update


@lru_cache(maxsize=256)
def _text(table: Table, columns: tuple[str, ...], keys: tuple[str, ...], dialect: Dialect) -> str:
    """Return an UPDATE of these columns by these keys, or without keys an INSERT.

    Its parameters are the columns' values, then the keys'. INSERT takes them in the table's order.
    """
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


def insert_rows(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows of these columns' values."""
    if rows:
        text = _text(table, columns, (), connection.dialect)
        connection.exec_driver_sql(text, list(rows))


def update_rows(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    keys: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Set these columns in rows of values, each followed by the keys' values."""
    if rows:
        text = _text(table, columns, keys, connection.dialect)
        connection.exec_driver_sql(text, list(rows))
