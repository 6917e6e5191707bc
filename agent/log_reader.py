"""Reads an attempt's output from its spool, from any place in it, record by record."""

import base64
from dataclasses import dataclass, field
from typing import Any

from agent.log_lines import LineCutter, Partial, Run
from agent.spool import RECORD, STREAMS, AttemptFolder

_READ_BYTES = 256 * 1024
_LARGEST_COUNT = 1 << 53
_LONGEST_RECORD = 8 * 1024 * 1024
"""Bytes; the supervisor's are far shorter."""


def count(value: object) -> int:
    """Returns a value that is a count of something.

    Raises:
        ValueError: It is none.
    """
    if type(value) is not int or not 0 <= value < _LARGEST_COUNT:
        raise ValueError(f"no count: {value!r:.40}")
    return value


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
        """Returns the place that `to_json` wrote.

        Raises:
            ValueError: Somebody else wrote it.
        """
        try:
            partials = {
                int(stream): Partial(count(time), base64.b64decode(data))
                for stream, (time, data) in value["partials"].items()
            }
            counts = {name: count(value[name]) for name in value.keys() - {"partials"}}
            place = cls(**counts, partials=partials)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("no place in an output") from error
        if place.crc32 >= 1 << 32 or not partials.keys() <= STREAMS.keys():
            raise ValueError("no place in an output")
        return place


class LogReader:
    """Follows one attempt's segments."""

    def __init__(self, folder: AttemptFolder, place: Place) -> None:
        self._folder = folder
        self._segment = place.segment
        self._offset = place.offset
        self._cutter = LineCutter(place.lines, place.bytes, place.crc32, place.partials)
        self._buffer = b""
        self._used = 0
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
    def lines(self) -> int:
        """Lines read so far."""
        return self._cutter.lines

    def read(self) -> list[Run] | None:
        """Returns the lines that the next record ends, or None when there is no record now."""
        record = None if self.finished else self._record()
        return None if record is None else self._cutter.feed(*record)

    def skip_to_end(self) -> None:
        """Counts what follows: an end must not wait until a long log is sent."""
        while self.read() is not None:
            pass

    def finish(self) -> list[Run]:
        """Returns lines that have no end; call it when no more output can come."""
        self.finished = True
        return self._cutter.finish()

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
        if not self._has(RECORD.size):
            return None
        time, stream, length = RECORD.unpack_from(self._buffer, self._used)
        if time >= _LARGEST_COUNT or stream not in STREAMS or length > _LONGEST_RECORD:
            return None  # the task's own words: the output ends here
        size = RECORD.size + length
        if not self._has(size):
            return None
        end = self._used + size
        data = self._buffer[self._used + RECORD.size : end]
        self._used, self._offset = end, self._offset + size
        if end == len(self._buffer):  # a reader that waits holds no memory
            self._buffer, self._used = b"", 0
        return time, stream, data

    def _has(self, size: int) -> bool:
        """Tells whether the next bytes are there, after a look at the file if need be."""
        if len(self._buffer) - self._used < size:
            self._fill(size)
        return len(self._buffer) - self._used >= size

    def _fill(self, size: int) -> None:
        wanted = max(_READ_BYTES, size)
        self._buffer, self._used = self._folder.output(self._segment, self._offset, wanted), 0


def summarize(folder: AttemptFolder, place: Place) -> Place:
    """Reads on to the end of a complete spool and returns the counts there."""
    reader = LogReader(folder, place)
    reader.skip_to_end()
    reader.finish()
    return reader.place
