"""Moves blocks out of the journal: packed together into blobs, with a row that says where.

A log goes once it takes no more; one that grows without end goes piece by piece. So the journal
stays small, and what the server keeps in memory about it.

What cannot be moved stays where it is: a log that cannot be read waits alone, and when the disk is
nearly full all wait, so that the database has room. A block whose disk has failed for an hour is
lost: it moves as a row without data, which readers are told is damaged.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

import structlog

from server.domain.errors import BlockUnreadable, StoreUnavailable
from server.domain.log import LogBlock, LogKey
from server.domain.log_keeping import SealedBlock, SealLogs
from server.domain.moment import Moment
from server.engine.clock import Clock
from server.engine.room import SpareRoom
from server.engine.surviving import survives
from server.engine.writer import Committed, Writer
from server.stores.interfaces import BlobStore, Journal, JournalEntry, Reader
from server.stores.log_blocks import merged

LOOK_EVERY = 1.0
LONGEST_WAIT = 60.0
"""Seconds between two tries at most, while the store takes nothing."""

READ_AGAIN = 60.0
"""Seconds before another look at a log that could not be read."""

LOST_AFTER = 3600.0
"""Seconds for which a block is tried again: a disk that was away for less has lost nothing."""

SEAL_AFTER = 10.0
"""Seconds a closed log waits for others that go into the same blob."""

BLOB_BYTES = 8 * 1024 * 1024
"""Size of a blob, about."""

LONG_BYTES = 16 * 1024 * 1024
"""What an open log may have in the journal before it is moved."""

JOURNAL_BYTES = 256 * 1024 * 1024
"""Size of the journal from which on open logs are moved that keep old files."""

SWEEP_EVERY = 600.0
"""Seconds between looks for blobs that no row speaks of any more."""

SWEEP_STEP = 100
PREFIX = "logs/"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Left:
    """A log that could not be read."""

    since: float
    again: float
    """When it is tried again."""


class LogSealer:
    """See the module."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        journal: Journal,
        blobs: BlobStore,
        clock: Clock,
        limit: int,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._journal = journal
        self._blobs = blobs
        self._clock = clock
        self._limit = limit
        self._room = SpareRoom(blobs, "log_sealing")
        self._closed: dict[LogKey, None] = {}
        self._waiting_since: float | None = None
        self._swept_at: float | None = None
        self._left: dict[LogKey, _Left] = {}

    def committed(self, committed: Committed) -> None:
        """Take in a commit: some logs take no more."""
        if committed.effects.closed_logs:
            self.add(committed.effects.closed_logs)

    def add(self, closed: Iterable[LogKey]) -> None:
        """Note logs that take no more."""
        for key in closed:
            if self._journal.last_line(key):
                self._closed[key] = None
        if self._closed and self._waiting_since is None:
            self._waiting_since = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Seal until cancelled."""
        wait = LOOK_EVERY
        while True:
            await asyncio.sleep(wait)
            wait = next_wait(wait, fine=await survives("log sealer", self.seal))
            await survives("log sweeper", self._sweep_when_due)

    async def seal(self, *, everything: bool = False) -> None:
        """Move what is due; with `everything` all there is."""
        if await self._room.is_there():
            await self._seal(everything=everything)
        await self._journal.tidy()

    async def _seal(self, *, everything: bool) -> None:
        for key in self._journal.logs() if everything else self._long():
            await self._move([key])
        if everything or self._closed_is_due():
            keys, self._closed, self._waiting_since = list(self._closed), {}, None
            try:
                await self._move(keys)
            except BaseException:
                self.add(keys)
                raise

    def _long(self) -> list[LogKey]:
        """Return logs that do not wait until they are closed, or did so and could not be read."""
        now = asyncio.get_running_loop().time()
        journal = self._journal
        again = [key for key, left in self._left.items() if left.again <= now]
        found = [key for key in journal.logs() if journal.bytes_of(key) >= LONG_BYTES]
        if journal.size > JOURNAL_BYTES:
            found += journal.oldest()
        return [*again, *dict.fromkeys(key for key in found if key not in self._left)]

    def _closed_is_due(self) -> bool:
        if self._waiting_since is None:
            return False
        waited = asyncio.get_running_loop().time() - self._waiting_since
        return waited >= SEAL_AFTER or sum(map(self._journal.bytes_of, self._closed)) >= BLOB_BYTES

    async def _move(self, keys: Iterable[LogKey]) -> None:
        """Move logs into as few blobs as their size allows."""
        gathered: list[tuple[LogKey, list[LogBlock]]] = []
        size = 0
        for key in keys:
            blocks: list[LogBlock] = []
            for entry in self._journal.entries(key):
                data = await self._data(entry)
                if data is None:
                    break
                blocks.append(replace(entry.block, data=data))
                size += entry.size
                if size >= BLOB_BYTES:
                    await self._write([*gathered, (key, blocks)])
                    gathered, blocks, size = [], [], 0
            if blocks:
                gathered.append((key, blocks))
        await self._write(gathered)

    async def _data(self, entry: JournalEntry) -> bytes | None:
        """Return a block's data, or None when its log must be left as it is."""
        try:
            data = await self._journal.load(entry)
        except FileNotFoundError:
            return None  # its task was deleted
        except BlockUnreadable as error:
            if self._leave(entry.key, error) < LOST_AFTER:
                return None
            self._journal.give_up(entry)
            return b""
        except StoreUnavailable as error:
            self._leave(entry.key, error)
            return None
        self._left.pop(entry.key, None)
        return data

    def _leave(self, key: LogKey, error: StoreUnavailable) -> float:
        """Try a log that could not be read again later; return for how long it has been so."""
        now = asyncio.get_running_loop().time()
        left = self._left.setdefault(key, _Left(now, now))
        if left.since == now:
            log.warning("log_not_sealed", log=key, reason=str(error))
        left.again = now + READ_AGAIN
        return now - left.since

    async def _write(self, gathered: list[tuple[LogKey, list[LogBlock]]]) -> None:
        if not gathered:
            return
        name = blob_name(self._clock.now())
        rows: list[SealedBlock] = []
        parts: list[bytes] = []
        for key, blocks in gathered:
            rows += await asyncio.to_thread(packed, name, key, blocks, parts)
        await self._blobs.put(name, b"".join(parts))
        await self._writer.submit(SealLogs(tuple(rows), self._limit))
        for key, blocks in gathered:
            self._journal.forget(key, through=blocks[-1].last_line)

    # ---- blobs that nothing needs

    async def _sweep_when_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._swept_at is None or now - self._swept_at >= SWEEP_EVERY:
            self._swept_at = now
            await self.sweep()

    async def sweep(self) -> None:
        """Delete blobs that no row speaks of: of deleted tasks, or from before a crash."""
        await sweep(self._reader, self._blobs, await self._blobs.names(PREFIX))


