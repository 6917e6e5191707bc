"""Files in a folder; their parts pass through the server's own HTTP door."""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from server.domain.errors import StoreUnavailable
from server.stores.interfaces import StoredPart

Answer = TypeVar("Answer")

UPLOADS = ".uploads"
_DATA = "data"


class FolderObjects:
    """See interfaces.ObjectStore.

    An upload is a folder with one file, into which each part is written at its place, and a small
    file for each part that is there. Nothing is copied when the file is whole; a part that is still
    on its way then finds the upload gone, and writes nothing more.
    """

    verifies = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def begin(self, name: str) -> str:
        """See ObjectStore."""
        upload = f"{_key(name)}-{uuid.uuid4().hex}"

        def make() -> None:
            folder = self._upload(upload)
            folder.mkdir(mode=0o700, parents=True)
            (folder / _DATA).touch(mode=0o600)

        await _told(make)
        return upload

    async def parts(self, name: str, upload: str) -> list[StoredPart] | None:
        """See ObjectStore."""
        return await _told(lambda: self._parts(upload))

    def _parts(self, upload: str) -> list[StoredPart] | None:
        folder = self._upload(upload)
        if not (folder / _DATA).exists():
            return None
        found = []
        for path in folder.glob("*.json"):
            told = json.loads(path.read_text("utf-8"))
            found.append(StoredPart(told["number"], told["etag"], told["size"]))
        return sorted(found, key=lambda part: part.number)

    async def part_url(self, name: str, upload: str, number: int, seconds: int) -> str:
        """See ObjectStore."""
        return ""

    async def put_part(
        self, upload: str, number: int, offset: int, size: int, pieces: AsyncIterator[bytes]
    ) -> str:
        """Write a part at its place; return its etag. It is durable when this returns.

        Raises:
            FileNotFoundError: there is no such upload (any more).
            ValueError: it has another size.
            StoreUnavailable: the disk takes no more.
        """
        folder = self._upload(upload)
        digest = hashlib.md5(usedforsecurity=False)
        written = 0
        try:
            descriptor = await asyncio.to_thread(os.open, folder / _DATA, os.O_RDWR)
            try:
                async for piece in pieces:
                    if written + len(piece) > size:
                        raise ValueError(f"part {number} has more than {size} bytes")
                    await asyncio.to_thread(
                        _write, folder, descriptor, piece, offset + written, digest
                    )
                    written += len(piece)
                if written != size:
                    raise ValueError(f"part {number} has {written} bytes, not {size}")
                await asyncio.to_thread(os.fsync, descriptor)
            finally:
                os.close(descriptor)
            told = {"number": number, "etag": digest.hexdigest(), "size": size}
            await asyncio.to_thread(_write_whole, folder / f"{number}.json", json.dumps(told))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreUnavailable(f"artifacts: {error.strerror or error}") from error
        return digest.hexdigest()

    async def complete(self, name: str, upload: str, parts: Sequence[StoredPart]) -> bool:
        """See ObjectStore."""
        return await _told(lambda: self._complete(name, upload))

    def _complete(self, name: str, upload: str) -> bool:
        folder, target = self._upload(upload), self._folder / name
        data = folder / _DATA
        if not data.exists():
            return False
        made = _make(target.parent)
        with data.open("r+b") as file:  # NFS locks for writers only what is open for writing
            fcntl.flock(file, fcntl.LOCK_EX)
            data.rename(target)
        for each in (target.parent, *made):
            _sync(each)
        shutil.rmtree(folder, ignore_errors=True)
        return True

    async def abort(self, name: str) -> None:
        """See ObjectStore."""

        def remove() -> None:
            for folder in (self._folder / UPLOADS).glob(f"{_key(name)}-*"):
                shutil.rmtree(folder, ignore_errors=True)

        await _told(remove)

    async def put_empty(self, name: str) -> None:
        """See ObjectStore."""

        def put() -> None:
            target = self._folder / name
            made = _make(target.parent)
            target.touch(mode=0o600)
            for each in (target.parent, *made):
                _sync(each)

        await _told(put)

    async def size(self, name: str) -> int | None:
        """See ObjectStore."""

        def look() -> int | None:
            try:
                return (self._folder / name).stat().st_size
            except FileNotFoundError:
                return None

        return await _told(look)

    async def sha256(self, name: str) -> str:
        """See ObjectStore."""

        def read() -> str:
            try:
                with (self._folder / name).open("rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                return ""

        return await _told(read)

    async def url(self, name: str, filename: str, seconds: int) -> str:
        """See ObjectStore."""
        return ""

    async def delete(self, name: str) -> None:
        """See ObjectStore."""

        def remove() -> None:
            path = self._folder / name
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others lie beside it
                for parent in path.parents:
                    if parent == self._folder:
                        break
                    parent.rmdir()

        await _told(remove)

    def path(self, name: str) -> Path:
        """Return where a file lies; nowhere outside of the folder."""
        path = self._folder / name
        if ".." in path.parts or not path.is_relative_to(self._folder):
            return self._folder / UPLOADS / "nothing"
        return path

    def _upload(self, upload: str) -> Path:
        return self._folder / UPLOADS / upload


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _write(
    upload: Path, descriptor: int, piece: bytes, offset: int, digest: "hashlib._Hash"
) -> None:
    """Write a piece where it belongs.

    Raises:
        FileNotFoundError: the upload is complete or given up: the file is no longer its own.
    """
    digest.update(piece)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        if not os.path.samestat(os.fstat(descriptor), (upload / _DATA).stat()):
            raise FileNotFoundError(upload)
        written = 0
        while written < len(piece):
            written += os.pwrite(descriptor, piece[written:], offset + written)
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


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


async def _told(call: Callable[[], Answer]) -> Answer:
    """Do what takes time in a thread.

    Raises:
        StoreUnavailable: the disk refuses.
    """
    try:
        return await asyncio.to_thread(call)
    except OSError as error:
        raise StoreUnavailable(f"artifacts: {error.strerror or error}") from error
