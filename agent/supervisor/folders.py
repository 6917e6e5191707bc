"""Keeps the folders of attempts: the files of one that its task left alone serve another.

To make a folder with its files, and to delete it, costs more than all else that a short task needs;
on ext4 the more, the more files were deleted in the last minutes. The directories that are a task's
own are made anew each time: whoever still holds those of an earlier task, or has mounted something
there, must not reach the next one's.
"""

import contextlib
import itertools
import json
import os
from collections import deque
from dataclasses import dataclass

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

_DIRECTORIES = (WORKSPACE, TEMPORARY)

Look = dict[str, tuple[object, ...]]
"""What tells files from others, by name; the folder itself is a dot."""


@dataclass(frozen=True)
class _Made:
    """A folder that was made here, and how it looked then."""

    folder: AttemptFolder
    look: Look


class Folders:
    """Makes the folders of attempts, and takes them back."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._shelf = spool.shelf
        self._numbers = itertools.count()
        self._spares: deque[_Made] = deque()
        self._used: dict[str, _Made] = {}
        """How each attempt's folder was made."""

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

    def end(self, folder: AttemptFolder, *, again: bool = True) -> bool:
        """Takes an attempt's folder back.

        Args:
            folder: The attempt's.
            again: Whether it may serve another; not when something of its task may still live.

        Returns:
            Whether it is gone; else what is left of it needs `AttemptFolder.remove`.
        """
        made = self._used.pop(folder.where, None)
        try:
            if made is not None and again and len(self._spares) < _MOST_SPARES:
                return self._keep(folder, made)
        except OSError:  # its task did something to it
            pass
        return folder.remove_plain()

    def drop(self, folder: AttemptFolder) -> None:
        """Deletes the folder of an attempt that did not start."""
        self._used.pop(folder.where, None)
        folder.remove()

    def _make(self) -> _Made:
        folder = self._make_folder()
        try:
            _make_directories(folder)
            for name in (TASK, SCRIPT, FIRST_SEGMENT):
                folder.overwrite(name, b"")
            folder.reserve(EXIT, POSITION)
            folder.put(EXIT)
            return _Made(folder, _look(folder))
        except OSError:
            folder.remove()
            raise

    def _make_folder(self) -> AttemptFolder:
        while True:
            folder = AttemptFolder(self._shelf / str(next(self._numbers)))
            # There may be one that could not be deleted, as when something is mounted in it.
            with contextlib.suppress(FileExistsError):
                folder.path.mkdir(mode=0o700)
                return folder

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
        self._used[folder.where] = made

    def _keep(self, folder: AttemptFolder, made: _Made) -> bool:
        """Takes a folder for another attempt, unless its task changed more than what it printed.

        Raises:
            OSError: It cannot be looked at, or has something in it; it stays where it is.
        """
        if _look(folder) != made.look:
            return folder.remove_plain()
        for name in _DIRECTORIES:  # which also tells whether they are empty, and nobody's mount
            folder.rmdir(name)
        folder.move(made.folder)  # from here on it is nobody's
        try:
            _make_directories(made.folder)
            # Now and not before its next use: ext4 hastens to write what follows in one opening.
            made.folder.overwrite(FIRST_SEGMENT, b"")
            for name in (SCRIPT, TASK, EXIT):  # not shortened, which would cost more
                made.folder.blank(name)
            made.folder.unlink(END_ACKNOWLEDGED)
        except OSError:
            made.folder.remove()
        else:
            self._spares.append(made)
        return True


def _make_directories(folder: AttemptFolder) -> None:
    for name in _DIRECTORIES:
        folder.mkdir(name)


def _look(folder: AttemptFolder) -> Look:
    with os.scandir(folder.where) as entries:
        found = {
            entry.name: entry.stat(follow_symlinks=False)
            for entry in entries
            # The task's own, which are made anew, and the session's.
            if entry.name not in (*_DIRECTORIES, END_ACKNOWLEDGED)
        }
    look = {name: _identity(status) for name, status in found.items()}
    if EXIT in found:  # it must find room also when the disk has become full
        look[EXIT] = (*look[EXIT], found[EXIT].st_size, found[EXIT].st_blocks)
    marks = folder.marks()  # also a list of who may enter is one, which new files would inherit
    return {**look, ".": (*_identity(os.lstat(folder.where)), *marks)}


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_nlink)
