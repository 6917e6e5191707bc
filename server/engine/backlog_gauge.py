"""What waits for agents and for places in groups, for Prometheus: looked at only when it asks."""

import asyncio
from collections import Counter, defaultdict
from math import nan

from server import metrics
from server.domain.labels import Selector
from server.domain.moment import SECOND
from server.engine.clock import Clock
from server.engine.dispatcher import Dispatcher
from server.engine.surviving import survives
from server.stores.interfaces import Reader

CLASSES_SHOWN = 20
OTHER = "other"
"""Label of all classes that are not shown; no selector reads so."""
TEXT_LIMIT = 80

COUNT_LIMIT = 100_000
"""How far the tasks of a queue or a group are counted."""
OLDEST_AMONG = 1000
"""How many tasks of a queue, first in line, the oldest is sought among."""

FRESH_SECONDS = 5.0
REST = 50
"""How many times as long as a look took nobody looks again: at most 2 % of the time is spent."""


class BacklogGauge:
    """See the module."""

    def __init__(self, dispatcher: Dispatcher, reader: Reader, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._reader = reader
        self._clock = clock
        self._again_at = 0.0
        self._looking = asyncio.Lock()

    async def look(self) -> None:
        """Set the series unless they were set a moment ago; no database, no series."""
        async with self._looking:
            began = self._clock.monotonic()
            if began < self._again_at:
                return
            if not await survives("backlog", self._look):
                _show_nothing()
            ended = self._clock.monotonic()
            self._again_at = ended + max(FRESH_SECONDS, REST * (ended - began))

    async def _look(self) -> None:
        queues = self._dispatcher.queues()
        backlogs = await self._reader.backlogs(list(queues), COUNT_LIMIT, OLDEST_AMONG)
        groups = await self._reader.group_waits(COUNT_LIMIT)
        metrics.group_waiting_tasks.set(groups.tasks)
        metrics.waiting_groups.set(groups.groups)
        now = self._clock.now()
        depths: Counter[str] = Counter()
        ages: dict[str, float] = defaultdict(float)
        for queue, backlog in backlogs.items():
            text = class_text(queues[queue], queue.class_key)
            depths[text] += backlog.tasks
            ages[text] = max(ages[text], (now - backlog.oldest) / SECOND)
        _show(depths, ages)


def class_text(selector: Selector, class_key: str) -> str:
    """Return what a class is called: its selector, cut where it is long."""
    text = selector.describe()
    return text if len(text) <= TEXT_LIMIT else f"{text[: TEXT_LIMIT - 10]}… {class_key[:8]}"


def _show(depths: Counter[str], ages: dict[str, float]) -> None:
    metrics.queue_tasks.clear()
    metrics.queue_oldest.clear()
    shown = [text for text, _ in depths.most_common(CLASSES_SHOWN)]
    others = depths.keys() - set(shown)
    for text in shown:
        metrics.queue_tasks.labels(text).set(depths[text])
        metrics.queue_oldest.labels(text).set(ages[text])
    metrics.queue_tasks.labels(OTHER).set(sum(depths[text] for text in others))
    metrics.queue_oldest.labels(OTHER).set(max((ages[text] for text in others), default=0.0))


def _show_nothing() -> None:
    metrics.queue_tasks.clear()
    metrics.queue_oldest.clear()
    metrics.group_waiting_tasks.set(nan)
    metrics.waiting_groups.set(nan)