async def sweep(reader: Reader, blobs: BlobStore, names: Sequence[str]) -> None:
    """Delete those of some blobs that no row speaks of."""
    for start in range(0, len(names), SWEEP_STEP):
        part = names[start : start + SWEEP_STEP]
        for name in set(part) - await reader.used_blobs(part):
            await blobs.delete(name)


def blob_name(now: Moment) -> str:
    """Return a name for a new blob, which tells when it was made."""
    day = datetime.fromtimestamp(now / 1000, UTC).date().isoformat()
    return f"{PREFIX}{day}/{now}-{uuid4().hex}"


def packed(
    name: str, key: LogKey, blocks: Sequence[LogBlock], parts: list[bytes]
) -> list[SealedBlock]:
    """Append consecutive blocks of a log, merged, to the parts of a blob; return where they lie."""
    offset = sum(map(len, parts))
    found = []
    for block in merged(blocks):
        size = len(block.data)
        found.append(SealedBlock(key, replace(block, data=b""), name, offset, size))
        parts.append(block.data)
        offset += size
    return found


def next_wait(wait: float, *, fine: bool) -> float:
    """Return how many seconds to wait after a round: twice as long as before when it failed."""
    return LOOK_EVERY if fine else min(2 * wait, LONGEST_WAIT)
