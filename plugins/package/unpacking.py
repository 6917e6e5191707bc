"""From a package to a folder: whole, or nothing of it."""

import os
import shutil
import tempfile
from io import BufferedReader
from pathlib import Path

from plugins.package.archive import LIMITS, Chunks, Entry, Limits
from plugins.package.inspection import Package, inspect
from plugins.package.refusal import refused

UNFINISHED = ".unpacking-"
"""Beginning of the names of folders that are not whole; one whose maker is dead may be deleted."""


def unpack(file: BufferedReader, target: Path, sha256: str, limits: Limits = LIMITS) -> Package:
    """Unpack the package with this address into a new folder and return what it is.

    The folder appears with all its files on the disk, or it does not appear.

    Raises:
        PackageRefused: the bytes are others, no package, or `target` is there already.
        OSError: the disk is full or fails.
    """
    if os.path.lexists(target):
        raise refused(str(target), "is there already")
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=UNFINISHED))
    try:
        package = inspect(file, limits, sha256, _Writer(partial).write)
        for folder, _, _ in os.walk(partial, topdown=False):
            Path(folder).chmod(0o755)
            _sync(Path(folder))
        partial.rename(target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return package


class _Writer:
    """Writes files into a folder that nobody else knows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, entry: Entry, chunks: Chunks) -> None:
        path = self._folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Exclusive and without links: a path can only lead to a new file of ours.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fchmod(file.fileno(), 0o755 if entry.executable else 0o644)
            os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
