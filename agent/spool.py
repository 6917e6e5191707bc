"""What survives the agent's two processes: one folder an attempt, its output in segments.

Standard library only, because the supervisor reads and writes here too. Nothing is fsynced: the
spool survives kill -9 of both processes, not a loss of power.
"""

import hashlib
import json
import os
import re
import struct
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

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_SEGMENT_NAME = re.compile(r"out-(\d{8})\.seg")


class AttemptFolder:
    """One attempt's folder in the spool."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def workspace(self) -> Path:
        """Where the task's script starts and finds its HOME."""
        return self.path / "workspace"

    @property
    def exists(self) -> bool:
        """Whether the folder is there."""
        return self.path.is_dir()

    def read(self, name: str) -> dict[str, Any] | None:
        """Returns the named JSON file, or None when it is missing or no JSON."""
        try:
            value = json.loads((self.path / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Replaces the named JSON file in one step, so that a reader never sees half of it."""
        temporary = self.path / f"{name}.tmp"
        temporary.write_bytes(json.dumps(value).encode())
        temporary.replace(self.path / name)

    def segment(self, number: int) -> Path:
        """Returns the path of a segment."""
        return self.path / f"out-{number:08d}.seg"

    def segments(self) -> list[int]:
        """Returns the numbers of the segments that are there, in order."""
        try:
            names = [entry.name for entry in os.scandir(self.path)]
        except FileNotFoundError:
            return []
        return sorted(int(found[1]) for name in names if (found := _SEGMENT_NAME.fullmatch(name)))

    def unread_bytes(self, segment: int, offset: int) -> int:
        """Returns how many bytes lie at and after a place in the output."""
        total = -offset
        for number in self.segments():
            if number >= segment:
                total += self.segment(number).stat().st_size
        return max(total, 0)


class Spool:
    """All attempts of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "spool"

    def create(self) -> None:
        """Makes the spool's folder when it is missing."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def folder(self, lease_id: str) -> AttemptFolder:
        """Returns the folder of a lease's attempt, which may not exist."""
        return AttemptFolder(self.path / folder_name(lease_id))

    def folders(self) -> list[AttemptFolder]:
        """Returns every attempt's folder, in order of name."""
        found = (entry for entry in self.path.iterdir() if not entry.name.startswith("."))
        return [AttemptFolder(entry) for entry in sorted(found) if entry.is_dir()]


def folder_name(lease_id: str) -> str:
    """Returns a name that is safe as a folder's, and another one for each lease."""
    if _PLAIN_NAME.fullmatch(lease_id):
        return lease_id
    return "x" + hashlib.sha256(lease_id.encode()).hexdigest()
