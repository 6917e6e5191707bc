"""Stops tasks whose workspaces outgrow what this host gives each."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from agent.executor import TaskRun

LOOK_SECONDS = 5.0
"""Pause between two looks at least."""

SHARE = 20
"""A look takes at most one in so many seconds: large trees are looked at less often."""

_BLOCK = 512
"""Bytes that `st_blocks` counts by, whatever the file system's own blocks are."""


class WorkspaceQuota:
    """See the module."""

    def __init__(
        self,
        limit: int,
        at_work: Callable[[], Iterable[TaskRun]],
        stop: Callable[[TaskRun, str, str], None],
    ) -> None:
        self._limit = limit
        self._at_work = at_work
        self._stop = stop

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            begun = time.monotonic()
            for run in self._at_work():
                await self._look(run)
            await asyncio.sleep(max(LOOK_SECONDS, SHARE * (time.monotonic() - begun)))

    async def _look(self, run: TaskRun) -> None:
        if await asyncio.to_thread(holds_more, run.folder.workspace, self._limit):
            self._stop(
                run,
                "quota",
                f"the workspace holds more than {self._limit >> 20} MiB, which is what this host"
                " gives each task (--workspace-quota)",
            )


def holds_more(folder: Path, limit: int) -> bool:
    """Tells whether a folder takes more bytes of the disk; no link is followed.

    What cannot be looked into counts nothing, and a file with several names counts once.
    """
    seen: set[tuple[int, int]] = set()
    used = 0
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif status.st_nlink > 1:
                        inode = (status.st_dev, status.st_ino)
                        if inode in seen:
                            continue
                        seen.add(inode)
                    used += status.st_blocks * _BLOCK
                    if used > limit:
                        return True
        except OSError:  # gone meanwhile
            continue
    return False
