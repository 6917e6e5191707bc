"""Events to those who follow them, in commit order, none twice and none missed.

A follower is told by memory what this server commits, and reads the database for everything it
missed: what came before it, what another server wrote, what overflowed while it was slow.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from server.domain.errors import Draining
from server.domain.event import Event
from server.engine.writer import Committed
from server.stores.interfaces import Reader

PAGE = 1000
BACKLOG = 5000
"""Events kept for a slow follower before it is sent back to the database."""


class Follower:
    """One reader's queue of events it wants."""

    def __init__(self, wants: Callable[[Event], bool]) -> None:
        self.wants = wants
        self.news = asyncio.Event()
        self.queue: deque[Event] = deque()
        self.overflowed = False

    def push(self, event: Event) -> None:
        """Add an event, or give up on memory when there are too many."""
        if len(self.queue) >= BACKLOG:
            self.queue.clear()
            self.overflowed = True
        if not self.overflowed:
            self.queue.append(event)
        self.news.set()


class EventFeed:
    """See the module."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._followers: set[Follower] = set()
        self._stopping = False

    def stop(self) -> None:
        """End every follower with Draining."""
        self._stopping = True
        for follower in self._followers:
            follower.news.set()

    def committed(self, committed: Committed) -> None:
        """Take in a commit of the only server: tell its events."""
        for event in committed.events:
            self.tell(event)

    def tell(self, event: Event) -> None:
        """Tell an event to those who want it. Events come in commit order."""
        for follower in self._followers:
            if follower.wants(event):
                follower.push(event)

    async def follow(
        self, after: int, wants: Callable[[Event], bool]
    ) -> AsyncGenerator[Event, None]:
        """Yield wanted events after a position, for ever.

        Raises:
            Draining: the server stops.
        """
        with self._following(wants) as follower:
            cursor = after
            while True:
                # Before reading: what overflows meanwhile must be read again.
                follower.overflowed = False
                async for event in self._stored(cursor):
                    cursor = event.position
                    if wants(event):
                        yield event
                while not follower.overflowed:
                    while follower.queue:
                        event = follower.queue.popleft()
                        if event.position > cursor:
                            cursor = event.position
                            yield event
                    if not follower.overflowed:
                        if self._stopping:
                            raise Draining
                        follower.news.clear()
                        await follower.news.wait()

    async def replay(
        self, after: int, through: int, wants: Callable[[Event], bool]
    ) -> AsyncGenerator[Event, None]:
        """Yield wanted events after one position and up to another, which is stored already."""
        async for event in self._stored(after):
            if event.position > through:
                return
            if wants(event):
                yield event

    @contextmanager
    def _following(self, wants: Callable[[Event], bool]) -> Iterator[Follower]:
        follower = Follower(wants)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    async def _stored(self, after: int) -> AsyncGenerator[Event, None]:
        while True:
            page = await self._reader.events(after, PAGE)
            for event in page:
                yield event
            if len(page) < PAGE:
                return
            after = page[-1].position
