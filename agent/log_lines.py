"""Cuts a task's output into numbered lines; the same bytes give the same lines, always.

Lines stay together as they were read: a run is the lines of one read from one stream, as one piece
of bytes. So the work for a thousand lines is a few operations on bytes.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

LONGEST_LINE = 256 * 1024
"""Bytes after which a line goes on as another numbered piece."""


class Run(NamedTuple):
    """Consecutive lines of one stream and one time, or one piece of a long line.

    Attributes:
        text: The lines, each with a line feed behind it.
        continued: Whether the one line of the run goes on in the next line of its stream.
    """

    time: int
    stream: int
    lines: int
    text: bytes
    continued: bool = False

    def after(self, count: int) -> "Run":
        """Returns the run without its first `count` lines."""
        rest = self.text.split(b"\n", count)[count]
        return self._replace(lines=self.lines - count, text=rest)


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

    def feed(self, time: int, stream: int, data: bytes) -> list[Run]:
        """Returns the lines that this record ends, in order."""
        first, last = data.find(b"\n") + 1, data.rfind(b"\n") + 1
        begun = self.partials.pop(stream, None)
        found: list[Run] = []
        if begun is not None:
            if not first:
                self._begin(found, begun.time, stream, begun.data + data)
                return self._counted(found)
            found += _ended(begun.time, stream, begun.data + data[:first])
        whole = data[first:last] if begun is not None else data[:last]
        if len(whole) > LONGEST_LINE:  # only then may a line be too long
            for line in whole[:-1].split(b"\n"):
                found += _ended(time, stream, line + b"\n")
        elif whole:
            found.append(Run(time, stream, whole.count(b"\n"), whole))
        if last < len(data):
            self._begin(found, time, stream, data[last:])
        return self._counted(found)

    def finish(self) -> list[Run]:
        """Returns the lines that had no end, once no more output can come."""
        found: list[Run] = []
        for stream, partial in sorted(self.partials.items()):
            found += _ended(partial.time, stream, partial.data + b"\n")
        self.partials.clear()
        return self._counted(found)

    def _begin(self, found: list[Run], time: int, stream: int, data: bytes) -> None:
        """Keeps the beginning of a line; full pieces of it go to `found`."""
        *pieces, rest = _pieces(data)
        found += [Run(time, stream, 1, piece + b"\n", True) for piece in pieces]
        self.partials[stream] = Partial(time, rest)

    def _counted(self, found: list[Run]) -> list[Run]:
        for run in found:
            self.lines += run.lines
            self.bytes += len(run.text)
            self.crc32 = zlib.crc32(run.text, self.crc32)
        return found


def _ended(time: int, stream: int, line: bytes) -> list[Run]:
    """Returns a line with its end: one run, or as many as it has pieces."""
    if len(line) <= LONGEST_LINE + 1:
        return [Run(time, stream, 1, line)]
    *pieces, last = _pieces(line[:-1])
    found = [Run(time, stream, 1, piece + b"\n", True) for piece in pieces]
    return [*found, Run(time, stream, 1, last + b"\n")]


def _pieces(data: bytes) -> Iterator[bytes]:
    while len(data) > LONGEST_LINE:
        cut = _character_border(data)
        yield data[:cut]
        data = data[cut:]
    yield data


def _character_border(data: bytes) -> int:
    """Returns where to cut a long line, so that no UTF-8 character is cut in two."""
    for cut in range(LONGEST_LINE, LONGEST_LINE - 4, -1):
        if data[cut] & 0xC0 != 0x80:
            return cut
    return LONGEST_LINE
