"""Moves what a task prints from its pipes into its spool folder."""

import contextlib
import errno
import os
import selectors
import shutil
import threading
import time
from collections.abc import Callable
from typing import IO

from agent.spool import RECORD, SEGMENT_BYTES, AttemptFolder
from agent.supervisor.masking import Mask

_READ_BYTES = 64 * 1024
_READS_AT_THE_END = 64
"""Reads that empty any full pipe; a writer that cannot be found may never stop."""

_LOOK_AGAIN = 0.2
"""Seconds between looks at a full spool or disk."""


class OutputWriter:
    """Appends records to an attempt's segments, and waits while there is no room.

    Waiting is the back-pressure: the pipe fills and the task slows down, nothing is dropped.
    """

    def __init__(self, folder: AttemptFolder, limit: int, spare: int, segment_bytes: int) -> None:
        self._folder = folder
        self._limit = limit
        self._spare = spare
        self._segment_bytes = min(segment_bytes, SEGMENT_BYTES)
        self.segment = 0
        self.offset = 0
        self._file: int | None = None
        self._last_words = False

    def take_last_words(self) -> None:
        """Stops minding the bound: the task has ended, only what its pipes hold is left to come."""
        self._last_words = True

    def append(self, stream: int, data: bytes) -> None:
        """Writes one record; returns when it is whole in the file."""
        record = RECORD.pack(time.time_ns() // 1_000_000, stream, len(data)) + data
        while True:
            file = self._open()
            try:
                written = os.pwrite(file, record, self.offset)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                written = 0
            if written == len(record):
                self.offset += written
                return
            # A reader takes half a record for the end of the output; it is written again whole.
            time.sleep(_LOOK_AGAIN)

    def close(self) -> None:
        """Closes the segment that is open."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        if self._file is not None and self.offset >= self._segment_bytes:
            self.close()
            self.segment += 1
            self.offset = 0
        while self._file is None:
            if self._room():
                with contextlib.suppress(OSError):
                    path = self._folder.segment(self.segment)
                    self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
                    break
            time.sleep(_LOOK_AGAIN)
        return self._file

    def _room(self) -> bool:
        # The newest segment does not count: the session lets go of one only when there is a next.
        full = self._folder.segments()[:-1]
        held = sum(_size(self._folder, number) for number in full)
        bounded = held < self._limit or self._last_words
        return bounded and shutil.disk_usage(self._folder.path).free >= self._spare


class Pump(threading.Thread):
    """Reads a task's pipes until both have ended, or until told that nobody writes any more."""

    def __init__(
        self,
        pipes: dict[int, IO[bytes]],
        writer: OutputWriter,
        mask: Mask,
        grew: Callable[[], None],
    ) -> None:
        super().__init__(name="pump", daemon=True)
        self._pipes = pipes
        self._writer = writer
        self._mask = mask
        self._grew = grew
        self._closing = threading.Event()

    def finish(self, patience: float) -> None:
        """Waits for the pipes' ends; after `patience` seconds takes only what is in them.

        A process that cannot be found may hold a pipe open for ever, and must not hang the end.
        """
        self._writer.take_last_words()
        self.join(patience)
        self._closing.set()
        self.join()

    def run(self) -> None:
        """Pumps."""
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
            self._grew()


def _size(folder: AttemptFolder, segment: int) -> int:
    try:
        return folder.segment(segment).stat().st_size
    except FileNotFoundError:  # the session deletes what the server has
        return 0
