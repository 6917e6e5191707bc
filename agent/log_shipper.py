"""Uploads one attempt's log: which lines to send next, and what the server's answers mean."""

import contextlib
from collections import deque
from dataclasses import dataclass

from grpc import StatusCode

from agent.backoff import Backoff
from agent.log_block import BlockBuilder
from agent.log_lines import Run
from agent.log_reader import LogReader, Place, count
from agent.rpc import is_transient, status_code
from agent.spool import POSITION, AttemptFolder
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2

_BLOCK_BYTES = 256 * 1024
_BATCHES_IN_FLIGHT = 4

_POSITION_ERRORS = (StatusCode.FAILED_PRECONDITION, StatusCode.OUT_OF_RANGE)


@dataclass(slots=True)
class _Batch:
    """A batch the server has not answered."""

    first: int
    last: int
    place: Place
    stale: bool = False


class LogShipper:
    """One attempt's log on its way to the server.

    Attributes:
        acked: Lines that are durable at the server.
        total: Place at the end of the log, once that is known.
        refused: Whether the server will never take the rest.
        superseded: Whether the lease is not current: the rest goes only while the server takes it.
    """

    def __init__(self, lease_id: str, task_id: str, folder: AttemptFolder) -> None:
        self._lease_id = lease_id
        self._task_id = task_id
        self._folder = folder
        self._saved, self.acked = _saved(folder)
        self._base = self._saved
        self.total: Place | None = None
        self.refused = False
        self.superseded = False
        self.reader = LogReader(folder, self._saved)
        self._ended = False
        self._in_flight: deque[_Batch] = deque()
        self._position_known = False
        self._paused = False
        self._backoff = Backoff()

    @property
    def done(self) -> bool:
        """Whether nothing remains to be sent."""
        return self.refused or (self.total is not None and self.acked >= self.total.lines)

    def end(self) -> None:
        """Notes that the spool is complete."""
        self._ended = True

    def summary(self) -> agent_pb2.LogSummary:
        """Returns what the whole log amounts to; the total must be known."""
        total = self.total or Place()
        return agent_pb2.LogSummary(lines=total.lines, bytes=total.bytes, crc32=total.crc32)

    def next_batch(self) -> stream_pb2.LogData | None:
        """Returns the next batch to send, or None when there is none now."""
        # Until the server has told its position, more than one batch may be for nothing.
        window = _BATCHES_IN_FLIGHT if self._position_known else 1
        if self.refused:
            self._discard()
        if self.refused or self._paused or len(self._in_flight) >= window:
            return None
        place, block = self._gather()
        if not block.lines:
            self._let_go()
            return None
        packed = block.build()
        first = packed.first_line
        self._in_flight.append(_Batch(first, first + packed.lines - 1, place))
        return stream_pb2.LogData(job_id=self._task_id, lease_id=self._lease_id, block=packed)

    def acknowledge(self, ack: stream_pb2.LogAck) -> float | None:
        """Takes the answer to the oldest batch.

        Returns:
            Seconds after which to call `resume`, when the server is to be left alone for a while.
        """
        if not self._in_flight:
            return None
        batch = self._in_flight.popleft()
        self._advance(ack.acked_through, batch)
        code = status_code(ack.error_code)
        if code is StatusCode.OK:
            self._taken(batch)
        elif is_transient(code):
            if not batch.stale:
                self._rewind(self.acked)
                self._paused = True
                return self._backoff.next()
        elif code in _POSITION_ERRORS:
            self._misplaced(batch, ack.acked_through)
        else:
            self.refused = True
        return None

    def resume(self) -> None:
        """Goes on after a pause."""
        self._paused = False

    def reconnect(self) -> None:
        """Goes on from the server's position over a new stream; old answers will not come."""
        if self._in_flight:
            self._rewind(self.acked)
        self._in_flight.clear()
        self._position_known = False
        self._paused = False

    def _gather(self) -> tuple[Place, BlockBuilder]:
        """Reads the next block; returns the last border before its first line with it."""
        place = self.reader.place
        block = BlockBuilder(max(place.lines, self.acked) + 1)
        while block.size < _BLOCK_BYTES:
            number = self.reader.lines
            runs = self._read()
            if runs is None:
                break
            for run in runs:
                known = max(0, self.acked - number)  # lines that the server has already
                number += run.lines
                if known < run.lines:
                    block.add(run.after(known) if known else run)
            if not block.lines:
                place = self.reader.place
        return place, block

    def _read(self) -> list[Run] | None:
        runs = self.reader.read()
        if runs is None and self._ended and not self.reader.finished:
            runs = self.reader.finish()
            self.total = self.reader.place
        return runs

    def _taken(self, batch: _Batch) -> None:
        self._position_known = True
        self._backoff.reset()
        if self.acked < batch.last and not batch.stale:
            # A batch that was taken in part would be a hole. One of which nothing was taken comes
            # after the log was closed, or belongs to an old lease: the same again would do nothing.
            self.refused = self.superseded or self.acked < batch.first
            self._rewind(self.acked)

    def _misplaced(self, batch: _Batch, acked_through: int) -> None:
        if batch.stale:
            return
        if acked_through + 1 == batch.first:
            self.refused = True  # it began where the server stands: something else is wrong
            return
        self._position_known = True
        self._rewind(acked_through)

    def _discard(self) -> None:
        """Reads past what the server will never take, so that the task does not wait for room."""
        while self._read() is not None:
            pass
        self._base = self.reader.place
        self._free()

    def _advance(self, acked_through: int, answered: _Batch) -> None:
        if acked_through <= self.acked:
            return
        self.acked = acked_through
        waiting = [answered] if acked_through < answered.last else []
        waiting += self._in_flight
        places = [batch.place for batch in waiting if not batch.stale]
        self._base = places[0] if places else self.reader.place
        self._free()

    def _let_go(self) -> None:
        """Moves on to where the reader is, once all before it is acknowledged.

        No answer does that when a segment was closed after its last line: on a full disk.
        """
        if not self._in_flight and self.reader.place.lines <= self.acked:
            self._base = self.reader.place
            self._free()

    def _free(self) -> None:
        """Deletes the segments that are done with, once the place to go on from is saved."""
        # While the end is being summed up, a reader of its own still needs what lies ahead.
        if self._base.segment <= self._saved.segment or (self._ended and self.total is None):
            return
        try:
            self._folder.write(POSITION, {"place": self._base.to_json(), "acked": self.acked})
        except OSError:  # no room just now: the next answer tries again
            return
        self._saved = self._base
        for number in self._folder.segments():
            if number < self._saved.segment:
                with contextlib.suppress(OSError):
                    self._folder.segment(number).unlink()
        with contextlib.suppress(OSError):
            self._folder.reserve(POSITION)

    def _rewind(self, acked: int) -> None:
        """Goes back to the line after `acked`; batches in flight do not count any more."""
        place = self._base if self._base.lines <= acked else self._saved
        if place.lines > acked:
            self.refused = True  # the server lost lines that it had acknowledged
            return
        self.acked = acked
        self._base = place
        self.reader = LogReader(self._folder, place)
        for batch in self._in_flight:
            batch.stale = True


def _saved(folder: AttemptFolder) -> tuple[Place, int]:
    """Returns the place to go on from and the lines that are durable, as an earlier session did."""
    saved = folder.read(POSITION)
    if saved is not None:
        with contextlib.suppress(KeyError, ValueError):  # the task's own words
            return Place.from_json(saved["place"]), count(saved["acked"])
    return Place(), 0
