"""Cuts a task's output into numbered lines; the same bytes give the same lines, always."""

import zlib
from dataclasses import dataclass

LONGEST_LINE = 256 * 1024
"""Bytes after which a line goes on as another numbered piece."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line, or one piece of a long one."""

    number: int
    time: int
    stream: int
    data: bytes
    continued: bool


@dataclass(frozen=True, slots=True)
class Partial:
    """A line that has begun and not ended."""

    time: int
    data: bytes


class LineCutter:
    """Cuts records into lines and counts what the log amounts to.

    Attributes:
        lines: Lines so far.
        bytes: Bytes of all lines, each with one more for its end.
        crc32: CRC-32 over each line's bytes followed by one line feed.
        partials: The open line of each stream that has one.
    """

    def __init__(
        self,
        lines: int = 0,
        total_bytes: int = 0,
        crc32: int = 0,
        partials: dict[int, Partial] | None = None,
    ) -> None:
        self.lines = lines
        self.bytes = total_bytes
        self.crc32 = crc32
        self.partials = dict(partials or {})

    def feed(self, time: int, stream: int, data: bytes) -> list[Line]:
        """Returns the lines that this record ends."""
        *ended, rest = data.split(b"\n")
        found: list[Line] = []
        for part in ended:
            begun = self._grow(found, time, stream, part)
            found.append(self._line(begun.time, stream, begun.data, False))
            self.partials.pop(stream, None)
        if rest:
            self.partials[stream] = self._grow(found, time, stream, rest)
        return found

    def count(self, time: int, stream: int, data: bytes) -> None:
        """Counts the lines that this record ends, without building them."""
        ended = data.rfind(b"\n") + 1
        begun = self.partials.get(stream)
        whole = (begun.data if begun is not None else b"") + data[:ended]
        if not ended or len(whole) > LONGEST_LINE:  # only then may a line be too long
            self.feed(time, stream, data)
            return
        self.lines += whole.count(b"\n")
        self.bytes += len(whole)
        self.crc32 = zlib.crc32(whole, self.crc32)
        self.partials.pop(stream, None)
        if ended < len(data):
            self.partials[stream] = Partial(time, data[ended:])

    def finish(self) -> list[Line]:
        """Returns the lines that had no end, once no more output can come."""
        found = [
            self._line(partial.time, stream, partial.data, False)
            for stream, partial in sorted(self.partials.items())
        ]
        self.partials.clear()
        return found

    def _grow(self, found: list[Line], time: int, stream: int, part: bytes) -> Partial:
        """Returns the stream's open line with a part added; full pieces go to `found`."""
        begun = self.partials.get(stream)
        data = part if begun is None else begun.data + part
        time = time if begun is None else begun.time
        while len(data) > LONGEST_LINE:
            cut = _character_border(data)
            found.append(self._line(time, stream, data[:cut], True))
            data = data[cut:]
        return Partial(time, data)

    def _line(self, time: int, stream: int, data: bytes, continued: bool) -> Line:
        self.lines += 1
        self.bytes += len(data) + 1
        self.crc32 = zlib.crc32(b"\n", zlib.crc32(data, self.crc32))
        return Line(self.lines, time, stream, data, continued)


def _character_border(data: bytes) -> int:
    """Returns where to cut a long line, so that no UTF-8 character is cut in two."""
    for cut in range(LONGEST_LINE, LONGEST_LINE - 4, -1):
        if data[cut] & 0xC0 != 0x80:
            return cut
    return LONGEST_LINE
