"""Packs files of a workspace into one archive, the same bytes each time it is packed."""

import gzip
import os
import stat
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from agent.artifacts.finding import look_through, open_inside

_LEVEL = 1
"""Of gzip: the agent is to spend its time on tasks."""


class PackingStoppedError(Exception):
    """Nobody wants the archive any more."""


def pack(
    workspace: Path,
    patterns: Sequence[str],
    target: BinaryIO,
    stop: threading.Event,
    *,
    dot_files: bool = True,
) -> tuple[int, list[str]]:
    """Write the files that patterns mean as .tar.gz; return how many, and what was left out.

    Raises:
        PackingStoppedError: `stop` is set.
        OSError: A file cannot be read, or is shorter than it was; or the disk is full.
    """
    count, left_out = 0, []
    with (
        gzip.GzipFile("", "wb", _LEVEL, target, mtime=0) as packed,
        tarfile.open(mode="w|", fileobj=packed) as archive,
    ):
        for path, status in look_through(workspace, patterns, dot_files=dot_files):
            if not stat.S_ISREG(status.st_mode):
                left_out.append(path)
                continue
            with os.fdopen(open_inside(workspace, path), "rb") as file:
                archive.addfile(_about(path, os.fstat(file.fileno())), _Stoppable(file, stop))
            count += 1
    return count, left_out


def _about(path: str, status: os.stat_result) -> tarfile.TarInfo:
    told = tarfile.TarInfo(path)
    told.size, told.mtime = status.st_size, int(status.st_mtime)
    told.mode = stat.S_IMODE(status.st_mode) & 0o777
    return told


class _Stoppable:
    """A file that is read only while nobody has said to stop."""

    def __init__(self, file: BinaryIO, stop: threading.Event) -> None:
        self._file = file
        self._stop = stop

    def read(self, size: int = -1, /) -> bytes:
        if self._stop.is_set():
            raise PackingStoppedError
        return self._file.read(size)
