"""The journal: blocks of logs that were acknowledged and are not in the blob store yet.

One folder of files for the whole server. Blocks are appended as frames, and all that came while one
fsync ran share the next: the cost of being durable is a few fsyncs a second, however many tasks
print. Where each block lies is kept in memory and found again at the start.

A frame is a magic word, a head with its CRC-32, and the block's data, whose CRC-32 is in the head.
A head names its group by the place where that begins. The last group of a server that was killed
may be torn: it is cut off where it is not whole, for nobody was told that it was durable. A server
that stops in order writes a last frame without a block, so its last group is known to be whole.
Anything else that is not what was written is damage: it is reported, and never served. A file that
could not be read is neither cut nor deleted: when nothing needs it any more it gets another name.
"""

import asyncio
import errno
import os
import struct
import zlib
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from server.domain.errors import BlockUnreadable, Draining, StoreUnavailable
from server.domain.log import Encoding, LogBlock, LogKey
from server.stores.interfaces import JournalEntry

FILE_BYTES = 32 * 1024 * 1024
"""Size at which a file is closed and the next one begun."""

GROUP_BYTES = 8 * 1024 * 1024
"""Most bytes that share one fsync."""

FRESH_BYTES = 8 * 1024 * 1024
"""Newest blocks that stay in memory, for those who follow."""

SPARE_BYTES = 32 * 1024 * 1024
SPARE_SHARE = 40
"""Room that blocks leave on their disk, for the database: so much, or one part in so many of it."""

PAGE_BYTES = 4096
"""What a disk that fails in one place loses at least."""

_LOST = frozenset({errno.ENOENT, errno.EIO, errno.ESTALE})
"""Errors of a read that may be the same for ever: what was there is gone, or away."""

DAMAGED = ".damaged"
"""Ending of a file that could not be read, once nothing needs it: it is for people."""

_MAGIC = b"\xf1\x0cMB"
_HEAD = struct.Struct(">4sIqiqiiIqqBiII")
_CRC = struct.Struct(">I")
_HEAD_BYTES = _HEAD.size + _CRC.size

_NOBODY: LogKey = (0, 0)
_NOTHING = LogBlock(0, 0, 0, 0, 0, 0, Encoding.PLAIN, 0, b"", 0)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Writing:
    """Blocks on their way to the disk."""

    key: LogKey
    blocks: Sequence[LogBlock]
    done: "asyncio.Future[None]"


@dataclass(slots=True)
class _File:
    """One file and what still needs it."""

    path: Path
    size: int = 0
    needed: int = 0
    """Blocks in it that are not kept elsewhere."""
    damaged: bool = False
    """Whether some of it could not be read."""


@dataclass(slots=True)
class Scan:
    """What a look through the files has found."""

    entries: list[JournalEntry] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    unreadable: set[int] = field(default_factory=set)
    """Files of which not all could be read."""


