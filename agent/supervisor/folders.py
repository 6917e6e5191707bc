"""Keeps the folders of attempts: one that its task left as it was serves another.

To make a folder with its files, and to delete it, costs more than all else that a short task needs;
on ext4 the more, the more files were deleted in the last minutes.
"""

import contextlib
import itertools
import json
import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from agent.spool import (
    END_ACKNOWLEDGED,
    EXIT,
    FIRST_SEGMENT,
    POSITION,
    SCRIPT,
    TASK,
    TEMPORARY,
    WORKSPACE,
    AttemptFolder,
    Spool,
)
from agent.supervisor.frames import Message

_MOST_SPARES = 64

_TICK = 0.1
"""Seconds, and more than the clock of a file system takes for a step."""

_DIRECTORIES = (WORKSPACE, TEMPORARY)

Look = dict[str, tuple[int, ...]]
"""What tells files and directories from others, and whether directories were changed, by name."""


@dataclass(frozen=True)
class _Made:
    """A folder that was made here, how it looked then, and when that was (monotonic)."""

    folder: AttemptFolder
    look: Look
    at: float


class Folders:
    """Makes the folders of attempts, and takes them back."""

    def __init__(self, spool: Spool, shelf: Path) -> None:
        self._spool = spool
        self._shelf = shelf
        self._numbers = itertools.count()
        self._spares: deque[_Made] = deque()
        self._used: dict[str, tuple[_Made, bool]] = {}
        """How each attempt's folder was made, and whether that was long before its use."""

    def clear(self) -> None:
        """Deletes what is kept, also by a predecessor."""
        self._spares.clear()
        if self._shelf.is_dir():
            AttemptFolder(self._shelf).remove()

    def begin(self, folder: AttemptFolder, identity: Message, script: bytes) -> None:
        """Lets an attempt's folder appear, in one step, with all that its attempt needs.

        Raises:
            OSError: It cannot be made; nothing of it is left.
        """
        while self._spares:
            with contextlib.suppress(OSError):  # whatever is wrong with it: a new one may do
                self._hand_out(self._spares.popleft(), folder, identity, script)
                return
        try:
            self._hand_out(self._make(), folder, identity, script)
        except FileNotFoundError:  # nothing was kept so far, or other hands have deleted the spool
            self._spool.create()
            self._shelf.mkdir(mode=0o700, exist_ok=True)
            self._hand_out(self._make(), folder, identity, script)

    def end(self, folder: AttemptFolder) -> bool:
        """Takes an attempt's folder back.

        Returns:
            Whether it is gone; else what is left of it needs `AttemptFolder.remove`.
        """
        made, settled = self._used.pop(folder.where, (None, False))
        try:
            if made is not None and _is_as_made(folder, made, settled):
                return self._keep(folder, made)
        except OSError:  # then it is not
            pass
        return folder.remove_plain()

    def drop(self, folder: AttemptFolder) -> None:
        """Deletes the folder of an attempt that did not start."""
        self._used.pop(folder.where, None)
        folder.remove()

    def _make(self) -> _Made:
        folder = AttemptFolder(self._shelf / str(next(self._numbers)))
        try:
            folder.path.mkdir(mode=0o700)
            for name in _DIRECTORIES:
                (folder.path / name).mkdir(mode=0o700)
            for name in (TASK, SCRIPT, FIRST_SEGMENT):
                folder.overwrite(name, b"")
            folder.reserve(EXIT, POSITION)
            folder.put(EXIT)
            return _Made(folder, _look(folder), time.monotonic())
        except OSError:
            folder.remove()
            raise

    def _hand_out(
        self, made: _Made, folder: AttemptFolder, identity: Message, script: bytes
    ) -> None:
        try:
            made.folder.take_away(EXIT)
            made.folder.overwrite(SCRIPT, script)
            made.folder.overwrite(TASK, json.dumps(identity).encode())
            made.folder.move(folder)
        except OSError:
            made.folder.remove()
            raise
        self._used[folder.where] = (made, time.monotonic() - made.at > _TICK)

    def _keep(self, folder: AttemptFolder, made: _Made) -> bool:
        """Takes a folder for another attempt.

        Raises:
            OSError: It stays where it is.
        """
        if len(self._spares) >= _MOST_SPARES:
            return folder.remove_plain()
        folder.move(made.folder)  # from here on it is nobody's
        try:
            # Now and not before its next use: ext4 hastens to write what follows in one opening.
            made.folder.overwrite(FIRST_SEGMENT, b"")
            made.folder.unlink(END_ACKNOWLEDGED)
        except OSError:
            made.folder.remove()
        else:
            self._spares.append(made)
        return True


def _is_as_made(folder: AttemptFolder, made: _Made, settled: bool) -> bool:
    """Tells whether a task has left everything as it was, but for what it printed.

    Whatever is done to a directory changes its time of change, which nobody can set. Only within a
    tick after it was made that may be the same time.

    Raises:
        OSError: It cannot be looked at.
    """
    return _look(folder) == made.look and (
        settled or not any(list((folder.path / name).iterdir()) for name in _DIRECTORIES)
    )


def _look(folder: AttemptFolder) -> Look:
    with os.scandir(folder.where) as entries:
        found = {
            entry.name: entry.stat(follow_symlinks=False)
            for entry in entries
            if entry.name != END_ACKNOWLEDGED  # the session's own
        }
    look = {name: _identity(status) for name, status in found.items()}
    for name in _DIRECTORIES:
        if name in found:
            look[name] = (*look[name], found[name].st_ctime_ns)
    if EXIT in found:  # it must find room also when the disk has become full
        look[EXIT] = (*look[EXIT], found[EXIT].st_size, found[EXIT].st_blocks)
    status = os.lstat(folder.where)
    return {**look, ".": _identity(status)}


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_nlink)
