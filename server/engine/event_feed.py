"""Events to those who follow them, in commit order, none twice and none missed.

What was told lately is kept once for everybody, and each new event is put into the queues of those
who want it: a thousand followers cost the database no more than one. A follower that begins
earlier, or was too slow for its queue, reads rows until it has caught up; pages that several ask
for at once are read once.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeAlias

from server.domain.errors import CursorExpired, Draining
from server.domain.event import Event
from server.engine.writer import Committed
from server.stores.interfaces import Reader

PAGE = 1000
BACKLOG = 5000
"""Events kept for a slow follower before it is sent back to what is kept for everybody."""
RECENT = 5000
"""Events kept for everybody."""
BOOKMARK = 5000
"""After so many events, also those who wanted none of them learn how far they are."""

Wants: TypeAlias = Callable[[Event], bool]

_position = attrgetter("position")


@dataclass(frozen=True, slots=True)
class Batch:
    """Wanted events in order, maybe none, and the position to go on after."""

    events: Sequence[Event]
    cursor: int


class Follower:
    """One reader's queue of events it wants."""

    def __init__(self, wants: Wants) -> None:
        self.wants = wants
        self.news = asyncio.Event()
        self.queue: deque[Event] = deque()
        self.overflowed = False

    def push(self, event: Event) -> None:
        """Add an event, or give up on the queue when there are too many."""
        if len(self.queue) >= BACKLOG:
            self.queue.clear()
            self.overflowed = True
        if not self.overflowed:
            self.queue.append(event)
        self.news.set()

    def take(self, after: int) -> list[Event]:
        """Take the next events after a position, at most a page."""
        taken: list[Event] = []
        while self.queue and len(taken) < PAGE:
            event = self.queue.popleft()
            if event.position > after:
                taken.append(event)
        return taken


class EventFeed:
    """See the module."""

    def __init__(self, reader: Reader) -> None:
        self._pages = SharedPages(reader)
        self._followers: set[Follower] = set()
        self._recent: deque[Event] = deque()
        self._recent_after = 0
        """Every event after this position, and up to `position`, is in `_recent`."""
        self.position = 0
        """Position of the last event told."""
        self._bookmarked = 0
        self._stopping = False

    def begin(self, position: int, recent: Iterable[Event] = ()) -> None:
        """Begin after the last event there is; `recent` are the last ones up to it, if known."""
        self._recent = deque(recent)
        self.position = self._bookmarked = position
        self._recent_after = self._recent[0].position - 1 if self._recent else position

    def stop(self) -> None:
        """End every follower with Draining."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Let every follower look up."""
        for follower in self._followers:
            follower.news.set()

    def committed(self, committed: Committed) -> None:
        """Take in a commit of the only server: tell its events."""
        for event in committed.events:
            self.tell(event)

    def tell(self, event: Event) -> None:
        """Tell an event to those who want it. Events come in commit order."""
        self.position = event.position
        self._recent.append(event)
        if len(self._recent) > RECENT:
            self._recent_after = self._recent.popleft().position
        for follower in self._followers:
            if follower.wants(event):
                follower.push(event)
        if event.position - self._bookmarked >= BOOKMARK:
            self._bookmarked = event.position
            self.wake()

    async def follow(self, after: int, wants: Wants) -> AsyncGenerator[Event, None]:
        """Yield wanted events after a position, for ever.

        Raises:
            Draining: the server stops.
            CursorExpired: events after the position are gone.
        """
        async with aclosing(self.batches(after, wants)) as batches:
            async for batch in batches:
                for event in batch.events:
                    yield event

    async def batches(
        self, after: int, wants: Wants, waker: Callable[[asyncio.Event], None] | None = None
    ) -> AsyncGenerator[Batch, None]:
        """Yield wanted events after a position in batches, for ever.

        A batch without events tells how far the follower is; it comes now and then, and whenever
        what `waker` was given is set.

        Raises:
            Draining: the server stops.
            CursorExpired: events after the position are gone.
        """
        with self._following(wants) as follower:
            if waker is not None:
                waker(follower.news)
            async with aclosing(self._batches(after, follower)) as batches:
                async for batch in batches:
                    yield batch

    async def _batches(self, after: int, follower: Follower) -> AsyncGenerator[Batch, None]:
        cursor = after
        while True:
            # Before reading: what overflows meanwhile must be read again.
            follower.overflowed = False
            while (page := await self._page(cursor)) is not None:
                cursor = page.cursor
                yield Batch([event for event in page.events if follower.wants(event)], cursor)
            while not follower.overflowed:
                if events := follower.take(cursor):
                    cursor = events[-1].position
                    yield Batch(events, cursor)
                    continue
                if self._stopping:
                    raise Draining
                follower.news.clear()
                await follower.news.wait()
                if not follower.queue and not follower.overflowed:
                    cursor = max(cursor, self.position)
                    yield Batch([], cursor)

    async def replay(self, after: int, through: int, wants: Wants) -> AsyncGenerator[Event, None]:
        """Yield wanted events after one position and up to another, which is stored already.

        Raises:
            CursorExpired: events after the position are gone.
        """
        cursor = after
        while cursor < through:
            page = await self._page(cursor, through)
            if page is None:
                return
            cursor = page.cursor
            for event in page.events:
                if event.position <= through and wants(event):
                    yield event

    async def _page(self, after: int, through: int = 0) -> Batch | None:
        """Return the next events after a position, or None when nobody has told any.

        With `through` it reads on to there, even where that is ahead of what was told here.
        """
        if after >= self._recent_after and through <= self.position:
            events = self._kept(after)
        else:
            events = await self._pages.after(after)
            if not events:
                raise CursorExpired(after, max(self.position, through))
            if events[0].position > after + 1:
                raise CursorExpired(after, events[0].position - 1)
        return Batch(events, events[-1].position) if events else None

    def _kept(self, after: int) -> list[Event]:
        if after >= self.position:
            return []
        first = bisect_right(self._recent, after, key=_position)
        last = min(first + PAGE, len(self._recent))
        return [self._recent[place] for place in range(first, last)]

    @contextmanager
    def _following(self, wants: Wants) -> Iterator[Follower]:
        follower = Follower(wants)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)


class SharedPages:
    """Pages of the event log. Who asks for one that is being read gets that one."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._reading: dict[int, asyncio.Future[list[Event] | None]] = {}

    async def after(self, position: int) -> list[Event]:
        """Return up to a page of events after a position."""
        while (reading := self._reading.get(position)) is not None:
            page = await asyncio.shield(reading)
            if page is not None:  # else whoever read it was cancelled, or failed
                return page
        mine = self._reading[position] = asyncio.get_running_loop().create_future()
        page = None
        try:
            page = await self._reader.events(position, PAGE)
            return page
        finally:
            del self._reading[position]
            mine.set_result(page)
