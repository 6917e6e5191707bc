"""Keeps the logs of the past from growing without end: a few at a time, the oldest first."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from server import metrics
from server.domain.log_pruning import STEP, DropLogs
from server.domain.moment import Millis, Moment, millis
from server.engine.clock import Clock
from server.engine.surviving import survives
from server.engine.writer import Writer
from server.stores.interfaces import Reader, StoredLog

# Between two steps the writer is left to others, and between two rounds it is left alone.
STEP_PAUSE = 0.05
ROUND_SECONDS = 60.0

LATE: Millis = 3_600_000
"""How long after its task's end a log may be stored; each round looks back so far."""

WHOLE_EVERY: Millis = 24 * 3_600_000
"""After which a round begins with the oldest task again."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How much of the past's logs is kept."""

    age: timedelta
    """After the task's end; 0 keeps logs as long as their tasks."""
    bytes: int
    """As they are stored; 0 sets no limit."""


class LogRetention:
    """See the module."""

    def __init__(self, writer: Writer, reader: Reader, clock: Clock, limits: LogLimits) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._limits = limits
        self._whole_at: Moment = 0
        self._came_to: Moment = 0
        """Of tasks that ended before it nothing is left to go, but for what is stored late."""

    async def run(self) -> None:
        """Prune until cancelled; nothing to do without a limit."""
        while self._limits.age or self._limits.bytes:
            await survives("log retention", self.prune)
            await asyncio.sleep(ROUND_SECONDS)

    async def prune(self) -> int:
        """Let go of what is beyond the limits; return how many logs."""
        limits, now = self._limits, self._clock.now()
        if now - self._whole_at >= WHOLE_EVERY:
            self._whole_at, self._came_to = now, 0
        dropped = 0
        if limits.age:
            before = now - millis(limits.age)
            dropped += await self._drop("age", before)
            self._came_to = max(self._came_to, before)
        if limits.bytes:
            excess = await self._reader.stored_log_bytes() - limits.bytes
            if excess > 0:
                dropped += await self._drop("size", now + 1, excess)
        if dropped:
            log.info("logs_pruned", logs=dropped)
        return dropped

    async def _drop(self, reason: str, before: Moment, excess: int | None = None) -> int:
        """Let go of the oldest logs that ended before a moment, or of so many bytes of them."""
        dropped = 0
        while excess is None or excess > 0:
            after = max(0, self._came_to - LATE)
            found = _first(await self._reader.ended_logs(after, before, STEP), excess)
            gone = set(await self._writer.submit(DropLogs(tuple(each.key for each in found))))
            size = sum(each.bytes for each in found if each.key in gone)
            metrics.logs_pruned.labels(reason).inc(len(gone))
            metrics.log_pruned_bytes.labels(reason).inc(size)
            if not gone:
                break
            dropped += len(gone)
            excess = None if excess is None else excess - size
            self._came_to = max(self._came_to, found[0].ended_at)
            await asyncio.sleep(STEP_PAUSE)
        return dropped


def _first(found: Sequence[StoredLog], excess: int | None) -> list[StoredLog]:
    """Return the first logs that have so many bytes together, or all."""
    chosen: list[StoredLog] = []
    for each in found:
        if excess is not None and sum(log.bytes for log in chosen) >= excess:
            break
        chosen.append(each)
    return chosen
