"""Log lines: how they are packed into rows, and how a batch joins what is stored."""

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from server.domain.moment import Moment

LINE_LIMIT = 1024 * 1024
"""Longest line taken, in characters. Our agents cut lines into pieces of 256 KiB long before."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. Its number is its place in the batch."""

    at: Moment
    stream: str
    level: str
    text: str
    raw: bytes = b""
    """The exact bytes, when `text` could not hold them."""
    continued: bool = False

    @property
    def exact(self) -> bytes:
        """The line's bytes as the task printed them."""
        return self.raw or self.text.encode()


def pack(lines: Iterable[LogLine]) -> bytes:
    """Return lines as the bytes of a row."""
    rows = [
        [line.at, line.stream, line.level, line.text, line.raw.hex(), line.continued]
        for line in lines
    ]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()


def unpack(data: bytes) -> Iterator[LogLine]:
    """Yield the lines that `pack` packed."""
    for at, stream, level, text, raw, continued in json.loads(data):
        yield LogLine(at, stream, level, text, bytes.fromhex(raw), continued)


def measure(lines: Sequence[LogLine], crc: int) -> tuple[int, int]:
    """Return the bytes of lines with their line ends, and the CRC-32 carried over them."""
    joined = b"".join(line.exact + b"\n" for line in lines)
    return len(joined), zlib.crc32(joined, crc)
