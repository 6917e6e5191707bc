import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.changes import Effects
from server.domain.errors import CursorExpired, Draining
from server.engine import event_feed
from server.engine.event_feed import EventFeed
from server.engine.writer import Committed
from tests.fakes.memory_reader import MemoryReader
from tests.fakes.memory_source import MemoryDatabase
from tests.fakes.virtual_time import VirtualTimeLoop, in_virtual_time, settle
from tests.records import event, new


class Paper:
    """A feed over memory, with somebody who writes."""

    def __init__(self, seconds=0.0):
        self.database = MemoryDatabase()
        self.reader = MemoryReader(self.database, seconds)
        self.feed = EventFeed(self.reader)
        self.read = []
        self.cursors = []

    def write(self, count=1):
        """Commit events."""
        events = [event() for _ in range(count)]
        self.database.transact_now(lambda source: source.save(new(events=events)))
        self.feed.committed(Committed([], events, Effects()))

    def forget(self, through):
        """Prune what was written up to a position."""
        self.database.transact_now(lambda source: source.prune_events(0, through, 10_000))

    async def note_batches(self, after=0, *, wants=lambda _: True):
        async with aclosing(self.feed.batches(after, wants)) as batches:
            async for batch in batches:
                self.read += [each.position for each in batch.events]
                self.cursors.append(batch.cursor)

    async def follow(self, after=0, *, wants=lambda _: True, slow=0.0):
        async with aclosing(self.feed.follow(after, wants)) as events:
            async for each in events:
                self.read.append(each.position)
                if slow:
                    await asyncio.sleep(slow)


@in_virtual_time
async def test_a_follower_gets_what_was_and_what_comes_in_order():
    paper = Paper()
    paper.write(5)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(paper.follow(2))
        await settle()
        assert paper.read == [3, 4, 5]
        paper.write(2)
        await settle()
        assert paper.read == [3, 4, 5, 6, 7]
        following.cancel()
    assert paper.feed._followers == set()


@in_virtual_time
async def test_more_than_a_page_is_read_in_pages(monkeypatch):
    monkeypatch.setattr(event_feed, "PAGE", 3)
    paper = Paper()
    paper.write(10)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(paper.follow())
        await settle()
        assert paper.read == list(range(1, 11))
        following.cancel()


@in_virtual_time
async def test_what_is_committed_while_the_store_is_read_comes_once():
    paper = Paper(seconds=1.0)
    paper.write(2)
    paper.feed.begin(2)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(paper.follow())
        await asyncio.sleep(0.5)
        paper.write(2)
        await asyncio.sleep(2)
        assert paper.read == [1, 2, 3, 4]
        following.cancel()


@in_virtual_time
async def test_a_follower_gets_only_what_it_wants():
    paper = Paper()
    paper.write(3)
    async with asyncio.TaskGroup() as tasks:
        wants_even = paper.follow(wants=lambda each: each.position % 2 == 0)
        following = tasks.create_task(wants_even)
        await settle()
        paper.write(3)
        await settle()
        assert paper.read == [2, 4, 6]
        following.cancel()


@in_virtual_time
async def test_a_slow_follower_falls_back_to_the_store_and_misses_nothing(monkeypatch):
    monkeypatch.setattr(event_feed, "BACKLOG", 3)
    paper = Paper()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(paper.follow(slow=1.0))
        await settle()
        for _ in range(20):
            paper.write()
            await asyncio.sleep(0.3)
        await asyncio.sleep(60)
        assert paper.read == list(range(1, 21))
        following.cancel()


class CountingReader(MemoryReader):
    """Counts how often it is asked for events."""

    asked = 0

    async def events(self, after, limit):
        self.asked += 1
        return await super().events(after, limit)


@in_virtual_time
async def test_a_thousand_followers_share_every_read(monkeypatch):
    monkeypatch.setattr(event_feed, "PAGE", 100)
    paper = Paper()
    reader = CountingReader(paper.database, 1.0)
    paper.write(250)
    paper.feed = EventFeed(reader)
    paper.feed.begin(250)
    seen = [[] for _ in range(1000)]

    async def note(mine):
        async with aclosing(paper.feed.follow(0, lambda _: True)) as events:
            async for each in events:
                mine.append(each.position)

    async with asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(note(mine)) for mine in seen]
        await asyncio.sleep(10)
        assert reader.asked == 3
        for _ in range(5):
            paper.write(20)
            await settle()
        assert all(mine == list(range(1, 351)) for mine in seen)
        assert reader.asked == 3
        for task in following:
            task.cancel()


