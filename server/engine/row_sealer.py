"""Packs the rows of closed logs into blobs, where several servers share database and blobs.

Whoever takes a batch packs it; one that was not finished is taken again by any server. A blob is
written first, then its rows take the place of those that had the data, all in one transaction.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from server.domain.log import LogBlock, LogKey
from server.domain.log_sealing import ClaimRows, PackedPiece, ReplaceRows, RowBatch
from server.domain.moment import Millis, Moment
from server.engine.chore_loop import ChoreLoop
from server.engine.clock import Clock
from server.engine.log_sealer import BLOB_BYTES, PREFIX, SWEEP_EVERY, blob_name, packed, sweep
from server.engine.room import SpareRoom
from server.engine.surviving import survives
from server.engine.writer import Writer
from server.stores.interfaces import BlobStore, Reader, RowPlace

YOUNG: Millis = 3_600_000
"""Age below which a blob that no row speaks of may be one that another server is about to note."""


class RowSealer:
    """See the module."""

    def __init__(self, writer: Writer, reader: Reader, blobs: BlobStore, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._blobs = blobs
        self._clock = clock
        room = SpareRoom(blobs, "row_sealing")
        self._chores: ChoreLoop[RowBatch] = ChoreLoop("row sealer", writer, room, ClaimRows)
        self._swept_at: float | None = None

    async def run(self) -> None:
        """Pack until cancelled."""
        while True:
            await self._chores.round(self._move)
            await survives("log sweeper", self._sweep_when_due)

    async def seal(self) -> int:
        """Pack what is due; return how many logs."""
        return await self._chores.do(self._move)

    async def _move(self, batch: RowBatch) -> int:
        after: RowPlace = (0, 0, 0)
        while pieces := await self._reader.blocks_in_rows(batch.keys, after, BLOB_BYTES):
            await self._write(pieces)
            key, blocks = pieces[-1]
            after = (*key, blocks[-1].first_line)
        return len(batch.keys)

    async def _write(self, gathered: Sequence[tuple[LogKey, Sequence[LogBlock]]]) -> None:
        name = blob_name(self._clock.now())
        parts: list[bytes] = []
        pieces: list[PackedPiece] = []
        for key, blocks in gathered:
            rows = tuple(replace(block, data=b"") for block in blocks)
            sealed = await asyncio.to_thread(packed, name, key, blocks, parts)
            pieces.append(PackedPiece(key, rows, tuple(sealed)))
        await self._chores.renew()
        await self._blobs.put(name, b"".join(parts))
        await self._writer.submit(ReplaceRows(tuple(pieces)))

    # ---- blobs that nothing needs

    async def _sweep_when_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._swept_at is None or now - self._swept_at >= SWEEP_EVERY:
            self._swept_at = now
            await self.sweep()

    async def sweep(self) -> None:
        """Delete blobs that no row speaks of and that are not new."""
        before = self._clock.now() - YOUNG
        names = await self._blobs.names(PREFIX)
        await sweep(self._reader, self._blobs, [n for n in names if _made_at(n) < before])


def _made_at(name: str) -> Moment:
    """Return when a blob was made; see `blob_name`."""
    moment = name.rpartition("/")[2].partition("-")[0]
    return int(moment) if moment.isdecimal() else 0
