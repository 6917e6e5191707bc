"""What a package is, told from its bytes without unpacking it."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedReader

from plugins.package.archive import LIMITS, Chunks, Entry, Limits, Sink, read_archive
from plugins.package.manifest import MANIFEST, MAX_MANIFEST, Manifest, parse_manifest
from plugins.package.refusal import PackageRefused, refused


@dataclass(frozen=True)
class Package:
    """A package that was read to its end.

    `sha256` is the package's address, in hex; `size` its bytes and `unpacked` those of its files.
    """

    manifest: Manifest
    sha256: str
    size: int
    unpacked: int
    files: int


def digest(file: BufferedReader) -> str:
    """Return the SHA-256 of a file from its beginning, in hex: a package's address."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def inspect(
    file: BufferedReader, limits: Limits = LIMITS, sha256: str = "", sink: Sink | None = None
) -> Package:
    """Return what a package is; where `sha256` is given, of no other bytes than those.

    `sink` gets every file after the address was found right; what it made of them counts only
    when this returns.

    Raises:
        PackageRefused: the bytes are others, or no package.
        OSError: it cannot be read, or what `sink` raises.
    """
    size = os.fstat(file.fileno()).st_size
    if size > limits.packed:
        raise refused("archive", f"is larger than {limits.packed} bytes")
    found = digest(file)
    if sha256 and found != sha256.lower():
        raise refused("archive", f"has the SHA-256 {found}, not {sha256.lower()}")
    collector = _Collector(sink)
    file.seek(0)
    unpacked = read_archive(file, size, collector.take, limits)
    if collector.manifest is None:
        raise refused("archive", f"has no {MANIFEST}")
    manifest = parse_manifest(collector.manifest)
    check_entry_points(manifest, collector.entries)
    return Package(manifest, found, size, unpacked, len(collector.entries))


def check_entry_points(manifest: Manifest, entries: Iterable[Entry]) -> None:
    """Check that each program that a manifest names is there and can be run.

    Raises:
        PackageRefused: it is not.
    """
    executable = {entry.path: entry.executable for entry in entries}
    violations = [
        (
            f"{MANIFEST}: entry_points.{platform}",
            f"{path} is not executable (chmod +x)" if path in executable else f"{path} is missing",
        )
        for platform, path in manifest.entry_points.items()
        if not executable.get(path)
    ]
    if violations:
        raise PackageRefused(violations)


class _Collector:
    """Keeps the manifest of what goes by."""

    def __init__(self, sink: Sink | None) -> None:
        self.entries: list[Entry] = []
        self.manifest: bytes | None = None
        self._sink = sink

    def take(self, entry: Entry, chunks: Chunks) -> None:
        self.entries.append(entry)
        if entry.path == MANIFEST:
            if entry.size > MAX_MANIFEST:
                raise refused(MANIFEST, f"is larger than {MAX_MANIFEST} bytes")
            self.manifest = b"".join(chunks)
            chunks = iter([self.manifest])
        if self._sink is not None:
            self._sink(entry, chunks)
        for _ in chunks:
            pass
