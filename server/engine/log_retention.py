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
    quota: int = 0
    """Of each namespace, as they are stored; 0 sets no limit."""
    shared: bool = False
    """Whether several servers keep to it: what is stored is then counted for each step."""


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
        while self._limits.age or self._limits.bytes or self._limits.quota:
            await survives("log retention", self.prune)
            await asyncio.sleep(ROUND_SECONDS)

    async def prune(self) -> int:
        """Let go of what is beyond the limits; return how many logs."""
        limits, now = self._limits, self._clock.now()
        if now - self._whole_at >= WHOLE_EVERY:
            self._whole_at, self._came_to = now, 0
        dropped = 0
        if limits.age:
            dropped += await self._drop("age", now - millis(limits.age))
        if limits.bytes:
            excess = await self._excess()
            if excess > 0:
                dropped += await self._drop("size", now + 1, excess)
        if limits.quota:
            for namespace, size in (await self._reader.log_bytes_by_namespace()).items():
                if size > limits.quota:
                    dropped += await self._drop_of(namespace, now + 1, size - limits.quota)
        if dropped:
            log.info("logs_pruned", logs=dropped)
        return dropped

    async def _drop_of(self, namespace: str, before: Moment, excess: int) -> int:
        """Let go of so many bytes of a namespace's oldest logs."""
        dropped, after = 0, 0
        while excess > 0:
            found = _first(await self._reader.ended_logs(after, before, STEP, namespace), excess)
            if not found:
                break
            gone, size = await self._let_go("quota", found)
            if not gone:  # they cannot go yet
                after = found[-1].ended_at + 1
            dropped += gone
            excess -= size
            await asyncio.sleep(STEP_PAUSE)
        return dropped

    async def _excess(self) -> int:
        return await self._reader.stored_log_bytes() - self._limits.bytes

    async def _drop(self, reason: str, before: Moment, excess: int | None = None) -> int:
        """Let go of the oldest logs that ended before a moment, or of so many bytes of them.

        Logs that cannot go yet are passed, and looked at again in the next round.
        """
        dropped, after, stuck = 0, max(0, self._came_to - LATE), False
        while excess is None or excess > 0:
            found = await self._reader.ended_logs(after, before, STEP)
            if excess is not None and self._limits.shared:
                excess = await self._excess()
            found = _first(found, excess)
            if not found:
                break
            if not stuck:
                self._came_to = max(self._came_to, found[0].ended_at)
            gone, size = await self._let_go(reason, found)
            stuck = stuck or gone < len(found)
            if not gone:
                after = found[-1].ended_at + 1
            dropped += gone
            excess = None if excess is None else excess - size
            await asyncio.sleep(STEP_PAUSE)
        if excess is None and not stuck:
            self._came_to = max(self._came_to, before)
        return dropped

    async def _let_go(self, reason: str, found: Sequence[StoredLog]) -> tuple[int, int]:
        """Let logs go that may; return how many do, and how many bytes they had."""
        gone = set(await self._writer.submit(DropLogs(tuple(each.key for each in found))))
        size = sum(each.bytes for each in found if each.key in gone)
        metrics.logs_pruned.labels(reason).inc(len(gone))
        metrics.log_pruned_bytes.labels(reason).inc(size)
        return len(gone), size


def _first(found: Sequence[StoredLog], excess: int | None) -> list[StoredLog]:
    """Return the first logs that have so many bytes together, or all."""
    chosen: list[StoredLog] = []
    for each in found:
        if excess is not None and sum(log.bytes for log in chosen) >= excess:
            break
        chosen.append(each)
    return chosen
