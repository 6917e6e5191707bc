"""Writes closed logs as compressed lines of JSON by day, hour and level, for whoever collects them.

Every log is written at least once. A batch that was not finished, because the server was killed or
the disk was full, is written again under the same names, by whichever server takes it.
"""

import asyncio
import gzip
from collections import defaultdict
from collections.abc import Iterable
from uuid import uuid4

import structlog

from server import metrics
from server.domain.chores import EndChores
from server.domain.errors import DamagedLog, NotFound
from server.domain.log import LogLine
from server.domain.log_archiving import (
    ArchiveBatch,
    ArchivedLog,
    ClaimArchive,
    folder_of,
    record_of,
)
from server.engine.room import SpareRoom
from server.engine.surviving import survives
from server.engine.writer import Writer
from server.stores.interfaces import BlobStore, LogPage, Reader

LOOK_EVERY = 10.0
LONGEST_WAIT = 60.0
STEP_PAUSE = 0.05
"""Seconds between two batches: new work comes first."""

PAGE = 10_000
PART_BYTES = 8 * 1024 * 1024
"""Text after which the files of a batch are written and others are begun."""

PREFIX = "archive/"

log = structlog.get_logger(__name__)


class LogArchiver:
    """See the module."""

    def __init__(self, writer: Writer, reader: Reader, blobs: BlobStore) -> None:
        self._writer = writer
        self._reader = reader
        self._blobs = blobs
        self._room = SpareRoom(blobs, "log_archive")
        self._unfinished: ArchiveBatch | None = None

    async def run(self) -> None:
        """Archive until cancelled."""
        wait = LOOK_EVERY
        while True:
            await asyncio.sleep(wait)
            fine = await survives("log archiver", self.archive)
            wait = LOOK_EVERY if fine else min(2 * wait, LONGEST_WAIT)

    async def archive(self) -> int:
        """Archive what is due; return how many logs."""
        archived = 0
        while await self._room.is_there():
            batch = self._unfinished or await self._writer.submit(ClaimArchive(uuid4().hex))
            if batch is None:
                break
            self._unfinished = batch
            await self._write(batch)
            await self._writer.submit(EndChores(batch.name))
            self._unfinished = None
            archived += len(batch.logs)
            metrics.logs_archived.inc(len(batch.logs))
            await asyncio.sleep(STEP_PAUSE)
        return archived

    async def _write(self, batch: ArchiveBatch) -> None:
        parts = _Parts(self._blobs, batch.name)
        for each in batch.logs:
            try:
                await self._write_log(each, parts)
            except NotFound:
                continue  # it was deleted
            except DamagedLog as error:
                log.warning("log_not_archived", task=each.task_id, reason=str(error))
        await parts.end()

    async def _write_log(self, each: ArchivedLog, parts: "_Parts") -> None:
        """Write a log.

        Raises:
            NotFound: it is gone.
            DamagedLog: it is damaged; what lies before is written.
        """
        line = 1
        while True:
            page = await self._reader.log(each.namespace, each.task_id, each.attempt, line, PAGE)
            if not page.lines:
                return
            await parts.add(each, page)
            line = page.first_line + len(page.lines)


class _Parts:
    """The files of a batch while they are made: where one ends depends on its lines only."""

    def __init__(self, blobs: BlobStore, name: str) -> None:
        self._blobs = blobs
        self._name = name
        self._number = 1
        self._size = 0
        self._records: defaultdict[str, list[bytes]] = defaultdict(list)

    async def add(self, each: ArchivedLog, page: LogPage) -> None:
        """Take a page's lines."""
        numbered = enumerate(page.lines, page.first_line)
        while await asyncio.to_thread(self._take, each, numbered):
            await self.end()

    def _take(self, each: ArchivedLog, numbered: Iterable[tuple[int, LogLine]]) -> bool:
        """Take lines until there are no more, or the part is full; return whether it is."""
        for number, line in numbered:
            record = record_of(each, number, line)
            self._records[folder_of(line)].append(record)
            self._size += len(record)
            if self._size >= PART_BYTES:
                return True
        return False

    async def end(self) -> None:
        """Write what was taken, a file for each hour and level."""
        for folder, records in sorted(self._records.items()):
            name = f"{PREFIX}{folder}/{self._name}-{self._number:04}.jsonl.gz"
            await self._blobs.put(name, await asyncio.to_thread(_packed, records))
        self._records.clear()
        self._number += 1
        self._size = 0


def _packed(records: list[bytes]) -> bytes:
    return gzip.compress(b"\n".join(records) + b"\n", mtime=0)