class LogJournal:
    """See the module. Everything but the writing itself happens on the loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._logs: dict[LogKey, list[JournalEntry]] = {}
        self._bytes: defaultdict[LogKey, int] = defaultdict(int)
        self._files: dict[int, _File] = {}
        self._current = 0
        self._descriptor: int | None = None
        self._waiting: deque[_Writing] = deque()
        self._wake = asyncio.Event()
        self._fresh: deque[JournalEntry] = deque()
        self._fresh_bytes = 0
        self._stopping = False
        self.damage: list[str] = []
        """What was found damaged at the start, for people."""

    # ---- start and end

    async def open(self) -> None:
        """Look through what is there, cut a torn end, and begin a new file.

        Raises:
            OSError: the folder cannot be read or written.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = scan(self._folder, cut=True)
        self.damage = found.damage
        for text in found.damage:
            log.error("log_damaged", place=text)
        self._files = {
            number: _File(_path(self._folder, number), size, damaged=number in found.unreadable)
            for number, size in found.sizes.items()
        }
        for entry in found.entries:
            self._index(entry)
        aside = (int(path.name.partition(".")[0]) for path in self._folder.glob(f"*{DAMAGED}"))
        self._current = max([*self._files, *aside], default=0)
        self._begin_file()

    async def run(self) -> None:
        """Write until stopped."""
        loop = asyncio.get_running_loop()
        while not (self._stopping and not self._waiting):
            await self._wake.wait()
            self._wake.clear()
            while group := self._cut():
                try:
                    file, places = await loop.run_in_executor(self._thread, self._write, group)
                except OSError as error:
                    self._fail(group, StoreUnavailable(f"journal: {error.strerror or error}"))
                else:
                    self._written(group, file, places)

    def stop(self) -> None:
        """Take no more; `run` ends when all that waits is written."""
        self._stopping = True
        self._wake.set()

    async def close(self) -> None:
        """Say that the last group was whole, and close the file that is open."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        self._thread.shutdown()

    def _end(self) -> None:
        try:
            end = self._files[self._current].size
            self._put(_head(_NOBODY, _NOTHING, end), end)
        except OSError as error:
            log.error("journal_not_ended", error=str(error))
        self._close_file()

    # ---- writing

    def append(self, key: LogKey, blocks: Sequence[LogBlock]) -> "asyncio.Future[None]":
        """Return a future that is done when these blocks are durable.

        Blocks appended before a failure fail together with all that came after them, so that a log
        never has a hole.

        Raises:
            Draining: the server stops.
        """
        if self._stopping:
            raise Draining
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Writing(key, blocks, done))
        self._wake.set()
        return done

    def _cut(self) -> list[_Writing]:
        group: list[_Writing] = []
        size = 0
        while self._waiting and size < GROUP_BYTES:
            writing = self._waiting.popleft()
            size += sum(len(block.data) for block in writing.blocks)
            group.append(writing)
        return group

    def _write(self, group: Sequence[_Writing]) -> tuple[int, list[int]]:
        """Write blocks and wait until they are on the disk; return file and place of each's data.

        Raises:
            OSError: nothing of them counts as written.
        """
        if self._files[self._current].size >= FILE_BYTES:
            self._begin_file()
        file = self._files[self._current]
        parts: list[bytes] = []
        places: list[int] = []
        offset = file.size
        for writing in group:
            for block in writing.blocks:
                parts += (_head(writing.key, block, file.size), block.data)
                places.append(offset + _HEAD_BYTES)
                offset += _HEAD_BYTES + len(block.data)
        self._leave_room(offset - file.size)
        try:
            self._put(b"".join(parts), file.size)
        except OSError:
            self._begin_file(cut=True)
            raise
        file.size = offset
        return self._current, places

    def _leave_room(self, wanted: int) -> None:
        if self._descriptor is None:
            return
        disk = os.fstatvfs(self._descriptor)
        spare = min(SPARE_BYTES, disk.f_blocks * disk.f_frsize // SPARE_SHARE)
        if disk.f_bavail * disk.f_frsize < wanted + spare:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _put(self, data: bytes, offset: int) -> None:
        if self._descriptor is None:
            raise FileNotFoundError(2, "the journal's file could not be opened")
        if os.fstat(self._descriptor).st_nlink == 0:
            raise FileNotFoundError(2, "the journal's file was deleted")
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written
        os.fdatasync(self._descriptor)

    def _begin_file(self, *, cut: bool = False) -> None:
        """Go on in a new file; with `cut` after a failure, whose remains must not be found again.

        After a failed fsync nobody knows what is on the disk, so nothing more is written there.
        """
        if cut and self._descriptor is not None:
            try:
                os.ftruncate(self._descriptor, self._files[self._current].size)
                os.fsync(self._descriptor)
            except OSError as error:
                log.error("journal_not_cut", error=str(error))
        self._close_file()
        number = self._current + 1
        path = _path(self._folder, number)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            if not cut:
                raise
            return  # the next group tries again
        try:
            _sync_folder(self._folder)
        except OSError:
            # Nothing was written there; the next try begins the same file anew.
            os.close(descriptor)
            path.unlink(missing_ok=True)
            if not cut:
                raise
            return
        self._descriptor = descriptor
        self._current = number
        self._files[number] = _File(path)

    def _close_file(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _written(self, group: Sequence[_Writing], file: int, places: Sequence[int]) -> None:
        offsets = iter(places)
        for writing in group:
            for block in writing.blocks:
                entry = JournalEntry(
                    writing.key,
                    replace(block, data=b""),
                    file,
                    next(offsets),
                    len(block.data),
                    block.data,
                )
                self._index(entry)
                self._keep(entry)
            if not writing.done.done():
                writing.done.set_result(None)

    def _keep(self, entry: JournalEntry) -> None:
        self._fresh.append(entry)
        self._fresh_bytes += entry.size
        while self._fresh_bytes > FRESH_BYTES:
            old = self._fresh.popleft()
            old.fresh = b""
            self._fresh_bytes -= old.size

    def _fail(self, group: Iterable[_Writing], error: StoreUnavailable) -> None:
        later, self._waiting = list(self._waiting), deque()
        for writing in (*group, *later):
            if not writing.done.done():
                writing.done.set_exception(error)

    # ---- the index

    def _index(self, entry: JournalEntry) -> None:
        entries = self._logs.setdefault(entry.key, [])
        # After a failure a log may have been taken up again before what had failed: the later
        # frame is what its agent was told about.
        while entries and entries[-1].block.last_line >= entry.block.first_line:
            self._release(entries.pop())
        entries.append(entry)
        self._bytes[entry.key] += entry.size
        self._files[entry.file].needed += 1

    def _release(self, entry: JournalEntry) -> None:
        self._files[entry.file].needed -= 1
        self._bytes[entry.key] -= entry.size

    def logs(self) -> list[LogKey]:
        """Return the logs that have blocks here."""
        return list(self._logs)

    def entries(self, key: LogKey, first_line: int = 1) -> list[JournalEntry]:
        """Return where a log's blocks are that hold lines from a line on, in order."""
        entries = self._logs.get(key, [])
        return entries[bisect_left(entries, first_line, key=lambda e: e.block.last_line) :]

    def last_line(self, key: LogKey) -> int:
        """Return the last line of a log that is durable here, 0 for none."""
        entries = self._logs.get(key)
        return entries[-1].block.last_line if entries else 0

    def bytes_of(self, key: LogKey) -> int:
        """See interfaces.Journal."""
        return self._bytes.get(key, 0)

    def forget(self, key: LogKey, through: int | None = None) -> None:
        """Let go of a log's blocks up to a line, or of all: they are kept elsewhere, or deleted."""
        entries = self._logs.get(key, [])
        stays = [e for e in entries if through is not None and e.block.last_line > through]
        for entry in entries[: len(entries) - len(stays)]:
            self._release(entry)
        if stays:
            self._logs[key] = stays
        else:
            self._logs.pop(key, None)
            self._bytes.pop(key, None)

    # ---- reading

    async def load(self, entry: JournalEntry) -> bytes:
        """See interfaces.Journal."""
        if entry.fresh:
            return entry.fresh
        path = _path(self._folder, entry.file)
        try:
            return await asyncio.to_thread(_read, path, entry.offset, entry.size)
        except OSError as error:
            if entry not in self.entries(entry.key, entry.block.first_line)[:1]:
                raise FileNotFoundError(entry.file) from None
            there = await asyncio.to_thread(os.access, self._folder, os.R_OK)
            lost = error.errno in _LOST and there
            kind = BlockUnreadable if lost else StoreUnavailable
            raise kind(f"journal: {error.strerror or error}") from error

    def give_up(self, entry: JournalEntry) -> None:
        """See interfaces.Journal."""
        file = self._files[entry.file]
        file.damaged = True
        log.error("log_lost", file=file.path.name, byte=entry.offset)

    # ---- room

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(file.size for file in list(self._files.values()))

    def oldest(self) -> list[LogKey]:
        """Return the logs that keep the oldest full file from being deleted."""
        full = sorted(number for number in list(self._files) if number != self._current)
        if not full:
            return []
        return [key for key, entries in self._logs.items() if entries[0].file == full[0]]

    async def tidy(self) -> None:
        """Delete files that nothing needs, and begin a new one when the current one is full.

        A file that could not be read is put aside instead.
        """
        await self._remove_unneeded()
        if self._files[self._current].size >= FILE_BYTES:
            # After the others, for on a full disk no new file can be made.
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._begin_file)
            await self._remove_unneeded()

    async def _remove_unneeded(self) -> None:
        current, files = self._current, list(self._files.items())
        for number in [n for n, file in files if n < current and not file.needed]:
            await asyncio.to_thread(_remove, self._files.pop(number))


