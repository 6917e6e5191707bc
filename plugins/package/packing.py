"""From a folder to a package."""

import gzip
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

from plugins.package.archive import (
    BLOCK,
    CHUNK,
    LIMITS,
    RECORD,
    Entry,
    Limits,
    header,
    padding,
)
from plugins.package.inspection import Package, check_entry_points, inspect
from plugins.package.manifest import MANIFEST, MAX_MANIFEST, Manifest, parse_manifest
from plugins.package.paths import Taken, path_problem
from plugins.package.refusal import PackageRefused, refused

LEFT_OUT = frozenset({".git", ".hg", ".svn", "__pycache__", ".DS_Store"})
"""Names of files and folders that are no part of a plugin."""


def default_name(manifest: Manifest) -> str:
    """Return the file name that a package is given."""
    return f"{manifest.id}-{manifest.version}.tar.gz"


def manifest_of(folder: Path) -> Manifest:
    """Return the manifest of a folder.

    Raises:
        PackageRefused: it has none, or it is wrong.
        OSError: it cannot be read.
    """
    try:
        with (folder / MANIFEST).open("rb") as file:
            return parse_manifest(file.read(MAX_MANIFEST + 1))
    except FileNotFoundError:
        raise refused(MANIFEST, f"is not in {folder}") from None


def pack(folder: Path, target: Path, limits: Limits = LIMITS) -> Package:
    """Write the package of a folder to `target`, whole or not at all.

    Raises:
        PackageRefused: the folder has what no package may have, or `target` is inside it.
        OSError: a file cannot be read or written.
    """
    if target.resolve().is_relative_to(folder.resolve()):
        raise refused(str(target), f"is inside {folder} and would be packed the next time")
    manifest = manifest_of(folder)
    entries = _entries(folder, limits)
    check_entry_points(manifest, entries)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write(folder, entries, file)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        with partial.open("rb") as written:
            package = inspect(written, limits)  # as its readers will see it
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return package


def _write(folder: Path, entries: list[Entry], file: BinaryIO) -> None:
    written = 0
    with gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as packed:
        for entry in entries:
            packed.write(header(entry))
            _copy(folder / entry.path, entry, packed)
            packed.write(padding(entry.size))
            written += BLOCK + entry.size + len(padding(entry.size))
        packed.write(bytes(2 * BLOCK))
        packed.write(bytes(-(written + 2 * BLOCK) % RECORD))


def _copy(path: Path, entry: Entry, target: gzip.GzipFile) -> None:
    left = entry.size
    with path.open("rb") as source:
        while data := source.read(min(left + 1, CHUNK)):
            left -= len(data)
            if left < 0:
                break
            target.write(data)
    if left:
        raise refused(entry.path, "changed while it was packed")


def _entries(folder: Path, limits: Limits) -> list[Entry]:
    """Return the files of a folder: the manifest first, the rest by path."""
    taken = Taken()
    violations: list[tuple[str, str]] = []
    entries = []
    for base, folders, files in os.walk(folder, onerror=_raise):
        for name in sorted({*folders, *files} - LEFT_OUT):
            path = Path(base, name)
            inside = path.relative_to(folder).as_posix()
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode):
                continue
            if not stat.S_ISREG(found.st_mode):
                violations.append((inside, "is a link or a special file; a package has none"))
            elif problem := path_problem(inside):
                violations.append((repr(inside), problem))
            elif other := taken.add(inside):
                violations.append((inside, f"collides with {other} where case does not count"))
            elif not name.endswith(".pyc"):
                entries.append(Entry(inside, found.st_size, bool(found.st_mode & stat.S_IXUSR)))
        folders[:] = sorted(set(folders) - LEFT_OUT)
    if violations:
        raise PackageRefused(violations)
    if len(entries) > limits.files:
        raise refused(str(folder), f"has more than {limits.files} files")
    if sum(entry.size for entry in entries) > limits.unpacked:
        raise refused(str(folder), f"has more than {limits.unpacked} bytes")
    return sorted(entries, key=lambda entry: (entry.path != MANIFEST, entry.path))


def _raise(error: OSError) -> None:
    raise error
