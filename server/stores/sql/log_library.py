"""A log's blocks wherever they are kept: in rows, in blobs, or still in the journal."""

from contextlib import aclosing
from dataclasses import replace

from server.domain.log import LogBlock, LogKey
from server.domain.moment import Moment
from server.stores.interfaces import BlobStore, JournalEntry
from server.stores.log_blocks import PageOfLines, first_since
from server.stores.log_journal import LogJournal
from server.stores.sql import log_rows
from server.stores.sql.database import SqlDatabase
from server.stores.sql.log_rows import StoredBlock


class LogLibrary:
    """Finds blocks. What moves from the journal into rows meanwhile is found in either."""

    def __init__(
        self, database: SqlDatabase, journal: LogJournal | None, blobs: BlobStore | None
    ) -> None:
        self._database = database
        self._journal = journal
        self._blobs = blobs

    def last_line(self, key: LogKey) -> int:
        """Return the last line in the journal, 0 for none; the database knows of older ones."""
        return self._journal.last_line(key) if self._journal else 0

    async def fill(self, key: LogKey, page: PageOfLines) -> None:
        """Let a page take a log's blocks in order until it is full or there are no more.

        Raises:
            DamagedLog: what the page wants first is not what was stored.
        """
        while not page.full:
            # The journal first: what it lets go of afterwards is in rows by then.
            entries = self._entries(key, page.next_line)
            if not entries or entries[0].block.first_line > page.next_line:
                await self._fill_from_rows(key, page)
            try:
                for entry in entries:
                    if not page.full and entry.block.last_line >= page.next_line:
                        page.take(await self._load(entry))
            except FileNotFoundError:
                continue  # by now it is in rows
            return

    async def _fill_from_rows(self, key: LogKey, page: PageOfLines) -> None:
        async with (
            self._database.reading() as connection,
            aclosing(log_rows.blocks(connection, *key, page.next_line)) as blocks,
        ):
            async for stored in blocks:
                page.take(await self._open(stored))
                if page.full:
                    return

    async def line_since(self, key: LogKey, moment: Moment) -> int | None:
        """Return the number of the first line that was read at a moment or later, or None.

        Raises:
            DamagedLog: the block that should have it is not what was stored.
        """
        while True:
            entries = self._entries(key, 1)
            async with self._database.reading() as connection:
                stored = await log_rows.block_since(connection, *key, moment)
            if stored is not None:
                return first_since(await self._open(stored), moment)
            entry = next((entry for entry in entries if entry.block.last_at >= moment), None)
            if entry is None:
                return None
            try:
                return first_since(await self._load(entry), moment)
            except FileNotFoundError:
                continue  # by now it is in rows

    async def _open(self, stored: StoredBlock) -> LogBlock:
        """Return a block with its data, wherever that lies."""
        if stored.blob is None or self._blobs is None:
            return stored.block
        data = await self._blobs.get(stored.blob, stored.offset, stored.size)
        return replace(stored.block, data=data)

    def _entries(self, key: LogKey, line: int) -> list[JournalEntry]:
        return self._journal.entries(key, line) if self._journal else []

    async def _load(self, entry: JournalEntry) -> LogBlock:
        if self._journal is None:
            raise LookupError("there is no journal")
        return replace(entry.block, data=await self._journal.load(entry))
