"""Logs in packed blocks. What earlier versions stored as JSON is packed anew."""

import json
import struct
import zlib
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_RUN = struct.Struct(">QBBBII")
_PLAIN = 1
_STREAMS = {"stdout": 1, "stderr": 2}
_STEP = 500

_NEW = {
    "text_bytes": sa.Integer(),
    "crc": sa.BigInteger(),
    "first_at": sa.BigInteger(),
    "last_at": sa.BigInteger(),
    "encoding": sa.SmallInteger(),
    "plain_bytes": sa.Integer(),
    "data_crc": sa.BigInteger(),
}


def upgrade() -> None:
    """Add what a block says about itself, and pack what is there."""
    with op.batch_alter_table("logs") as table:
        for name, kind in _NEW.items():
            table.add_column(sa.Column(name, kind, nullable=False, server_default="0"))
    _pack_all(op.get_bind())
    with op.batch_alter_table("logs") as table:
        for name in _NEW:
            table.alter_column(name, server_default=None)


def _pack_all(connection: sa.Connection) -> None:
    keys: list[sa.ColumnClause[Any]] = [
        sa.column(name) for name in ("task_key", "attempt", "first_line")
    ]
    logs = sa.table("logs", *keys, sa.column("data"), *map(sa.column, _NEW))
    after: tuple[Any, ...] = (0, 0, 0)
    while True:
        query = sa.select(*keys, logs.c.data).where(sa.tuple_(*keys) > after)
        rows = connection.execute(query.order_by(*keys).limit(_STEP)).all()
        for row in rows:
            after = tuple(row[:3])
            same = sa.and_(*(key == value for key, value in zip(keys, after, strict=True)))
            connection.execute(sa.update(logs).where(same).values(_packed(json.loads(row.data))))
        if len(rows) < _STEP:
            return


def _packed(lines: list[list[Any]]) -> dict[str, Any]:
    parts: list[bytes] = []
    text_size = text_crc = 0
    for at, stream, level, text, raw, continued in lines:
        exact = (bytes.fromhex(raw) or text.encode()) + b"\n"
        text_size, text_crc = text_size + len(exact), zlib.crc32(exact, text_crc)
        named = level.encode()
        head = _RUN.pack(at, _STREAMS[stream], int(continued), len(named), 1, len(exact))
        parts += [head, named, exact]
    data = b"".join(parts)
    times = [line[0] for line in lines]
    return {
        "text_bytes": text_size,
        "crc": text_crc,
        "first_at": min(times, default=0),
        "last_at": max(times, default=0),
        "encoding": _PLAIN,
        "plain_bytes": len(data),
        "data": data,
        "data_crc": zlib.crc32(data),
    }
