"""Measurements of agents to those who follow agents: the latest of each, never a queue."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Measured: TypeAlias = dict[str, Any]


class Watcher:
    """What one follower has not been told yet."""

    def __init__(self) -> None:
        self.fresh: dict[str, Measured] = {}
        self.news: asyncio.Event | None = None

    def wake_by(self, news: asyncio.Event) -> None:
        """Take the event that wakes the follower."""
        self.news = news

    def take(self) -> dict[str, Measured]:
        """Take what came since the last time, by agent."""
        fresh, self.fresh = self.fresh, {}
        return fresh


class Measurements:
    """See the module."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    @property
    def watched(self) -> bool:
        """Whether anybody follows."""
        return bool(self._watchers)

    def tell(self, agent_id: str, measured: Measured) -> None:
        """Tell what an agent measured to everybody who follows."""
        for watcher in self._watchers:
            known = watcher.fresh.get(agent_id)
            if known is None or known["at"] < measured["at"]:
                watcher.fresh[agent_id] = measured
                if watcher.news is not None:
                    watcher.news.set()

    @contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Give a watcher for as long as the block lasts."""
        watcher = Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
