"""Whether this host can start another task: mostly, whether the spool's disk has room."""

import asyncio
from collections.abc import Callable

import structlog

from agent.backoff import Backoff
from agent.spool import Spool

_FIRST_LOOK = 1.0
_RAREST_LOOK = 30.0
"""Seconds between looks at what is lacking, at most: tasks come and go with each that is wrong."""

_log = structlog.get_logger("agent.room")


class Room:
    """Knows from the supervisor that tasks cannot start, and finds out by itself when to try again.

    Attributes:
        enough: Whether tasks may be taken.
        changed: Called whenever `enough` has changed.
    """

    def __init__(self, spool: Spool, group: asyncio.TaskGroup) -> None:
        self.enough = True
        self.changed: Callable[[], None] = lambda: None
        self._spool = spool
        self._group = group
        self._backoff = Backoff(_FIRST_LOOK, _RAREST_LOOK)
        self._looking: asyncio.Task[None] | None = None

    def lack(self, reason: str) -> None:
        """Notes that a task could not be started."""
        if self.enough:
            self.enough = False
            _log.error("cannot start tasks: taking none for a while", reason=reason)
            self._looking = self._group.create_task(self._look())
            self.changed()

    def prove(self) -> None:
        """Notes that a task was started."""
        self._backoff.reset()

    def close(self) -> None:
        """Stops looking."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        while not self.enough:
            await asyncio.sleep(self._backoff.next())
            self.enough = await asyncio.to_thread(self._spool.takes_more)
        _log.info("taking tasks again")
        self.changed()
