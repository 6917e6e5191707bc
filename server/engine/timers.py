"""Things that become due by themselves, at the moment they are due: no polling for work."""

import asyncio
import random

from server.domain.moment import Moment
from server.domain.timing import RunTimers
from server.engine.clock import Clock
from server.engine.surviving import survives
from server.engine.writer import Committed, Writer
from server.stores.interfaces import Reader

# Stands behind the exact timer: a clock that was set, or another server that has died.
LOOK_AGAIN = 15.0
RETRY_SECONDS = 1.0
CLOCKS_APART = 0.01


class Timers:
    """Sleeps until the next due moment, then lets the domain do what is due."""

    def __init__(self, writer: Writer, reader: Reader, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._next: Moment | None = None
        self._sooner = asyncio.Event()

    def committed(self, committed: Committed) -> None:
        """Take in a commit: something may be due sooner than thought."""
        due = committed.effects.next_due
        if due is not None and (self._next is None or due < self._next):
            self._next = due
            self._sooner.set()

    async def run(self) -> None:
        """Run timers until cancelled."""
        while True:
            if not await survives("timers", self._round):
                await asyncio.sleep(RETRY_SECONDS)

    async def _round(self) -> None:
        # A commit may say of something sooner while the database is asked.
        self._next = None
        self._sooner.clear()
        found = await self._reader.next_due()
        self._next = min((m for m in (found, self._next) if m is not None), default=None)
        if self._next is not None and self._next <= self._clock.now():
            while await self._writer.submit(RunTimers()):
                pass
            # Where the database's clock is a little behind ours, it is not due there yet.
            await asyncio.sleep(CLOCKS_APART)
            return
        await self._sleep()

    async def _sleep(self) -> None:
        """Sleep until the next due moment, or until something is due sooner."""
        while True:
            try:
                async with asyncio.timeout(self._seconds()):
                    await self._sooner.wait()
                    self._sooner.clear()
            except TimeoutError:
                return

    def _seconds(self) -> float:
        longest = LOOK_AGAIN * random.uniform(0.8, 1.2)  # noqa: S311 (spreads load, hides nothing)
        if self._next is None:
            return longest
        return min(longest, max(0.0, (self._next - self._clock.now()) / 1000))
