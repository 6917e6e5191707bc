"""Reads an attempt's output from its spool, from any place in it, line by line."""

import base64
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from agent.log_lines import Line, LineCutter, Partial
from agent.spool import GONE, RECORD, AttemptFolder

_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """A border between two records, and all that is needed to go on from it."""

    segment: int = 0
    offset: int = 0
    lines: int = 0
    bytes: int = 0
    crc32: int = 0
    partials: dict[int, Partial] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the place as the spool keeps it."""
        return {
            "segment": self.segment,
            "offset": self.offset,
            "lines": self.lines,
            "bytes": self.bytes,
            "crc32": self.crc32,
            "partials": {
                str(stream): [partial.time, base64.b64encode(partial.data).decode()]
                for stream, partial in self.partials.items()
            },
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Place":
        """Returns the place that `to_json` wrote."""
        partials = {
            int(stream): Partial(time, base64.b64decode(data))
            for stream, (time, data) in value["partials"].items()
        }
        return cls(**{**value, "partials": partials})


@dataclass(frozen=True, slots=True)
class PlacedLine:
    """A line and the last border before the record that ended it."""

    line: Line
    place: Place


class LogReader:
    """Follows one attempt's segments."""

    def __init__(self, folder: AttemptFolder, place: Place) -> None:
        self._folder = folder
        self._segment = place.segment
        self._offset = place.offset
        self._cutter = LineCutter(place.lines, place.bytes, place.crc32, place.partials)
        self._buffer = b""
        self._used = 0
        self._ready: deque[PlacedLine] = deque()
        self.finished = False

    @property
    def place(self) -> Place:
        """The border after the last record that was read."""
        cutter = self._cutter
        return Place(
            self._segment,
            self._offset,
            cutter.lines,
            cutter.bytes,
            cutter.crc32,
            dict(cutter.partials),
        )

    @property
    def next_place(self) -> Place:
        """The last border from which the next line can be read again."""
        return self._ready[0].place if self._ready else self.place

    def next_line(self) -> PlacedLine | None:
        """Returns the next line, or None when the spool has no further one now."""
        while not self._ready:
            before = self.place
            record = None if self.finished else self._record()
            if record is None:
                return None
            for line in self._cutter.feed(*record):
                self._ready.append(PlacedLine(line, before))
        return self._ready.popleft()

    def skip_to_end(self) -> None:
        """Counts what follows without building lines: an end must not wait for a long log."""
        self._ready.clear()
        while (record := self._record()) is not None:
            self._cutter.count(*record)

    def finish(self) -> None:
        """Ends lines that have no end; call it when no more output can come and all was read."""
        if not self.finished:
            before = self.place
            self.finished = True
            self._ready.extend(PlacedLine(line, before) for line in self._cutter.finish())

    def _record(self) -> tuple[int, int, bytes] | None:
        found = self._whole_record()
        if found is None:
            following = [number for number in self._folder.segments() if number > self._segment]
            if following:
                # Now that there is a next segment this one is complete, but it may have grown
                # between the look at it and the look for the next.
                found = self._whole_record()
                if found is None:
                    self._segment, self._offset = following[0], 0
                    self._buffer, self._used = b"", 0
                    found = self._whole_record()
        return found

    def _whole_record(self) -> tuple[int, int, bytes] | None:
        head = self._take(RECORD.size)
        if head is None:
            return None
        time, stream, length = RECORD.unpack(head)
        record = self._take(RECORD.size + length)
        if record is None:
            return None
        self._used += len(record)
        self._offset += len(record)
        return time, stream, record[RECORD.size :]

    def _take(self, size: int) -> bytes | None:
        """Returns the next bytes without stepping over them, or None when they are not there."""
        if len(self._buffer) - self._used < size:
            self._fill(size)
        if len(self._buffer) - self._used < size:
            return None
        return self._buffer[self._used : self._used + size]

    def _fill(self, size: int) -> None:
        try:
            with self._folder.segment(self._segment).open("rb") as file:
                file.seek(self._offset)
                self._buffer, self._used = file.read(max(_READ_BYTES, size)), 0
        except GONE:
            self._buffer, self._used = b"", 0


def summarize(folder: AttemptFolder, place: Place) -> Place:
    """Reads on to the end of a complete spool and returns the counts there."""
    reader = LogReader(folder, place)
    reader.skip_to_end()
    reader.finish()
    return reader.place
