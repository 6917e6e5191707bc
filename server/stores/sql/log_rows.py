"""Blocks of logs as rows."""

from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from server.domain.changes import LogBatch
from server.domain.log import Encoding, LogBlock
from server.domain.moment import Moment
from server.stores.log_blocks import first_since
from server.stores.sql import tables

_HEAD = [name for name in LogBlock.__slots__ if name != "data"]
FIELDS = [*_HEAD, "data"]
_COLUMNS = [tables.logs.c[name] for name in FIELDS]

heads = select(
    tables.logs.c.task_key, tables.logs.c.attempt, *(tables.logs.c[name] for name in _HEAD)
).order_by(tables.logs.c.task_key, tables.logs.c.attempt, tables.logs.c.first_line)
"""Selects whose each block is, and the block without its data."""


def log_row(batch: LogBatch) -> dict[str, Any]:
    """Return a batch as a row."""
    row = {name: getattr(batch.block, name) for name in FIELDS}
    return {
        **row,
        "task_key": batch.task_key,
        "attempt": batch.attempt,
        "namespace": batch.namespace,
    }


def block_of(row: Any) -> LogBlock:  # noqa: ANN401 (a row's type is its columns')
    """Return the block of a row selected by its columns."""
    values = dict(zip(FIELDS, row, strict=True))
    values["encoding"] = Encoding(values["encoding"])
    return LogBlock(**values)


async def blocks(
    connection: AsyncConnection, task_key: int, attempt: int, first_line: int
) -> AsyncGenerator[LogBlock, None]:
    """Yield a log's blocks in order, from the one that holds a line."""
    table, earlier = tables.logs, tables.logs.alias()
    begin = select(func.max(earlier.c.first_line)).where(
        earlier.c.task_key == task_key,
        earlier.c.attempt == attempt,
        earlier.c.first_line <= first_line,
    )
    query = (
        select(*_COLUMNS)
        .where(
            table.c.task_key == task_key,
            table.c.attempt == attempt,
            # The block that holds the line is the last that begins no later.
            table.c.first_line >= func.coalesce(begin.scalar_subquery(), 0),
        )
        .order_by(table.c.first_line)
    )
    rows = await connection.stream(query)
    try:
        async for row in rows:
            yield block_of(row)
    finally:
        await rows.close()


async def line_since(
    connection: AsyncConnection, task_key: int, attempt: int, moment: Moment
) -> int | None:
    """Return the number of the first line that was read at a moment or later, or None."""
    table = tables.logs
    of_log = (table.c.task_key == task_key) & (table.c.attempt == attempt)
    query = select(*_COLUMNS).where(of_log, table.c.last_at >= moment)
    row = (await connection.execute(query.order_by(table.c.first_line).limit(1))).first()
    return None if row is None else first_since(block_of(row), moment)
