"""Blobs as files in a folder."""

import asyncio
import os
import time
from pathlib import Path

from server.domain.errors import StoreUnavailable
from server.stores.interfaces import Room

OWNER = "database-"
"""Beginning of the name of an empty file that says to which database a folder belongs."""

_PARTIAL = ".partial"
_ABANDONED = 3600.0
"""Seconds after which nobody is still writing a file: its writer was killed."""


class FolderBlobs:
    """See interfaces.BlobStore."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def take(self, database_id: str) -> bool:
        """Let the folder be a database's, unless it is another's; return whether it is.

        Raises:
            OSError: it cannot be read or written.
        """
        return await asyncio.to_thread(self._take, database_id)

    def _take(self, database_id: str) -> bool:
        ours = self._folder / f"{OWNER}{database_id}"
        if not any(self._folder.glob(f"{OWNER}*")):
            ours.touch()
            _sync(self._folder)
        return list(self._folder.glob(f"{OWNER}*")) == [ours]

    async def put(self, name: str, data: bytes) -> None:
        """See BlobStore."""
        try:
            await asyncio.to_thread(self._put, self._folder / name, data)
        except OSError as error:
            raise StoreUnavailable(f"blobs: {error.strerror or error}") from error

    def _put(self, path: Path, data: bytes) -> None:
        made = _make(path.parent)
        partial = path.with_name(path.name + _PARTIAL)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)  # on a full disk it would take the last of the room
            raise
        for folder in (path.parent, *made):
            _sync(folder)

    async def get(self, name: str, offset: int, size: int) -> bytes:
        """See BlobStore."""
        try:
            return await asyncio.to_thread(self._read, self._folder / name, offset, size)
        except OSError as error:
            raise StoreUnavailable(f"blobs: {error.strerror or error}") from error

    def _read(self, path: Path, offset: int, size: int) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except FileNotFoundError:
            if not self._folder.exists():
                raise  # all of it is away
            return b""  # what is not there is damage to whoever reads it

    async def names(self, prefix: str) -> list[str]:
        """See BlobStore."""
        return await asyncio.to_thread(self._names, prefix)

    def _names(self, prefix: str) -> list[str]:
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        for path in files:
            if path.name.endswith(_PARTIAL) and time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink(missing_ok=True)
        names = (path.relative_to(self._folder).as_posix() for path in files)
        return sorted(n for n in names if n.startswith(prefix) and not n.endswith(_PARTIAL))

    async def delete(self, name: str) -> None:
        """See BlobStore."""
        await asyncio.to_thread((self._folder / name).unlink, missing_ok=True)

    async def room(self) -> Room | None:
        """See BlobStore."""
        return await asyncio.to_thread(_room, self._folder)


def _make(folder: Path) -> list[Path]:
    """Make a folder with its parents; return the folders that got a new entry by it."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
    return [each.parent for each in missing]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _room(folder: Path) -> Room | None:
    while not folder.exists():
        folder = folder.parent
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return Room(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)
