"""Packages of plugins beside the server: fetched from their home once, and checked."""

import asyncio
import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from server.domain.errors import DamagedPlugin, StoreUnavailable
from server.stores.interfaces import PluginHome

LIMIT = 1024**3
"""Bytes of packages that are kept beside the server."""

_PARTIAL = ".partial-"


class PluginShelf:
    """See the module."""

    def __init__(self, folder: Path, home: PluginHome, limit: int = LIMIT) -> None:
        self.home = home
        self._folder = folder
        self._limit = limit
        self._locks: dict[str, asyncio.Lock] = {}
        self._checked: set[str] = set()

    def clear(self) -> None:
        """Delete what an earlier server has left half done."""
        for path in self._folder.glob(f"{_PARTIAL}*"):
            path.unlink(missing_ok=True)

    def new_file(self) -> Path:
        """Return a new file for a package that somebody sends; whoever asks deletes it.

        Raises:
            OSError: it cannot be made.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=self._folder, prefix=_PARTIAL)
        os.close(descriptor)
        return Path(path)

    async def get(self, sha256: str) -> Path | None:
        """Return a file with a package's bytes; None where its home has none.

        Raises:
            StoreUnavailable: it cannot be had now.
            DamagedPlugin: the home gives other bytes.
        """
        path = self._folder / f"{sha256}.tar.gz"
        async with self._locks.setdefault(sha256, asyncio.Lock()):
            try:
                if not await self._is_sound(path, sha256) and not await self._get(path, sha256):
                    return None
            except OSError as error:
                raise StoreUnavailable(f"plugins: {error.strerror or error}") from error
        with contextlib.suppress(OSError):
            os.utime(path)
        return path

    async def _is_sound(self, path: Path, sha256: str) -> bool:
        """Tell whether a package is here; each is read once after a start."""
        if sha256 not in self._checked:
            if await asyncio.to_thread(_digest, path) != sha256:
                return False
            self._checked.add(sha256)
        return os.path.exists(path)  # noqa: ASYNC240, PTH110 (one look)

    async def _get(self, path: Path, sha256: str) -> bool:
        partial = self.new_file()
        try:
            if not await self.home.fetch(sha256, partial):
                return False
            if await asyncio.to_thread(_digest, partial) != sha256:
                raise DamagedPlugin(sha256)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        self._checked.add(sha256)
        await asyncio.to_thread(self._make_room, path)
        return True

    def _make_room(self, newest: Path) -> None:
        files = [(path, path.stat()) for path in self._folder.glob("*.tar.gz")]
        total = sum(found.st_size for _, found in files)
        for path, found in sorted(files, key=lambda item: item[1].st_mtime):
            if total <= self._limit:
                return
            if path != newest:
                path.unlink(missing_ok=True)  # who reads it has it open
                total -= found.st_size


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; nothing where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