@in_virtual_time
async def test_who_follows_from_now_on_or_from_lately_costs_no_read():
    paper = Paper()
    paper.write(10)
    reader = CountingReader(paper.database)
    paper.feed = EventFeed(reader)
    paper.feed.begin(10, await MemoryReader(paper.database).events(5, 9))
    async with asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(paper.follow(after)) for after in (5, 8, 10)]
        await settle()
        assert sorted(paper.read) == [6, 7, 8, 9, 9, 10, 10]
        paper.write()
        await settle()
        assert paper.read[-3:] == [11, 11, 11]
        assert reader.asked == 0
        for task in following:
            task.cancel()


@in_virtual_time
async def test_a_read_whose_reader_went_away_is_made_by_the_next():
    paper = Paper(seconds=1.0)
    paper.write(3)
    paper.feed.begin(3)
    first = asyncio.ensure_future(paper.follow())
    await asyncio.sleep(0.5)
    second = asyncio.ensure_future(paper.follow())
    await asyncio.sleep(0.2)
    first.cancel()
    await asyncio.sleep(5)
    assert paper.read == [1, 2, 3]
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


@pytest.mark.parametrize(("after", "oldest"), [(0, 4), (3, 4)])
@in_virtual_time
async def test_a_cursor_older_than_what_is_kept_is_refused_with_the_oldest(after, oldest):
    paper = Paper()
    paper.write(6)
    paper.feed.begin(6)
    paper.forget(4)
    with pytest.raises(CursorExpired, match=f"cursor {after} .* works is {oldest}\\."):
        await paper.follow(after)
    with pytest.raises(CursorExpired):
        async for _ in paper.feed.replay(after, 6, lambda _: True):
            pass
    assert [each.position async for each in paper.feed.replay(oldest, 6, lambda _: True)] == [5, 6]


@in_virtual_time
async def test_when_nothing_is_kept_the_oldest_cursor_is_the_last():
    paper = Paper()
    paper.write(6)
    paper.feed.begin(6)
    paper.forget(6)
    with pytest.raises(CursorExpired, match="works is 6"):
        await paper.follow(2)


@in_virtual_time
async def test_a_slow_follower_that_is_overtaken_by_retention_is_told(monkeypatch):
    monkeypatch.setattr(event_feed, "BACKLOG", 3)
    monkeypatch.setattr(event_feed, "RECENT", 3)
    paper = Paper()
    following = asyncio.ensure_future(paper.follow(slow=1.0))
    await settle()
    paper.write(2)
    await settle()
    paper.write(20)
    paper.forget(20)
    with pytest.raises(CursorExpired, match="works is 20"):
        await following
    assert paper.read == [1, 2]


@in_virtual_time
async def test_who_wants_nothing_of_what_happens_learns_now_and_then_how_far_it_is(monkeypatch):
    monkeypatch.setattr(event_feed, "BOOKMARK", 10)
    paper = Paper()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(paper.note_batches(wants=lambda _: False))
        await settle()
        for _ in range(25):
            paper.write()
            await settle()
        assert (paper.read, paper.cursors) == ([], [10, 20])
        following.cancel()


@in_virtual_time
async def test_what_is_told_at_once_comes_in_one_batch():
    paper = Paper()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(paper.note_batches())
        await settle()
        paper.write(30)
        await settle()
        assert (paper.read, paper.cursors) == (list(range(1, 31)), [30])
        following.cancel()


@in_virtual_time
async def test_stopping_ends_followers_with_word_of_it():
    paper = Paper()
    paper.write()
    following = asyncio.ensure_future(paper.follow())
    await settle()
    paper.feed.stop()
    with pytest.raises(Draining):
        await following
    assert paper.read == [1]


STEPS = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from([0.0, 0.05, 0.2, 1.0])), min_size=1, max_size=20
)


@settings(max_examples=100)
@given(
    STEPS,
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.0, 0.1]),
    st.integers(0, 3),
    st.sampled_from([1, 3, 5000]),
)
def test_nothing_is_missed_and_nothing_comes_twice(steps, slow, latency, after, kept):
    async def race():
        paper = Paper(latency)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(paper.follow(after, slow=slow))
            for count, pause in steps:
                paper.write(count)
                await asyncio.sleep(pause)
            await asyncio.sleep(100)
            following.cancel()
        total = sum(count for count, _ in steps)
        assert paper.read == list(range(after + 1, total + 1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_feed, "RECENT", kept)
        patch.setattr(event_feed, "BOOKMARK", 4)
        patch.setattr(event_feed, "BACKLOG", 3)
        patch.setattr(event_feed, "PAGE", 2)
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(race())
