"""The agent's data directory: one session at a time, and an id that stays."""

import fcntl
import os
from pathlib import Path

import uuid_utils

from agent.spool import write_pid

_LOCK = "session.lock"
_ID = "agent_id"


class InUseError(Exception):
    """Another session holds the data directory."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(
            f"the data directory {path} is in use by another muster-agent (pid {holder}); "
            "stop that one, or give this one its own --data-dir"
        )


class DataDir:
    """A data directory that this process holds until it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def claim(self) -> None:
        """Makes the directory when it is missing and takes its lock.

        Raises:
            InUseError: Another session holds it.
            OSError: It cannot be made or written.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise InUseError(self.path, holder or "unknown") from None
        write_pid(descriptor)
        self._lock = descriptor

    def release(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def agent_id(self, name: str) -> str:
        """Returns the given name, or the id that is kept here and made once."""
        if name:
            return name
        file = self.path / _ID
        if file.exists() and (kept := file.read_text(encoding="utf-8").strip()):
            return kept
        made = str(uuid_utils.uuid7())
        temporary = file.with_suffix(".tmp")
        temporary.write_text(made + "\n", encoding="utf-8")
        temporary.replace(file)
        return made
