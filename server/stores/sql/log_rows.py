"""Blocks of logs as rows. A row has the block's data, or says in which blob it lies."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from server.domain.changes import LogBatch
from server.domain.log import Encoding, LogBlock, LogKey
from server.domain.moment import Moment
from server.stores.interfaces import RowPlace, StoredLog
from server.stores.sql import tables

HEAD = [name for name in LogBlock.__slots__ if name != "data"]
_REST = ("data", "blob", "blob_offset", "blob_size")
_COLUMNS = [tables.logs.c[name] for name in (*HEAD, *_REST)]

heads = select(
    tables.logs.c.task_key, tables.logs.c.attempt, *(tables.logs.c[name] for name in HEAD)
).order_by(tables.logs.c.task_key, tables.logs.c.attempt, tables.logs.c.first_line)
"""Selects whose each block is, and the block without its data."""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block as its row has it: without its data when that lies in a blob."""

    block: LogBlock
    blob: str | None
    offset: int
    size: int


def log_row(batch: LogBatch) -> dict[str, Any]:
    """Return a batch as a row."""
    return {
        **{name: getattr(batch.block, name) for name in HEAD},
        "task_key": batch.task_key,
        "attempt": batch.attempt,
        "namespace": batch.namespace,
        "data": None if batch.blob else batch.block.data,
        "blob": batch.blob or None,
        "blob_offset": batch.offset,
        "blob_size": batch.size,
    }


def block_of(fields: Sequence[Any], data: bytes) -> LogBlock:
    """Return the block of the fields that `heads` selects, with its data."""
    values = dict(zip(HEAD, fields, strict=True))
    return LogBlock(**{**values, "encoding": Encoding(values["encoding"])}, data=data)


def _stored(row: Sequence[Any]) -> StoredBlock:
    *fields, data, blob, offset, size = row
    return StoredBlock(block_of(fields, data or b""), blob, offset, size)


_KEPT = tables.logs.c.encoding != Encoding.OMITTED
_STORED_BYTES = func.coalesce(
    func.sum(
        case(
            (tables.logs.c.blob.is_(None), func.length(tables.logs.c.data)),
            else_=tables.logs.c.blob_size,
        )
    ),
    0,
)


async def ended_logs(
    connection: AsyncConnection, after: Moment, before: Moment, limit: int, namespace: str = ""
) -> list[StoredLog]:
    """See interfaces.Reader."""
    task, table = tables.tasks.c, tables.logs.c
    whose = [task.namespace == namespace] if namespace else []
    kept = select(table.task_key).where(table.task_key == task.key, _KEPT).exists()
    ended = (
        select(task.key, task.finished_at)
        .where(task.finished_at >= after, task.finished_at < before, kept, *whose)
        .order_by(task.finished_at, task.key)
        .limit(limit)
    )
    moments = {row.key: row.finished_at for row in await connection.execute(ended)}
    sizes = (
        select(table.task_key, table.attempt, _STORED_BYTES)
        .where(table.task_key.in_(moments), _KEPT)
        .group_by(table.task_key, table.attempt)
    )
    found = [
        StoredLog((key, attempt), moments[key], size)
        for key, attempt, size in await connection.execute(sizes)
    ]
    return sorted(found, key=lambda stored: (stored.ended_at, stored.key))


async def stored_bytes(connection: AsyncConnection) -> int:
    """See interfaces.Reader."""
    return int(await connection.scalar(select(_STORED_BYTES)) or 0)


async def bytes_by_namespace(connection: AsyncConnection) -> dict[str, int]:
    """See interfaces.Reader."""
    query = select(tables.logs.c.namespace, _STORED_BYTES).group_by(tables.logs.c.namespace)
    return {row[0]: int(row[1] or 0) for row in await connection.execute(query)}


async def blocks(
    connection: AsyncConnection, task_key: int, attempt: int, first_line: int
) -> AsyncGenerator[StoredBlock, None]:
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
            yield _stored(row)
    finally:
        await rows.close()


async def in_rows(
    connection: AsyncConnection, keys: Sequence[LogKey], after: RowPlace, size: int
) -> list[tuple[LogKey, list[LogBlock]]]:
    """See interfaces.Reader."""
    table = tables.logs.c
    place = (table.task_key, table.attempt, table.first_line)
    query = (
        select(table.task_key, table.attempt, *_COLUMNS)
        .where(table.task_key.in_({key for key, _ in keys}), _KEPT, table.blob.is_(None))
        .where(tuple_(*place) > tuple_(*map(literal, after)))
        .order_by(*place)
    )
    wanted = set(keys)
    found: list[tuple[LogKey, list[LogBlock]]] = []
    rows = await connection.stream(query)
    try:
        async for task_key, attempt, *row in rows:
            key, block = (task_key, attempt), _stored(row).block
            if key not in wanted:
                continue
            if found and found[-1][0] == key and _follows(found[-1][1][-1], block):
                found[-1][1].append(block)
            else:
                found.append((key, [block]))
            size -= len(block.data)
            if size <= 0:
                break
    finally:
        await rows.close()
    return found


def _follows(one: LogBlock, other: LogBlock) -> bool:
    return other.first_line == one.last_line + 1


async def block_since(
    connection: AsyncConnection, task_key: int, attempt: int, moment: Moment
) -> StoredBlock | None:
    """Return the first block with a line of a moment or later, or None."""
    table = tables.logs
    of_log = (table.c.task_key == task_key) & (table.c.attempt == attempt)
    query = select(*_COLUMNS).where(of_log, table.c.last_at >= moment)
    row = (await connection.execute(query.order_by(table.c.first_line).limit(1))).first()
    return None if row is None else _stored(row)
