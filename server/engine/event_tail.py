"""Events of every server on a shared database, in commit order, to those here who need them.

Only where servers share a database. Position order is commit order there, so one reader per server
that goes on after the last position it saw misses nothing. Hints make it look at once; a jittered
poll stands behind them.
"""

import asyncio
import random
from collections.abc import Callable

from server.domain.event import Event
from server.engine.surviving import survives
from server.engine.writer import Committed
from server.stores.interfaces import Reader

PAGE = 1000
LOOK_EVERY = 1.0


class EventTail:
    """See the module."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._position = 0
        self._own: set[int] = set()
        self._hinted = asyncio.Event()
        self._every: list[Callable[[Event], None]] = []
        self._foreign: list[Callable[[Event], None]] = []

    def tell_every(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every event, in commit order."""
        self._every.append(listener)

    def tell_foreign(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every event that another server wrote."""
        self._foreign.append(listener)

    def committed(self, committed: Committed) -> None:
        """Take in a commit of this server."""
        if committed.events:
            positions = (event.position for event in committed.events)
            # The loop may have read them already.
            self._own.update(p for p in positions if p > self._position)
            self._hinted.set()

    def hint(self) -> None:
        """Look at once: another server has written something."""
        self._hinted.set()

    async def start(self) -> int:
        """Begin after the last event there is; return its position."""
        self._position = await self._reader.last_position()
        return self._position

    async def run(self) -> None:
        """Read events until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY * random.uniform(0.7, 1.3)):  # noqa: S311 (spreads load)
                    await self._hinted.wait()
            except TimeoutError:
                pass
            self._hinted.clear()
            if not await survives("events", self._read):
                await asyncio.sleep(LOOK_EVERY)

    async def _read(self) -> None:
        while True:
            events = await self._reader.events(self._position, PAGE)
            for event in events:
                self._position = event.position
                self._pass_on(event)
            if len(events) < PAGE:
                return

    def _pass_on(self, event: Event) -> None:
        for listener in self._every:
            listener(event)
        if event.position in self._own:
            self._own.discard(event.position)
            return
        for listener in self._foreign:
            listener(event)