@dataclass(slots=True)
class _Frame:
    """One frame as it was found."""

    entry: JournalEntry
    group: int
    """Where the blocks begin that were written together with it."""
    size: int
    """Bytes of the whole frame."""
    whole: bool
    """Whether the data is what was written."""


def scan(folder: Path, *, cut: bool = False) -> Scan:
    """Look through every file of a journal; with `cut` a torn end of the last one goes."""
    found = Scan()
    paths = sorted(folder.glob("*.log"))
    for path in paths:
        _scan_file(path, found, last=path == paths[-1], cut=cut)
    return found


def _scan_file(path: Path, found: Scan, *, last: bool, cut: bool) -> None:
    data, readable = _all_of(path)
    number = int(path.stem)
    if not readable:
        found.unreadable.add(number)
    frames, gaps = _frames(data, number)
    broken = sorted([*gaps, *(place for place, frame in frames if not frame.whole)])
    end = len(data)
    if last and readable:
        group = frames[-1][1].group if frames else 0
        end = min((place for place in broken if place >= group), default=end)
    for place, frame in frames:
        if place < end and frame.entry.key != _NOBODY:
            found.entries.append(frame.entry)
    found.damage += [f"{path.name}, byte {place}" for place in broken if place < end]
    if end < len(data) and cut:
        log.warning("journal_end_cut", file=path.name, bytes=len(data) - end)
        os.truncate(path, end)
    found.sizes[number] = end


