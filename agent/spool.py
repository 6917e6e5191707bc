"""What survives the agent's two processes: one folder an attempt, its output in segments.

Standard library only, because the supervisor reads and writes here too. Nothing is fsynced: the
spool survives kill -9 of both processes, not a loss of power.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

SEGMENT_BYTES = 8 * 1024 * 1024
"""Size at which a segment is closed and the next one begun."""

RECORD = struct.Struct(">QBI")
"""Head of a record: time in Unix milliseconds, stream, length of the bytes that follow."""

STREAMS = {1: "stdout", 2: "stderr"}
"""What the stream numbers of a record mean."""

TASK, EXIT, POSITION = "task.json", "exit.json", "position.json"
"""Names of the files beside the segments."""

SCRIPT, WORKSPACE, TEMPORARY = "script", "workspace", "tmp"
"""What the task runs, and the folders that are its own."""

NO_ROOM = "no_room"
"""Cause of an end that is none: the disk had no room to start the task."""

SPARE_BYTES = 64 * 1024 * 1024
"""Free disk that is left alone."""

_SPARE_SHARE = 20
"""On a small disk, the spare is this part of it instead."""

_RESERVED = {EXIT: 16384, POSITION: 4096}
"""Files that must find room also when the disk has become full, and the room they take."""

_TRIAL_BYTES = 64 * 1024

_RUINED = (
    *(errno.ENOENT, errno.EISDIR, errno.ENOTDIR),
    *(errno.ELOOP, errno.ESPIPE, errno.ENXIO),
    *(errno.EACCES, errno.EPERM),
)
"""Errors of reading what a task deleted, replaced (by a folder, a link, a pipe), or closed."""

_LONGEST_JSON = 4 * 1024 * 1024
"""Bytes of a JSON file that are read: no true one is longer."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
FIRST_SEGMENT = "out-00000000.seg"
_END = b"\0"
"""Ends what is said in a file that is longer; no JSON text has it."""

END_ACKNOWLEDGED = "end-acknowledged.json"
"""Says to the next session that the server has the end, while it does not have all of the log."""

CONCLUDED = "concluded.json"
"""Says to the next session how the task ended once its artifacts were dealt with."""

_SEGMENT_NAME = re.compile(r"out-(\d{8})\.seg")


