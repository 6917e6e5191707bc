"""Moves what a task prints from its pipes into its spool folder."""

import os
import selectors
import threading
import time
from collections.abc import Callable
from typing import IO

from agent.spool import POSITION, RECORD, SEGMENT_BYTES, AttemptFolder, has_room, is_full, may_pass
from agent.supervisor.limits import Limits
from agent.supervisor.masking import Mask

_READ_BYTES = 64 * 1024
_READS_AT_THE_END = 64
"""Reads that empty any full pipe; a writer that cannot be found may never stop."""

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
        self._last_words = False

    def take_last_words(self) -> None:
        """Stops minding the bounds: the task has ended, and what its pipes hold is all there is."""
        self._last_words = True

    def append(self, stream: int, data: bytes) -> None:
        """Writes one record; returns when it is whole in the file, or dropped."""
        record = RECORD.pack(time.time_ns() // 1_000_000, stream, len(data)) + data
        while not self.dropped and not self._written(record):
            time.sleep(_LOOK_AGAIN)  # a disk tells nobody that it has room; the pipe waits with us
        self._grew()

    def close(self) -> None:
        """Closes the segment that is open."""
        if self._file is not None:
            # The session deletes only segments that have a next one, which this has not yet.
            self.dropped |= os.fstat(self._file).st_nlink == 0
            os.close(self._file)
            self._file = None

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
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if not may_pass(error):
                raise
        return self._file is not None

    def _spared(self) -> bool:
        return self._last_words or has_room(self._folder.path, self._limits.spare_disk)

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
        pipes: dict[int, IO[bytes]],
        writer: OutputWriter,
        mask: Mask,
    ) -> None:
        self._pipes = pipes
        self._writer = writer
        self._mask = mask
        self._closing = threading.Event()
        self._ended = threading.Event()

    def finish(self, patience: float) -> None:
        """Waits for the pipes' ends; after `patience` seconds takes only what is in them.

        A process that cannot be found may hold a pipe open for ever, and must not hang the end.
        """
        self._writer.take_last_words()
        if not self._ended.wait(patience):
            self._closing.set()
            self._ended.wait()

    def run(self) -> None:
        """Pumps, until the pipes' ends."""
        try:
            self._pump()
        finally:
            self._ended.set()

    def _pump(self) -> None:
        with selectors.DefaultSelector() as selector:
            for stream, pipe in self._pipes.items():
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, stream)
            last_reads = _READS_AT_THE_END
            while selector.get_map() and last_reads:
                closing = self._closing.is_set()
                ready = selector.select(0.0 if closing else 0.5)
                if closing:
                    last_reads = last_reads - 1 if ready else 0
                for key, _ in ready:
                    self._move(selector, key)
        for stream in self._pipes:
            self._spool(stream, self._mask.rest(stream))
        self._writer.close()
        for pipe in self._pipes.values():
            pipe.close()

    def _move(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        try:
            data = os.read(key.fd, _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._spool(key.data, self._mask.feed(key.data, data))
        else:
            selector.unregister(key.fileobj)

    def _spool(self, stream: int, data: bytes) -> None:
        if data:
            self._writer.append(stream, data)


def _size(folder: AttemptFolder, segment: int) -> int:
    try:
        return folder.segment(segment).stat().st_size
    except OSError:  # the session deletes what the server has
        return 0
