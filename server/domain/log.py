"""Log lines, and the blocks in which they travel and are kept.

A block's data is a row of runs (`agent.v1.LogEncoding` tells the form), compressed or not. A run
holds lines that were read at one time from one stream, as the bytes the task printed; so a block of
ten thousand lines is packed and unpacked by a few operations on bytes.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import groupby
from typing import NamedTuple, TypeAlias

from server.domain.crc import combine
from server.domain.errors import DamagedLog
from server.domain.moment import Moment

LINE_LIMIT = 1024 * 1024
"""Longest line taken, in characters. Our agents cut lines into pieces of 256 KiB long before."""

BLOCK_LIMIT = 4 * 1024 * 1024
"""Most bytes in a block, packed or not."""

LogKey: TypeAlias = tuple[int, int]
"""What names a log: its task's key and the number of the attempt."""

_RUN = struct.Struct(">QBBBII")
_CONTINUED = 1
_STREAMS = {1: "stdout", 2: "stderr"}
_NUMBERS = {name: number for number, name in _STREAMS.items()}
_LEVELS = {"stdout": "info", "stderr": "error"}


class LogLine(NamedTuple):
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


class Encoding(IntEnum):
    """How a block is packed. The numbers are those of `agent.v1.LogEncoding`."""

    OMITTED = 0
    """The lines are not kept; only what they amount to. Never sent by an agent."""
    PLAIN = 1
    ZSTD = 2


@dataclass(frozen=True, slots=True)
class LogBlock:
    """Consecutive lines of one attempt, packed."""

    first_line: int
    lines: int
    text_bytes: int
    """Bytes of the lines, each with one more for its end."""
    crc: int
    """CRC-32 over each line's bytes followed by one line feed."""
    first_at: Moment
    last_at: Moment
    encoding: Encoding
    plain_bytes: int
    """Bytes of `data` once it is decompressed."""
    data: bytes
    data_crc: int

    @property
    def last_line(self) -> int:
        """Number of the last line."""
        return self.first_line + self.lines - 1


def omitted(blocks: Sequence[LogBlock]) -> LogBlock:
    """Return consecutive blocks as one whose lines are not kept."""
    crc = 0
    for block in blocks:
        crc = combine(crc, block.crc, block.text_bytes)
    return LogBlock(
        blocks[0].first_line,
        sum(block.lines for block in blocks),
        sum(block.text_bytes for block in blocks),
        crc,
        min(block.first_at for block in blocks),
        max(block.last_at for block in blocks),
        Encoding.OMITTED,
        0,
        b"",
        0,
    )


def forgotten(blocks: Sequence[LogBlock]) -> LogBlock:
    """Return all blocks of a log as one whose lines are not kept: it begins with line 1."""
    return replace(omitted(blocks), first_line=1, lines=blocks[-1].last_line)


def middle(blocks: Sequence[LogBlock], limit: int) -> tuple[int, int]:
    """Return the range of blocks to leave out, so that at most `limit` bytes of text are kept.

    Half is kept of the beginning, half of the end, and one block of each at least. What was left
    out before counts as nothing.
    """
    begin, end = 1, len(blocks) - 1
    head, tail = _kept(blocks[0]), _kept(blocks[-1])
    while begin < end and head + _kept(blocks[begin]) <= limit // 2:
        head += _kept(blocks[begin])
        if blocks[begin].encoding is Encoding.OMITTED:
            break
        begin += 1
    while end > begin and tail + _kept(blocks[end - 1]) <= limit // 2:
        tail += _kept(blocks[end - 1])
        if blocks[end - 1].encoding is Encoding.OMITTED:
            break
        end -= 1
    return begin, end


def _kept(block: LogBlock) -> int:
    return 0 if block.encoding is Encoding.OMITTED else block.text_bytes


@dataclass(frozen=True, slots=True)
class LogCounts:
    """What the lines of a log amount to, up to some line."""

    lines: int = 0
    bytes: int = 0
    crc: int = 0

    def plus(self, block: LogBlock) -> "LogCounts":
        """Return the counts with the next block. Where lines between are lost, none agrees."""
        crc = combine(self.crc, block.crc, block.text_bytes)
        return LogCounts(block.last_line, self.bytes + block.text_bytes, crc)


def amount(blocks: Iterable[LogBlock]) -> LogCounts:
    """Return what consecutive blocks from the first line on amount to."""
    counts = LogCounts()
    for block in blocks:
        counts = counts.plus(block)
    return counts


def level_of(stream: str) -> str:
    """Return the level of lines whose sender named none."""
    return _LEVELS[stream]


def pack(first_line: int, lines: Sequence[LogLine]) -> LogBlock:
    """Return lines as a block; there must be one at least."""
    parts: list[bytes] = []
    crc = size = 0
    for (at, stream, level), group in groupby(lines, key=lambda line: line[:3]):
        for texts, continued in _alike(group):
            text = b"\n".join(texts) + b"\n"
            crc, size = zlib.crc32(text, crc), size + len(text)
            named = level.encode() if level != _LEVELS[stream] else b""
            flags = _CONTINUED if continued else 0
            head = _RUN.pack(at, _NUMBERS[stream], flags, len(named), len(texts), len(text))
            parts += (head, named, text)
    data = b"".join(parts)
    times = [line.at for line in lines]
    return LogBlock(
        first_line,
        len(lines),
        size,
        crc,
        min(times),
        max(times),
        Encoding.PLAIN,
        len(data),
        data,
        zlib.crc32(data),
    )


def _alike(lines: Iterable[LogLine]) -> Iterable[tuple[list[bytes], bool]]:
    """Yield what fits into one run each: plain lines together, others alone."""
    plain: list[bytes] = []
    for line in lines:
        exact = line.exact
        if not line.continued and b"\n" not in exact:
            plain.append(exact)
            continue
        if plain:
            yield plain, False
        yield [exact], line.continued
        plain = []
    if plain:
        yield plain, False


def unpack(block: LogBlock, plain: bytes) -> list[LogLine]:
    """Return a block's lines from its decompressed data.

    Raises:
        DamagedLog: it is not what the block says.
    """
    lines: list[LogLine] = []
    place = crc = 0
    try:
        while place < len(plain):
            at, stream, flags, named, count, size = _RUN.unpack_from(plain, place)
            start = place + _RUN.size + named
            place = start + size
            text = plain[start:place]
            crc = zlib.crc32(text, crc)
            name = _STREAMS[stream]
            level = plain[start - named : start].decode() if named else _LEVELS[name]
            lines += _lines(at, name, level, text[:-1], count, bool(flags & _CONTINUED))
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise DamagedLog(block.first_line) from error
    if (len(lines), crc) != (block.lines, block.crc):
        raise DamagedLog(block.first_line)
    return lines


def _lines(
    at: Moment, stream: str, level: str, text: bytes, count: int, continued: bool
) -> list[LogLine]:
    try:
        whole = text.decode()
    except UnicodeDecodeError:
        pieces = [text] if count == 1 else text.split(b"\n")
        return [_any_line(at, stream, level, piece, continued) for piece in pieces]
    texts = [whole] if count == 1 else whole.split("\n")
    return [LogLine(at, stream, level, text, b"", continued) for text in texts]


def _any_line(at: Moment, stream: str, level: str, exact: bytes, continued: bool) -> LogLine:
    try:
        return LogLine(at, stream, level, exact.decode(), b"", continued)
    except UnicodeDecodeError:
        return LogLine(at, stream, level, exact.decode(errors="replace"), exact, continued)
