"""Blocks of log lines, compressed and decompressed."""

import sys
import zlib
from collections.abc import Sequence
from dataclasses import replace

from server.domain.errors import DamagedLog
from server.domain.log import Encoding, LogBlock, LogLine, omitted, unpack
from server.domain.moment import Moment

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Text in a page of a log: with what messages add it stays below the 4 MiB that gRPC clients take
# unless told otherwise. A page that is cut short is followed by another.
PAGE_BYTES = 1024 * 1024

MERGED_BYTES = 1024 * 1024
"""Size from which on blocks are not merged any more: who wants one line of it unpacks all."""

MERGED_LEVEL = 3


def lines_of(block: LogBlock) -> list[LogLine]:
    """Return a block's lines.

    Raises:
        DamagedLog: it is not what was stored.
    """
    if zlib.crc32(block.data) != block.data_crc:
        raise DamagedLog(block.first_line)
    return unpack(block, _plain(block))


def first_since(block: LogBlock, moment: Moment) -> int:
    """Return the number of a block's first line that was read at a moment or later.

    Of lines that are not kept it is the last, where a line stands for them.

    Raises:
        DamagedLog: it is not what was stored, or has no such line.
    """
    if block.encoding is Encoding.OMITTED:
        return block.last_line
    for number, line in enumerate(lines_of(block), block.first_line):
        if line.at >= moment:
            return number
    raise DamagedLog(block.first_line)


class PageOfLines:
    """Gathers consecutive lines, up to a number and about so many bytes of text.

    Attributes:
        first_line: Number of the first line gathered.
        lines: What was gathered.
        full: Whether no more is wanted.
        omitted_from: First of the lines that are not kept, where one stands for them; or 0.
    """

    def __init__(self, first_line: int, limit: int, size: int) -> None:
        self.first_line = first_line
        self._limit = limit
        self._room = size
        self.lines: list[LogLine] = []
        self.full = limit <= 0
        self.omitted_from = 0

    @property
    def next_line(self) -> int:
        """The line wanted next."""
        return self.first_line + len(self.lines)

    def end(self, total: int) -> None:
        """Say that there are no more blocks of a log that should have so many lines.

        Raises:
            DamagedLog: lines are missing, and nothing was gathered before them.
        """
        if not self.full and self.next_line <= total:
            self._damaged(self.next_line)

    def _damaged(self, line: int) -> None:
        """End the page: what lies before is whole, and the next one begins with the damage."""
        if not self.lines:
            raise DamagedLog(line)
        self.full = True

    def take(self, block: LogBlock) -> None:
        """Take the block's lines that come next.

        Raises:
            DamagedLog: it is not what was stored, and nothing was gathered before it.
        """
        skipped = self.next_line - block.first_line
        if skipped < 0:
            self._damaged(self.next_line)
            return
        if block.last_line < self.next_line:
            return
        if block.encoding is Encoding.OMITTED:
            self.full = True
            if not self.lines:
                self.omitted_from = block.first_line
                self.first_line = block.last_line
                self.lines.append(_mark(block))
            return
        try:
            lines = lines_of(block)
        except DamagedLog:
            self._damaged(block.first_line)
            return
        for line in lines[skipped:]:
            self._room -= len(line.text) + len(line.raw)
            if self.lines and self._room < 0:
                self.full = True
                return
            self.lines.append(line)
            if len(self.lines) == self._limit:
                self.full = True
                return


def _mark(block: LogBlock) -> LogLine:
    """Return the line that stands, under the last one's number, for lines that are not kept.

    Of a log that is too long the beginning stays; of one that is too old, nothing does.
    """
    size = f"{block.text_bytes / 2**20:,.1f} MiB"
    if block.first_line == 1:
        lines = "1 line" if block.lines == 1 else f"{block.lines:,} lines"
        text = f"[muster: the log is not kept any more; it had {lines} ({size})]"
    else:
        span = f"lines {block.first_line:,} to {block.last_line:,}"
        text = f"[muster: {span} ({size}) are not kept; the log is longer than its limit]"
    return LogLine(block.last_at, "stderr", "warn", text)


def merged(blocks: Sequence[LogBlock]) -> list[LogBlock]:
    """Return consecutive blocks as fewer and larger ones; damaged ones stay as they are."""
    found: list[LogBlock] = []
    group: list[LogBlock] = []
    plain: list[bytes] = []
    for block in blocks:
        try:
            lines_of(block)
        except DamagedLog:
            found += [*_joined(group, plain), block]
            group, plain = [], []
            continue
        group.append(block)
        plain.append(_plain(block))
        if sum(map(len, plain)) >= MERGED_BYTES:
            found += _joined(group, plain)
            group, plain = [], []
    return [*found, *_joined(group, plain)]


def _joined(blocks: Sequence[LogBlock], plain: Sequence[bytes]) -> list[LogBlock]:
    if not blocks:
        return []
    whole = omitted(blocks)
    text = b"".join(plain)
    data = zstd.compress(text, MERGED_LEVEL)
    return [
        replace(
            whole,
            encoding=Encoding.ZSTD,
            plain_bytes=len(text),
            data=data,
            data_crc=zlib.crc32(data),
        )
    ]


def _plain(block: LogBlock) -> bytes:
    if block.encoding is Encoding.PLAIN:
        return block.data
    try:
        # Never more than it claims to be: a block could claim little and hold gigabytes.
        return zstd.ZstdDecompressor().decompress(block.data, block.plain_bytes)
    except zstd.ZstdError as error:
        raise DamagedLog(block.first_line) from error
