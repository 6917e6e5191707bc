import asyncio

from server.domain.changes import Effects
from server.domain.errors import StoreUnavailable
from server.engine.event_tail import LOOK_EVERY, EventTail
from server.engine.writer import Committed
from tests.fakes.memory_reader import MemoryReader
from tests.fakes.memory_source import MemoryDatabase
from tests.fakes.virtual_time import in_virtual_time, settle
from tests.records import event, new

A_LOOK = LOOK_EVERY * 1.5


class Wire:
    """A tail over memory, with two servers that write."""

    def __init__(self, reader=MemoryReader):
        self.database = MemoryDatabase()
        self.tail = EventTail(reader(self.database))
        self.every, self.foreign = [], []
        self.tail.tell_every(lambda each: self.every.append(each.position))
        self.tail.tell_foreign(lambda each: self.foreign.append(each.position))

    def store(self, count):
        events = [event() for _ in range(count)]
        self.database.transact_now(lambda source: source.save(new(events=events)))
        return events

    def write_here(self, count=1):
        self.tail.committed(Committed([], self.store(count), Effects()))


@in_virtual_time
async def test_events_of_all_servers_come_once_and_in_order_others_told_apart():
    wire = Wire()
    wire.store(2)
    await wire.tail.start()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(wire.tail.run())
        wire.write_here(2)
        wire.store(1)
        wire.write_here()
        await settle()
        assert wire.every == [3, 4, 5, 6]
        assert wire.foreign == [5]
        running.cancel()


@in_virtual_time
async def test_others_are_heard_at_a_hint_and_without_one_within_a_look():
    wire = Wire()
    await wire.tail.start()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(wire.tail.run())
        await settle()
        wire.store(1)
        wire.tail.hint()
        await settle()
        assert wire.foreign == [1]
        wire.store(1)
        await asyncio.sleep(A_LOOK)
        assert wire.foreign == [1, 2]
        running.cancel()


@in_virtual_time
async def test_what_the_loop_read_before_its_own_commit_told_of_it_is_not_kept_for_ever():
    wire = Wire()
    await wire.tail.start()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(wire.tail.run())
        events = wire.store(3)
        wire.tail.hint()
        await settle()
        wire.tail.committed(Committed([], events, Effects()))
        assert wire.tail._own == set()
        assert wire.every == [1, 2, 3]
        running.cancel()


class Stumbling(MemoryReader):
    """Does not answer the first question of the loop."""

    asked = 0

    async def events(self, after, limit):
        self.asked += 1
        if self.asked == 1:
            raise StoreUnavailable("locked")
        return await super().events(after, limit)


@in_virtual_time
async def test_a_store_that_does_not_answer_loses_no_event():
    wire = Wire(Stumbling)
    await wire.tail.start()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(wire.tail.run())
        wire.store(2)
        wire.tail.hint()
        await asyncio.sleep(3 * A_LOOK)
        assert wire.foreign == [1, 2]
        running.cancel()
