"""Packages as files in a folder."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from server.domain.errors import StoreUnavailable
from server.stores.interfaces import HomeKind


class FolderHome:
    """See interfaces.PluginHome."""

    kind = HomeKind.SERVER

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, sha256: str, package: Path) -> None:
        """See PluginHome."""
        try:
            await asyncio.to_thread(self._put, sha256, package)
        except OSError as error:
            raise StoreUnavailable(f"plugins: {error.strerror or error}") from error

    def _put(self, sha256: str, package: Path) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=self._folder, prefix=".partial-")
        try:
            with os.fdopen(descriptor, "wb") as file, package.open("rb") as source:
                shutil.copyfileobj(source, file)
                file.flush()
                os.fsync(file.fileno())
            Path(partial).rename(self._path(sha256))
        except OSError:
            Path(partial).unlink(missing_ok=True)
            raise
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    async def fetch(self, sha256: str, target: Path) -> bool:
        """See PluginHome."""
        try:
            source = await asyncio.to_thread(self._path(sha256).open, "rb")
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreUnavailable(f"plugins: {error.strerror or error}") from error
        with source, target.open("wb") as file:
            await asyncio.to_thread(shutil.copyfileobj, source, file)
        return True

    async def url(self, sha256: str, seconds: int) -> str:
        """See PluginHome."""
        return ""

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.tar.gz"
