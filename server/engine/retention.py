"""Keeps the past from growing without end: a little at a time, while new work goes on."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog

from server.domain.moment import millis
from server.domain.pruning import EVENT_STEP, STEP, PruneRest, PruneTasks
from server.engine.clock import Clock
from server.engine.surviving import survives
from server.engine.writer import Writer
from server.stores.interfaces import Reader

# Between two steps the writer is left to others, and between two rounds it is left alone.
STEP_PAUSE = 0.05
ROUND_SECONDS = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the past is kept."""

    task_age: timedelta
    task_count: int
    event_age: timedelta
    event_count: int
    audit_age: timedelta = timedelta(days=365)


class Retention:
    """See the module."""

    def __init__(self, writer: Writer, reader: Reader, clock: Clock, limits: Limits) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._limits = limits

    async def run(self) -> None:
        """Prune until cancelled."""
        while True:
            await survives("retention", self.prune)
            await asyncio.sleep(ROUND_SECONDS)

    async def prune(self) -> int:
        """Remove everything that is beyond the limits; return how many rows."""
        limits, now = self._limits, self._clock.now()
        by_count = await self._reader.ended_tasks_beyond(limits.task_count)
        before = max(now - millis(limits.task_age), by_count or 0)
        removed = 0
        while count := await self._writer.submit(PruneTasks(before)):
            removed += count
            await asyncio.sleep(STEP_PAUSE)
            if count < STEP:
                break
        last = await self._reader.last_position()
        rest = PruneRest(
            events_before=now - millis(limits.event_age),
            events_through=max(0, last - limits.event_count),
            runs_before=before,
            audit_before=now - millis(limits.audit_age),
        )
        while count := await self._writer.submit(rest):
            removed += count
            await asyncio.sleep(STEP_PAUSE)
            if count < min(STEP, EVENT_STEP):
                break
        if removed:
            log.info("pruned", rows=removed)
        return removed
