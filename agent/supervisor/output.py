"""Moves what a task prints from its pipes into its spool folder."""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from agent.spool import (
    POSITION,
    RECORD,
    SEGMENT_BYTES,
    AttemptFolder,
    has_room,
    is_full,
    may_pass,
    open_plain,
)
from agent.supervisor.limits import Limits
from agent.supervisor.loop import Loop
from agent.supervisor.masking import Mask

_READ_BYTES = 64 * 1024
_MASKED_READ_BYTES = 16 * 1024
"""Less at a time where secrets are looked for: that takes time, and others wait."""

_READS_AT_THE_END = 64
"""Reads that empty any full pipe; a writer that cannot be found may never stop."""

_READS_AT_ONCE = 4
"""Reads of each pipe between which nobody else has a turn."""

_LOOK_AGAIN = 0.2
"""Seconds between looks at a full spool or disk."""


class OutputWriter:
    """Appends records to an attempt's segments, and waits while there is no room.

    Waiting is the back-pressure: the pipe fills and the task slows down, nothing is dropped.

    Attributes:
        dropped: Whether output was lost: its segments are gone or cannot be written any more, as
            when a task deletes its own folder. The task goes on all the same.
    """

    def __init__(self, folder: AttemptFolder, limits: Limits, grew: Callable[[], None]) -> None:
        self._folder = folder
        self._limits = limits
        self._grew = grew
        self.segment = 0
        self.offset = 0
        self.dropped = False
        self._file: int | None = None
        self._unwritten: deque[bytes] = deque()
        self._last_words = False

    def take_last_words(self) -> None:
        """Stops minding the bounds: the task has ended, and what its pipes hold is all there is."""
        self._last_words = True

    @property
    def silent(self) -> bool:
        """Whether there was no output so far."""
        return not (self.segment or self.offset or self.dropped or self._unwritten)

    @property
    def waits(self) -> bool:
        """Whether a record is not written yet, for want of room."""
        return bool(self._unwritten)

    def append(self, stream: int, data: bytes) -> None:
        """Takes one record, which is whole in the file afterwards, or dropped, or waits."""
        head = RECORD.pack(time.time_ns() // 1_000_000, stream, len(data))
        self._unwritten.append(head + data)
        self.write()

    def write(self) -> None:
        """Writes what waits, as far as there is room."""
        while self._unwritten and not self.dropped and self._written(self._unwritten[0]):
            self._unwritten.popleft()
            self._grew()
        if self.dropped and self._unwritten:
            self._unwritten.clear()
            self._grew()

    def close(self) -> None:
        """Closes the segment that is open."""
        file, self._file = self._file, None  # its number may be another's soon, however this goes
        if file is None:
            return
        try:
            # The session deletes only segments that have a next one, which this has not yet.
            self.dropped |= os.fstat(file).st_nlink == 0
            os.close(file)
        except OSError:  # what a disk far away could not take, it says at the end
            self.dropped = True

    def _written(self, record: bytes) -> bool:
        """Writes a record unless there is no room; gives up where waiting cannot help."""
        try:
            return self._write(record)
        except OSError as error:
            self.dropped |= not may_pass(error) or not self._folder.exists
            return False

    def _write(self, record: bytes) -> bool:
        """Writes a record unless there is no room."""
        if self.offset >= min(self._limits.segment_bytes, SEGMENT_BYTES):
            self._begin_next()
        if self._file is None and (self._over_limit() or not self._open()):
            return False
        if self._file is not None and self._spared():
            try:
                written = os.pwrite(self._file, record, self.offset)
            except OSError as error:
                if not is_full(error):
                    raise
                written = 0
            if written == len(record):
                self.offset += written
                return True
            # A reader takes half a record for the end of the output; it is written again whole.
        self._yield_segment()
        return False

    def _yield_segment(self) -> None:
        """Goes on in another segment: the session can give the disk back for whole ones only."""
        if self._file is not None and self.offset > 0:
            os.ftruncate(self._file, self.offset)
            self._begin_next()
            if self._open():
                self._grew()

    def _begin_next(self) -> None:
        self.close()
        self.segment += 1
        self.offset = 0

    def _open(self) -> bool:
        path = self._folder.segment(self.segment)
        try:
            if self.segment == 0:  # with this the session can give segments back on a full disk
                self._folder.reserve(POSITION)
            self._file = open_plain(path, os.O_WRONLY | os.O_CREAT)
        except OSError as error:
            if not may_pass(error):
                raise
        return self._file is not None

    def _spared(self) -> bool:
        # By way of what is open: a task may have put a disk that hangs over its folder.
        where = f"/proc/self/fd/{self._file}"
        return self._last_words or has_room(where, self._limits.spare_disk)

    def _over_limit(self) -> bool:
        if self._last_words:
            return False
        # The newest segment does not count: the session lets go of one only when there is a next.
        full = self._folder.segments()[:-1]
        held = sum(_size(self._folder, number) for number in full)
        return held >= self._limits.spool_bytes


class Pump:
    """Reads a task's pipes until both have ended, or until told that nobody writes any more."""

    def __init__(
        self,
        loop: Loop,
        pipes: Mapping[int, int],
        writer: OutputWriter,
        mask: Mask,
    ) -> None:
        self._loop = loop
        self._pipes = dict(pipes)
        """Those that have not ended: descriptors that do not block, by stream."""
        self._writer = writer
        self._mask = mask
        self._read_bytes = _MASKED_READ_BYTES if mask.hides else _READ_BYTES
        self._ended: Callable[[], None] | None = None
        self._paused = False
        self._takes_rest = False
        self._last_reads = _READS_AT_THE_END
        self._listen()

    @property
    def cut_short(self) -> bool:
        """Whether the pipes had not ended when patience did."""
        return self._takes_rest

    def finish(self, patience: float, ended: Callable[[], None]) -> None:
        """Calls `ended` at the pipes' ends; after `patience` seconds takes only what is in them.

        A process that cannot be found may hold a pipe open for ever, and must not hang the end.
        """
        self._ended = ended
        self._writer.take_last_words()
        self._loop.at(self, time.monotonic() + patience, self._take_rest)
        if self._paused:
            self._go_on()
        self._drain()  # mostly the ends are there already
        self._last_reads = _READS_AT_THE_END
        self._look()

    def _listen(self) -> None:
        for stream, pipe in self._pipes.items():
            self._loop.watch(pipe, partial(self._ready, stream))

    def _ready(self, stream: int) -> None:
        self._read(stream)
        self._look()

    def _take_rest(self) -> None:
        self._takes_rest = True
        if self._drain():
            self._loop.at(self, time.monotonic(), self._take_rest)
        elif not self._writer.waits:
            for stream in list(self._pipes):
                self._shut(stream)
        self._look()

    def _drain(self) -> bool:
        """Reads for one turn and tells whether there may be more to read at once."""
        for _ in range(_READS_AT_ONCE):
            if not self._last_reads or self._writer.waits or not self._read_all():
                return False
            self._last_reads -= 1
        return True

    def _read_all(self) -> bool:
        """Reads each pipe once and tells whether there was something."""
        found = [self._read(stream) for stream in list(self._pipes)]
        return any(found)

    def _read(self, stream: int) -> bool:
        """Reads a pipe once and tells whether there was something."""
        try:
            data = os.read(self._pipes[stream], self._read_bytes)
        except BlockingIOError:
            return False
        if data:
            self._spool(stream, self._mask.feed(stream, data))
        else:
            self._shut(stream)
        return bool(data)

    def _shut(self, stream: int) -> None:
        pipe = self._pipes.pop(stream)
        self._loop.unwatch(pipe)
        os.close(pipe)
        self._spool(stream, self._mask.rest(stream))

    def _spool(self, stream: int, data: bytes) -> None:
        if data:
            self._writer.append(stream, data)

    def _look(self) -> None:
        """Reads no more while something waits for room; tells of the end when it has come."""
        if self._writer.waits:
            if not self._paused:
                self._pause()
        elif not self._pipes and self._ended is not None:
            ended, self._ended = self._ended, None
            self._loop.forget(self)
            self._writer.close()
            ended()

    def _pause(self) -> None:
        self._paused = True
        for pipe in self._pipes.values():
            self._loop.unwatch(pipe)
        self._look_later()

    def _look_later(self) -> None:
        # A disk tells nobody that it has room.
        self._loop.at(self._writer, time.monotonic() + _LOOK_AGAIN, self._go_on)

    def _go_on(self) -> None:
        """Writes what waits, and reads on if that worked."""
        self._writer.write()
        if self._writer.waits:
            self._look_later()
            return
        self._loop.forget(self._writer)
        self._paused = False
        self._listen()
        if self._takes_rest:
            self._take_rest()
        else:
            self._look()


def _size(folder: AttemptFolder, segment: int) -> int:
    try:
        return folder.segment(segment).stat().st_size
    except OSError:  # the session deletes what the server has
        return 0
