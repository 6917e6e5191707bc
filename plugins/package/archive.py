"""The archive of a package: a tar in gzip, of plain files alone.

Times, owners and order are fixed, so that the same files make the same bytes (with one release of
zlib). What is read is held to the same form, header by header: everything that tar can hold
besides plain files is refused by its type, not searched for danger.
"""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader

from plugins.package.paths import Taken, path_problem
from plugins.package.refusal import refused

BLOCK = tarfile.BLOCKSIZE
CHUNK = 1 << 20
RECORD = tarfile.RECORDSIZE


@dataclass(frozen=True)
class Limits:
    """What a package may weigh: bytes, files, and bytes for each packed byte."""

    packed: int = 256 << 20
    unpacked: int = 1 << 30
    files: int = 20_000
    ratio: int = 100
    ratio_from: int = 16 << 20
    """Unpacked bytes up to which any ratio will do: small files of zeros are no bomb."""


LIMITS = Limits()


@dataclass(frozen=True)
class Entry:
    """One file in a package."""

    path: str
    size: int
    executable: bool


Chunks = Iterator[bytes]
Sink = Callable[[Entry, Chunks], None]
"""Is given each file once, with its bytes, which it has to read to the end."""


def header(entry: Entry) -> bytes:
    """Return the block that stands before a file's bytes.

    Raises:
        PackageRefused: the path is too long for it, or the file too large.
    """
    info = tarfile.TarInfo(entry.path)
    info.size = entry.size
    info.mode = 0o755 if entry.executable else 0o644
    try:
        return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError as error:
        raise refused(entry.path, f"does not fit into an archive: {error}") from None


def padding(size: int) -> bytes:
    """Return what fills a file's last block."""
    return bytes(-size % BLOCK)


def read_archive(file: BufferedReader, packed: int, sink: Sink, limits: Limits = LIMITS) -> int:
    """Give each file of an archive of `packed` bytes to `sink`; return their bytes together.

    Raises:
        PackageRefused: it is damaged, too large, or has more than plain files at plain paths.
    """
    if packed > limits.packed:
        raise refused("archive", f"is larger than {limits.packed} bytes")
    with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
        reader = _Reader(unpacked, packed, limits)
        try:
            return _read(reader, sink, limits)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise refused("archive", "is damaged or no .tar.gz") from None


def _read(reader: "_Reader", sink: Sink, limits: Limits) -> int:
    taken = Taken()
    count = total = 0
    while entry := _entry(reader.exactly(BLOCK)):
        count += 1
        total += entry.size
        if count > limits.files:
            raise refused("archive", f"has more than {limits.files} files")
        if total > limits.unpacked:  # before a byte of it is written
            raise refused("archive", f"unpacks to more than {limits.unpacked} bytes")
        if problem := path_problem(entry.path):
            raise refused(repr(entry.path), problem)
        if other := taken.add(entry.path):
            raise refused(repr(entry.path), f"collides with {other!r}")
        chunks = reader.chunks(entry.size)
        sink(entry, chunks)
        if any(reader.exactly(-entry.size % BLOCK)):
            raise refused(repr(entry.path), "has bytes after its end")
    reader.zeros_to_the_end()
    return total


def _entry(block: bytes) -> Entry | None:
    """Return the file that a header announces; None at the end of the archive."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed has it not
        return None
    except (tarfile.HeaderError, ValueError):
        raise refused("archive", "has a damaged header") from None
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise refused(repr(info.name), f"is {KINDS.get(info.type, 'of a kind that is not a file')}")
    if info.size < 0:
        raise refused(repr(info.name), "has less than no bytes")
    return Entry(info.name, info.size, bool(info.mode & 0o100))


KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder; a package holds files alone",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.XHDTYPE: "an extended header; a package is written by muster plugin pack",
    tarfile.XGLTYPE: "an extended header; a package is written by muster plugin pack",
    tarfile.GNUTYPE_LONGNAME: "a long name of GNU's; a package is written by muster plugin pack",
    tarfile.GNUTYPE_LONGLINK: "a long link of GNU's; a package is written by muster plugin pack",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class _Reader:
    """Reads what comes out of gzip, and stops when it is more than it may be."""

    def __init__(self, unpacked: gzip.GzipFile, packed: int, limits: Limits) -> None:
        self._unpacked = unpacked
        # Headers and the archive's end come on top of the files themselves.
        self._most = limits.unpacked + (limits.files + 1) * 2 * BLOCK + RECORD
        self._ratio = max(limits.ratio_from, packed * limits.ratio)
        self._read = 0
        self._limits = limits

    def _some(self, size: int) -> bytes:
        data = self._unpacked.read(min(size, CHUNK))
        self._read += len(data)
        if self._read > self._most:
            raise refused("archive", f"unpacks to more than {self._limits.unpacked} bytes")
        if self._read > self._ratio:
            raise refused("archive", f"unpacks to over {self._limits.ratio} times its size")
        return data

    def chunks(self, size: int) -> Chunks:
        while size:
            data = self._some(size)
            if not data:
                raise refused("archive", "ends too early")
            size -= len(data)
            yield data

    def exactly(self, size: int) -> bytes:
        return b"".join(self.chunks(size))

    def zeros_to_the_end(self) -> None:
        while data := self._some(CHUNK):
            if any(data):
                raise refused("archive", "has bytes after its end")
