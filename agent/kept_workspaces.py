"""Workspaces that tasks leave on request: kept for a while, deleted by age and when disk is short.

Nothing here follows a link: a workspace is its task's, who may have put anything into it.
"""

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Protocol

import structlog

from agent.executor import Identity
from agent.spool import folder_name, has_room

FOLDER = "kept"
"""Name of the folder, in the agent's own, where they lie."""

LOOK_SECONDS = 60.0
"""How often it is looked what has to go."""

_TRASH = ".trash-"
_AT_ONCE = 500
"""Entries deleted before others have their turn."""

_DEEPEST = 32
"""Levels that are gone down; what lies below is brought up first, however deep it is."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_log = structlog.get_logger("agent.kept_workspaces")


class Keeper(Protocol):
    """Keeps workspaces of tasks that have ended."""

    def keep(self, identity: Identity, workspace: Path) -> str:
        """Takes a workspace, and returns a remark for the task's log, or nothing."""


class KeptWorkspaces:
    """See the module. One agent's own: nobody else writes into its folder."""

    def __init__(self, data_dir: Path, keep: timedelta, spare_bytes: int) -> None:
        self._folder = data_dir / FOLDER
        self._keep = keep
        self._spare = spare_bytes
        self._asked = asyncio.Event()

    def keep(self, identity: Identity, workspace: Path) -> str:
        """See Keeper."""
        kept = self._folder / folder_name(f"{identity.task}-{identity.attempt}")
        try:
            if os.path.lexists(kept):
                return ""  # an earlier session was here
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if not stat.S_ISDIR(workspace.lstat().st_mode):
                return "the workspace is not kept: something else is in its place"
            _open_up(workspace)  # a folder that must not be written cannot be moved
            workspace.rename(kept)
            os.utime(kept, follow_symlinks=False)  # its age counts from now on
        except OSError as error:
            return f"the workspace is not kept: {error.strerror or error}"
        self._asked.set()
        return f"the workspace is kept in {kept}"

    async def run(self) -> None:
        """Deletes what has to go, until cancelled."""
        while True:
            self._asked.clear()
            try:
                await self.sweep(time.time())
            except OSError as error:
                _log.warning("kept workspaces cannot be looked after", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._asked.wait()

    async def sweep(self, now: float) -> None:
        """Deletes what is too old, then the oldest while less disk is free than wanted.

        Raises:
            OSError: The folder cannot be read.
        """
        if not self._folder.is_dir():
            return
        for path in self._folder.glob(f"{_TRASH}*"):  # a deletion that was cut short
            await _remove(path)
        for kept_at, path in self._oldest_first():
            old = now - kept_at >= self._keep.total_seconds()
            if not old and has_room(self._folder, self._spare):
                return
            trash = path.with_name(f"{_TRASH}{path.name}")
            try:
                path.rename(trash)
            except OSError as error:
                _log.warning("a workspace cannot be deleted", path=str(path), error=str(error))
                continue
            _log.info("deleting a workspace", path=str(path), reason="age" if old else "disk")
            await _remove(trash)

    def _oldest_first(self) -> list[tuple[float, Path]]:
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    kept_at = entry.stat(follow_symlinks=False).st_mtime
                    found.append((kept_at, Path(entry.path)))
        return sorted(found)


async def _remove(trash: Path) -> None:
    """Deletes a folder in small steps, beside all else."""
    steps = _steps(trash)

    def some() -> bool:
        return sum(1 for _ in islice(steps, _AT_ONCE)) == _AT_ONCE

    try:
        while await asyncio.to_thread(some):
            pass
        await asyncio.to_thread(trash.rmdir)
    except OSError as error:
        _log.warning("a workspace cannot be deleted", path=str(trash), error=str(error))


def _steps(trash: Path) -> Iterator[None]:
    """Deletes all that is in a folder, and gives word after each entry.

    Raises:
        OSError: Some of it cannot be deleted.
    """
    _open_up(trash)
    root = os.open(trash, _FOLDER)
    try:
        device = os.fstat(root).st_dev
        again = True
        while again:  # what lay deep has come up meanwhile
            again = False
            for deep in _empty(root, root, 0, device):
                again |= deep
                yield
    finally:
        os.close(root)


def _empty(root: int, folder: int, depth: int, device: int) -> Iterator[bool]:
    """Empties an open folder, and tells after each entry whether it was brought up instead."""
    for name in os.listdir(folder):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=folder)
            yield False
            continue
        if status.st_dev != device:
            raise OSError(0, f"something is mounted at {name!r} in it")
        _open_up(name, folder)
        if depth >= _DEEPEST:
            os.rename(name, f"{time.monotonic_ns()}", src_dir_fd=folder, dst_dir_fd=root)
            yield True
            continue
        below = os.open(name, _FOLDER, dir_fd=folder)
        try:
            yield from _empty(root, below, depth + 1, device)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=folder)
        yield False


def _open_up(path: Path | str, folder: int | None = None) -> None:
    """Lets a folder be emptied whose permissions its task took away."""
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(found)
        if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o700 != 0o700:
            Path(f"/proc/self/fd/{found}").chmod(0o700)
    finally:
        os.close(found)
