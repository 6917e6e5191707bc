"""Packs runs of lines into a block, which the control plane stores as it is.

`agent.v1.LogEncoding` tells the form.
"""

import struct
import sys
import zlib

from agent.log_lines import Run
from generated.agent.v1 import agent_pb2

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_HEAD = struct.Struct(">QBBBII")
_CONTINUED = 1
_LEVEL = 1
"""Compression that costs less than a tenth of what it spares the rest of the way."""

_WORTH_PACKING = 256


class BlockBuilder:
    """Gathers runs of one log.

    Attributes:
        size: Bytes gathered.
        lines: Lines gathered.
    """

    def __init__(self, first_line: int) -> None:
        self.size = 0
        self.lines = 0
        self._first_line = first_line
        self._parts: list[bytes] = []
        self._bytes = 0
        self._crc = 0
        self._times: list[int] = []

    def add(self, run: Run) -> None:
        """Takes the lines that come next."""
        time, stream, lines, text, continued = run
        flags = _CONTINUED if continued else 0
        self._parts += (_HEAD.pack(time, stream, flags, 0, lines, len(text)), text)
        self.size += _HEAD.size + len(text)
        self.lines += lines
        self._bytes += len(text)
        self._crc = zlib.crc32(text, self._crc)
        self._times.append(time)

    def build(self) -> agent_pb2.LogBlock:
        """Returns the block; there must be a line at least."""
        plain = b"".join(self._parts)
        packed = self.size >= _WORTH_PACKING
        data = zstd.compress(plain, _LEVEL) if packed else plain
        return agent_pb2.LogBlock(
            first_line=self._first_line,
            lines=self.lines,
            bytes=self._bytes,
            crc32=self._crc,
            first_at=min(self._times),
            last_at=max(self._times),
            encoding=agent_pb2.LOG_ENCODING_ZSTD if packed else agent_pb2.LOG_ENCODING_PLAIN,
            unpacked_bytes=len(plain),
            data=data,
            data_crc32=zlib.crc32(data),
        )