class AttemptFolder:
    """One attempt's folder in the spool."""

    def __init__(self, path: Path | str) -> None:
        self.where = str(path)

    @cached_property
    def path(self) -> Path:
        """Where it is; `where` says the same without the cost of a Path."""
        return Path(self.where)

    @property
    def workspace(self) -> Path:
        """Where the task's script starts and finds its HOME."""
        return self.path / WORKSPACE

    @property
    def exists(self) -> bool:
        """Whether the folder is there."""
        return os.path.isdir(self.where)  # noqa: PTH112 - as a string: fast

    def read(self, name: str) -> dict[str, Any] | None:
        """Returns the named JSON file with what was added to it, or None when it is no JSON."""
        first, *added = self._said(name).splitlines() or [b""]
        try:
            value = json.loads(first)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict):
            return None
        for line in added:
            # Cut short by a full disk.
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                value |= json.loads(line)
        return value

    def _said(self, name: str) -> bytes:
        """Returns what a file says: nothing when a task put something else in its place."""
        try:
            with _opened(f"{self.where}/{name}", os.O_RDONLY) as file:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    return b""
                return os.pread(file, _LONGEST_JSON, 0).partition(_END)[0]
        except OSError as error:
            if error.errno in _RUINED:
                return b""
            raise

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Replaces the named JSON file in one step, so that a reader never sees half of it."""
        data = json.dumps(value).encode()
        # Not truncated: what `reserve` took must not be given away.
        with _opened(self._temporary(name)) as file:
            _write_all(file, data)
            if os.fstat(file).st_size > len(data):
                _write_all(file, _END, len(data))
        self.put(name)

    def put(self, name: str) -> None:
        """Puts what was written, or reserved, in the named file's place."""
        os.replace(self._temporary(name), f"{self.where}/{name}")  # noqa: PTH105 - as strings: fast

    def take_away(self, name: str) -> None:
        """Lets the named file be what its next `write` needs."""
        os.replace(f"{self.where}/{name}", self._temporary(name))  # noqa: PTH105 - as strings: fast

    def overwrite(self, name: str, data: bytes) -> None:
        """Writes a file anew, where nobody reads it yet."""
        with _opened(f"{self.where}/{name}") as file:
            _write_all(file, data)
            if os.fstat(file).st_size > len(data):
                os.ftruncate(file, len(data))

    def blank(self, name: str) -> None:
        """Lets a file say nothing, and keep the disk that it has."""
        with _opened(f"{self.where}/{name}", os.O_RDWR) as file:
            said = os.pread(file, os.fstat(file).st_size, 0).rstrip(_END)
            _write_all(file, _END * len(said))

    def marks(self) -> list[str]:
        """Returns the names of the folder's extended attributes, where there are such."""
        try:
            return os.listxattr(self.where, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return []
            raise

    def add(self, name: str, more: dict[str, Any]) -> None:
        """Adds to the named JSON file, which is there; cheaper than to replace it."""
        file = open_plain(f"{self.where}/{name}", os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, b"\n" + json.dumps(more).encode())
        finally:
            os.close(file)

    def reserve(self, *names: str) -> None:
        """Takes the disk that the next `write` of each file needs.

        Raises:
            OSError: There is no room.
        """
        for name in names:
            with _opened(self._temporary(name)) as file:
                os.posix_fallocate(file, 0, _RESERVED[name])

    def _temporary(self, name: str) -> str:
        return f"{self.where}/{name}.tmp"

    def move(self, to: "AttemptFolder") -> None:
        """Puts all of it in another one's place, which is free, in one step."""
        os.rename(self.where, to.where)  # noqa: PTH104 - as strings: fast

    def unlink(self, name: str) -> None:
        """Deletes the named file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.where}/{name}")  # noqa: PTH108 - as a string: fast

    def mkdir(self, name: str) -> None:
        """Makes the named directory, which only this user may enter."""
        os.mkdir(f"{self.where}/{name}", mode=0o700)  # noqa: PTH102 - as a string: fast

    def rmdir(self, name: str) -> None:
        """Deletes the named directory, which must be empty."""
        os.rmdir(f"{self.where}/{name}")  # noqa: PTH106 - as a string: fast

    def remove_plain(self) -> bool:
        """Deletes the folder if nothing is in it but what a task without any file leaves.

        Returns:
            Whether it is gone; else what is left of it needs `remove`.
        """
        try:
            # By way of a descriptor: a task may have put a link to elsewhere in its folder's place.
            folder = os.open(self.where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            # First of all task.json: without it the rest is nobody's.
            for name in (TASK, EXIT, SCRIPT, f"{POSITION}.tmp", FIRST_SEGMENT):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
            for name in (WORKSPACE, TEMPORARY):
                os.rmdir(name, dir_fd=folder)
            self.path.rmdir()
        except OSError:
            return False
        finally:
            os.close(folder)
        return True

    def remove(self) -> None:
        """Deletes the folder, also where the task took permissions away."""
        seen: set[str] = set()

        def allow_and_retry(function: Callable[[str], object], path: str, _: object) -> None:
            if path in seen:
                return
            seen.add(path)
            with contextlib.suppress(OSError):
                os.chmod(os.path.dirname(path), 0o700)  # noqa: PTH101, PTH120 - rmtree hands strings
                os.chmod(path, 0o700)  # noqa: PTH101 - rmtree hands strings
                if function in (os.unlink, os.rmdir):
                    function(path)
                else:  # a folder that could not be looked into
                    shutil.rmtree(path, onerror=allow_and_retry)

        shutil.rmtree(self.path, onerror=allow_and_retry)

    def segment(self, number: int) -> Path:
        """Returns the path of a segment."""
        return self.path / f"out-{number:08d}.seg"

    def segments(self) -> list[int]:
        """Returns the numbers of the segments that are there, in order."""
        try:
            names = [entry.name for entry in os.scandir(self.where)]
        except OSError as error:
            if error.errno in _RUINED:
                return []
            raise
        return sorted(int(found[1]) for name in names if (found := _SEGMENT_NAME.fullmatch(name)))

    def output(self, segment: int, offset: int, size: int) -> bytes:
        """Returns so many bytes at a place in the output, or what there is of them."""
        try:
            with _opened(self.segment(segment), os.O_RDONLY) as file:
                return os.pread(file, size, offset)
        except OSError as error:
            if error.errno in _RUINED:
                return b""
            raise

    def append_output(self, stream: int, time: int, data: bytes) -> None:
        """Adds a record to the output of an attempt that nobody else writes for any more.

        Raises:
            OSError: There is no room, or the task ruined its folder.
        """
        last = max(self.segments(), default=0)
        with _opened(self.segment(last)) as file:
            _write_all(file, RECORD.pack(time, stream, len(data)) + data, os.fstat(file).st_size)

    def unread_bytes(self, segment: int, offset: int) -> int:
        """Returns how many bytes lie at and after a place in the output."""
        total = -offset
        for number in self.segments():
            if number >= segment:
                with contextlib.suppress(OSError):
                    total += self.segment(number).lstat().st_size
        return max(total, 0)


class Spool:
    """All attempts of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "spool"

    @property
    def shelf(self) -> Path:
        """Where folders for later attempts are kept: on the same volume, and no attempt's name."""
        return self.path / ".spare"

    def create(self) -> None:
        """Makes the spool's folder when it is missing."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def folder(self, lease_id: str) -> AttemptFolder:
        """Returns the folder of a lease's attempt, which may not exist."""
        return AttemptFolder(f"{self.path}/{folder_name(lease_id)}")

    def folders(self) -> list[AttemptFolder]:
        """Returns every attempt's folder, in order of name."""
        found = (entry for entry in self.path.iterdir() if not entry.name.startswith("."))
        return [AttemptFolder(entry) for entry in sorted(found) if entry.is_dir()]

    def trash(self) -> list[AttemptFolder]:
        """Returns folders whose removal had begun."""
        return [AttemptFolder(path) for path in self.path.glob(".trash-*")]

    def takes_more(self) -> bool:
        """Tells whether another task finds room here; also a quota may say no."""
        trial = self.path / ".trial"
        try:
            self.create()  # other hands may have deleted it
            with _opened(trial) as file:
                os.posix_fallocate(file, 0, _TRIAL_BYTES)
            return has_room(self.path)
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                trial.unlink()


def has_room(path: Path | str, spare: int = SPARE_BYTES) -> bool:
    """Tells whether a disk has more free bytes than are to be left alone."""
    disk = os.statvfs(path)
    share = disk.f_blocks * disk.f_frsize // _SPARE_SHARE
    return disk.f_bavail * disk.f_frsize >= min(spare, share)


def is_full(error: OSError) -> bool:
    """Tells whether an error means that the disk, a quota or a limit on files is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def may_pass(error: OSError) -> bool:
    """Tells whether the same again may work later, with nothing else changed."""
    scarce = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR)
    return is_full(error) or error.errno in scarce


def write_pid(lock: int) -> None:
    """Says in a lock file who holds it, as far as the disk allows: the lock holds without it."""
    with contextlib.suppress(OSError):
        # Always as long, and never truncated: so it finds room on a full disk too.
        os.pwrite(lock, f"{os.getpid():<20}\n".encode(), 0)


@contextlib.contextmanager
def _opened(path: Path | str, how: int = os.O_WRONLY | os.O_CREAT) -> Iterator[int]:
    file = open_plain(path, how)
    try:
        yield file
    finally:
        os.close(file)


def open_plain(path: Path | str, how: int) -> int:
    """Opens a file where a task may have put a link or a pipe; neither leads or waits anywhere.

    Raises:
        OSError: It cannot be opened, or is none that can be written.
    """
    return os.open(path, how | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


def _write_all(file: int, data: bytes, offset: int = 0) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


def folder_name(lease_id: str) -> str:
    """Returns a name that is safe as a folder's, and another one for each lease."""
    if _PLAIN_NAME.fullmatch(lease_id):
        return lease_id
    return "x" + hashlib.sha256(lease_id.encode()).hexdigest()
