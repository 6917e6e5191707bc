import asyncio
from math import isnan

import pytest

from server import metrics
from server.domain.errors import StoreUnavailable
from server.domain.group import Membership
from server.domain.labels import Selector
from server.engine.backlog_gauge import (
    CLASSES_SHOWN,
    FRESH_SECONDS,
    OTHER,
    REST,
    TEXT_LIMIT,
    BacklogGauge,
    class_text,
)
from tests.fakes.core import needs
from tests.fakes.memory_reader import MemoryReader
from tests.fakes.shop import Shop
from tests.fakes.virtual_time import in_virtual_time

ANY = "any agent"


class TiredReader(MemoryReader):
    """Counts who asks and fails when told to."""

    asked = 0
    broken = False

    async def backlogs(self, queues, limit, oldest_among):
        self.asked += 1
        if self.broken:
            raise StoreUnavailable("locked")
        return await super().backlogs(queues, limit, oldest_among)


@pytest.fixture
def shop():
    return Shop()


@pytest.fixture
def reader(shop):
    return TiredReader(shop.database)


@pytest.fixture
def gauge(shop, reader):
    return BacklogGauge(shop.dispatcher, reader, shop.clock)


def shown(series):
    """Return a series' values by class."""
    (family,) = series.collect()
    return {sample.labels["class"]: sample.value for sample in family.samples}


def unlabelled(series):
    """Return the value of a series without labels."""
    (family,) = series.collect()
    return family.samples[0].value


@in_virtual_time
async def test_who_waits_for_a_place_in_a_group_is_counted(shop, gauge):
    async with shop.open():
        for n in range(4):
            await shop.submit(f"a{n}", group=Membership("a"))
        for n in range(4):
            await shop.submit(f"b{n}", group=Membership("b", limit=2))
        await shop.submit("c", group=Membership("c"))
        await gauge.look()
    assert unlabelled(metrics.group_waiting_tasks) == 5
    assert unlabelled(metrics.waiting_groups) == 2
    assert shown(metrics.queue_tasks) == {ANY: 4, OTHER: 0}


@in_virtual_time
async def test_ready_tasks_are_counted_by_what_they_need(shop, gauge):
    async with shop.open():
        await shop.submit("a")
        await asyncio.sleep(10)
        await shop.submit("b")
        await shop.submit("c", selector=needs(gpu="yes"))
        await shop.submit("d", depends_on=("a",))
        await gauge.look()
    assert shown(metrics.queue_tasks) == {ANY: 2, "gpu=yes": 1, OTHER: 0}
    ages = shown(metrics.queue_oldest)
    assert ages[ANY] == pytest.approx(10, abs=0.1)
    assert ages["gpu=yes"] == pytest.approx(0, abs=0.1)


@in_virtual_time
async def test_what_was_handed_out_does_not_wait(shop, gauge):
    async with shop.open():
        await shop.submit("a")
        session = await shop.arrive("worker")
        await session.mailbox.take()
        await gauge.look()
    assert shown(metrics.queue_tasks) == {OTHER: 0}


@in_virtual_time
async def test_only_so_many_classes_are_shown_and_the_rest_in_one(shop, gauge):
    async with shop.open():
        for n in range(CLASSES_SHOWN + 3):
            for m in range(1 if n < 3 else 2):
                await shop.submit(f"{n}-{m}", selector=needs(place=f"p{n}"))
        await gauge.look()
    depths = shown(metrics.queue_tasks)
    assert len(depths) == CLASSES_SHOWN + 1
    assert depths.pop(OTHER) == 3
    assert set(depths.values()) == {2}
    assert shown(metrics.queue_oldest).keys() == depths.keys() | {OTHER}


@in_virtual_time
async def test_it_looks_seldom_and_the_more_seldom_the_longer_it_takes(shop, reader, gauge):
    async def look_after(seconds):
        await asyncio.sleep(seconds)
        await gauge.look()
        return reader.asked

    async with asyncio.TaskGroup() as group:
        group.create_task(gauge.look())
        group.create_task(gauge.look())
    assert reader.asked == 1
    assert await look_after(FRESH_SECONDS * 0.9) == 1
    reader.seconds = 0.5  # each of two reads
    assert await look_after(FRESH_SECONDS * 0.2) == 2
    assert await look_after(REST * 0.9) == 2
    assert await look_after(REST * 0.2) == 3


@in_virtual_time
async def test_without_the_database_there_is_no_figure_rather_than_an_old_one(shop, reader, gauge):
    async with shop.open():
        await shop.submit("a")
        await gauge.look()
        reader.broken = True
        await asyncio.sleep(FRESH_SECONDS)
        await gauge.look()
    assert shown(metrics.queue_tasks) == shown(metrics.queue_oldest) == {}
    assert isnan(unlabelled(metrics.group_waiting_tasks))
    assert isnan(unlabelled(metrics.waiting_groups))


def test_long_needs_are_cut_and_told_apart_by_the_class():
    texts = {class_text(Selector.of({"k" * 60: "v" * 60}), key * 32) for key in "ab"}
    assert len(texts) == 2
    assert all(len(text) <= TEXT_LIMIT for text in texts)
