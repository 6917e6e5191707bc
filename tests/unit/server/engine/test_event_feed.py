import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.changes import Effects
from server.domain.errors import Draining
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

    def write(self, count=1, *, heard=True):
        """Commit events; those another server commits are not heard of."""
        events = [event() for _ in range(count)]
        self.database.transact_now(lambda source: source.save(new(events=events)))
        if heard:
            self.feed.committed(Committed([], events, Effects()))

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
@given(STEPS, st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.1]), st.integers(0, 3))
def test_nothing_is_missed_and_nothing_comes_twice(steps, slow, latency, after):
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
        patch.setattr(event_feed, "BACKLOG", 3)
        patch.setattr(event_feed, "PAGE", 2)
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(race())