def _all_of(path: Path) -> tuple[bytes, bool]:
    """Return a file's bytes, with zeros where its disk fails, and whether it does nowhere."""
    try:
        return path.read_bytes(), True
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        log.error("log_lost", file=path.name, error=str(error))
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        places = range(0, size, PAGE_BYTES)
        return b"".join(_page_of(file.fileno(), place, size) for place in places), False


def _page_of(descriptor: int, place: int, end: int) -> bytes:
    size = min(PAGE_BYTES, end - place)
    try:
        return os.pread(descriptor, size, place).ljust(size, b"\0")
    except OSError:
        return bytes(size)


def _frames(data: bytes, file: int) -> tuple[list[tuple[int, _Frame]], list[int]]:
    """Return every frame with its place, and the places where there should be one and is none."""
    frames: list[tuple[int, _Frame]] = []
    gaps: list[int] = []
    place = 0
    while place < len(data):
        frame = _frame(data, place, file)
        if frame is not None:
            frames.append((place, frame))
            place += frame.size
            continue
        gaps.append(place)
        following = _next_frame(data, place + 1, file)
        if following is None:
            break
        place = following
    return frames, gaps


def _frame(data: bytes, place: int, file: int) -> _Frame | None:
    """Return the frame at a place, or None when there is no whole head."""
    head_end = place + _HEAD.size
    if place + _HEAD_BYTES > len(data):
        return None
    (crc,) = _CRC.unpack_from(data, head_end)
    if data[place : place + len(_MAGIC)] != _MAGIC or zlib.crc32(data[place:head_end]) != crc:
        return None
    _, group, task, attempt, first, lines, text, text_crc, *rest = _HEAD.unpack_from(data, place)
    first_at, last_at, encoding, plain, data_crc, size = rest
    offset = place + _HEAD_BYTES
    if offset + size > len(data):
        return None
    times = (first_at, last_at)
    kind = Encoding(encoding)
    block = LogBlock(first, lines, text, text_crc, *times, kind, plain, b"", data_crc)
    whole = zlib.crc32(data[offset : offset + size]) == data_crc
    return _Frame(
        JournalEntry((task, attempt), block, file, offset, size), group, _HEAD_BYTES + size, whole
    )


def _next_frame(data: bytes, place: int, file: int) -> int | None:
    """Return where the next whole frame begins after damage, or None."""
    while (place := data.find(_MAGIC, place)) >= 0:
        if _frame(data, place, file) is not None:
            return place
        place += 1
    return None


def _head(key: LogKey, block: LogBlock, group: int) -> bytes:
    head = _HEAD.pack(
        _MAGIC,
        group,
        *key,
        block.first_line,
        block.lines,
        block.text_bytes,
        block.crc,
        block.first_at,
        block.last_at,
        block.encoding,
        block.plain_bytes,
        block.data_crc,
        len(block.data),
    )
    return head + _CRC.pack(zlib.crc32(head))


def _remove(file: _File) -> None:
    if not file.damaged:
        file.path.unlink(missing_ok=True)
    elif file.path.exists():
        aside = file.path.with_name(file.path.name + DAMAGED)
        file.path.replace(aside)
        log.error("journal_file_put_aside", file=aside.name)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:010d}.log"


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
