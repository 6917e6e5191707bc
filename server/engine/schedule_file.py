"""Keeps schedules as a file says: at the start, and whenever the file changes."""

import asyncio
from pathlib import Path

import structlog

from server.definition.problem import Refused
from server.definition.schedule_file import read_schedules
from server.domain.scheduling import ReconcileSchedules
from server.engine.surviving import survives
from server.engine.writer import Writer

LOOK_SECONDS = 2.0
TRY_AGAIN = 15
"""Looks after which a file is taken again of which something could not be done."""

log = structlog.get_logger(__name__)


class ScheduleFile:
    """See the module. A file that is malformed or away leaves everything as it is."""

    def __init__(self, path: Path, writer: Writer) -> None:
        self._path = path
        self._writer = writer
        self._seen: tuple[int, int] | None = None
        self._again_in = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await survives("schedule file", self.look)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Take the file if it is another than before, or something of it is left to do."""
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_size)
            self._again_in -= 1
            if seen == self._seen and self._again_in != 0:
                return
            data = self._path.read_bytes()
        except OSError as error:
            if self._seen != (0, 0):
                log.warning("schedule file cannot be read", file=str(self._path), error=str(error))
            self._seen = (0, 0)
            return
        try:
            wanted = read_schedules(self._path.name, data)
        except Refused as refused:
            for line in refused.describe(self._path.name):
                log.warning("schedule file is malformed; schedules stay as they are", problem=line)
        else:
            problems = await self._writer.submit(ReconcileSchedules(tuple(wanted)))
            for problem in problems:
                log.warning("schedule of the file left out", problem=problem)
            self._again_in = TRY_AGAIN if problems else 0
            log.info("schedule file taken", file=str(self._path), schedules=len(wanted))
        self._seen = seen
