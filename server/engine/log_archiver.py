"""Writes closed logs as compressed lines of JSON by day, hour and level, for whoever collects them.

Every log is written at least once. A batch that was not finished, because the server was killed or
the disk was full, is written again under the same names, by whichever server takes it. One that is
done is not written again, for by then its logs may be gone: before each file the claim is renewed.
"""

import asyncio
import gzip
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from server import metrics
from server.domain.errors import DamagedLog, MusterError, NotFound
from server.domain.log import LogLine
from server.domain.log_archiving import (
    ArchiveBatch,
    ArchivedLog,
    ClaimArchive,
    folder_of,
    record_of,
)
from server.engine.chore_loop import ChoreLoop
from server.engine.room import SpareRoom
from server.engine.writer import Writer
from server.stores.interfaces import BlobStore, LogPage, Reader

PAGE = 10_000
AHEAD = 4
"""Logs whose first pages are read at a time: most logs have no other."""

PART_BYTES = 8 * 1024 * 1024
"""Text after which the files of a batch are written and others are begun."""

PREFIX = "archive/"

log = structlog.get_logger(__name__)


class LogArchiver:
    """See the module."""

    def __init__(self, writer: Writer, reader: Reader, blobs: BlobStore) -> None:
        self._reader = reader
        self._blobs = blobs
        room = SpareRoom(blobs, "log_archive")
        self._chores: ChoreLoop[ArchiveBatch] = ChoreLoop(
            "log archiver", writer, room, ClaimArchive
        )

    async def run(self) -> None:
        """Archive until cancelled."""
        while True:
            await self._chores.round(self._write)

    async def archive(self) -> int:
        """Archive what is due; return how many logs."""
        return await self._chores.do(self._write)

    async def _write(self, batch: ArchiveBatch) -> int:
        parts = _Parts(self._blobs, batch.claim.name, self._chores.renew)
        for start in range(0, len(batch.logs), AHEAD):
            await self._write_some(batch.logs[start : start + AHEAD], parts)
        await parts.end()
        metrics.logs_archived.inc(len(batch.logs))
        return len(batch.logs)

    async def _write_some(self, logs: Sequence[ArchivedLog], parts: "_Parts") -> None:
        """Write logs one after the other; their first pages are read together."""
        async with asyncio.TaskGroup() as tasks:
            firsts = [tasks.create_task(self._first_page(each)) for each in logs]
        for each, first in zip(logs, firsts, strict=True):
            try:
                await self._write_log(each, first.result(), parts)
            except NotFound:
                continue  # it was deleted
            except DamagedLog as error:
                log.warning("log_not_archived", task=each.task_id, reason=str(error))

    async def _first_page(self, each: ArchivedLog) -> LogPage | MusterError:
        """Return a log's first lines, or why they cannot be read."""
        try:
            return await self._page(each, 1)
        except MusterError as error:
            return error

    async def _page(self, each: ArchivedLog, line: int) -> LogPage:
        return await self._reader.log(each.namespace, each.task_id, each.attempt, line, PAGE)

    async def _write_log(
        self, each: ArchivedLog, page: LogPage | MusterError, parts: "_Parts"
    ) -> None:
        """Write a log, whose first page was read.

        Raises:
            NotFound: it is gone.
            DamagedLog: it is damaged; what lies before is written.
        """
        if isinstance(page, MusterError):
            raise page
        while page.lines:
            await parts.add(each, page)
            line = page.first_line + len(page.lines)
            if line > page.total:
                return
            page = await self._page(each, line)


class _Parts:
    """The files of a batch while they are made: where one ends depends on its lines only."""

    def __init__(self, blobs: BlobStore, name: str, renew: Callable[[], Awaitable[None]]) -> None:
        self._blobs = blobs
        self._name = name
        self._renew = renew
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
        """Write what was taken, a file for each hour and level.

        Raises:
            ClaimLost: the batch is not ours any more.
        """
        for folder, records in sorted(self._records.items()):
            name = f"{PREFIX}{folder}/{self._name}-{self._number:04}.jsonl.gz"
            data = await asyncio.to_thread(_packed, records)
            await self._renew()
            await self._blobs.put(name, data)
        self._records.clear()
        self._number += 1
        self._size = 0


def _packed(records: list[bytes]) -> bytes:
    return gzip.compress(b"\n".join(records) + b"\n", mtime=0)
