"""The past goes in small steps, by age and by count."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from server.domain.policy import Policy
from server.domain.pruning import STEP
from server.domain.task import TaskStatus
from server.engine.clock import Clock
from server.engine.retention import Limits, Retention
from server.engine.writer import Writer
from server.stores.interfaces import PageSpec, TaskFilter
from server.stores.sql.database import SqliteDatabase
from server.stores.sql.reader import SqlReader
from tests.records import event, new, task

DAY = 24 * 3600 * 1000
LONG = timedelta(days=3650)
MANY = 10**9


class Nobody:
    """A claimer without agents."""

    def offer(self, batch):
        return None

    def claimed(self, claim, answer):
        raise AssertionError("nothing was offered")


@pytest.fixture
async def database(tmp_path):
    database = SqliteDatabase(tmp_path / "muster.db")
    await database.open()
    yield database
    await database.close()


@asynccontextmanager
async def retention(database, **limits):
    clock, reader = Clock(), SqlReader(database)
    writer = Writer(database, clock, Policy(), Nobody(), batch_limit=100, queue_limit=100)
    defaults = {"task_age": LONG, "task_count": MANY, "event_age": LONG, "event_count": MANY}
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run())
        yield Retention(writer, reader, clock, Limits(**{**defaults, **limits}))
        writer.stop()


async def store(database, **records):
    await database.transact(lambda source: source.save(new(**records)))


async def left(database):
    page = await SqlReader(database).tasks(TaskFilter("default"), PageSpec(size=1))
    return page.total


async def test_old_tasks_go_in_more_than_one_step_and_young_ones_stay(database):
    now = Clock().now()
    ages = [10] * (2 * STEP + 5) + [1] * 3
    tasks = [
        task(key, status=TaskStatus.SUCCESS, finished_at=now - age * DAY)
        for key, age in enumerate(ages, 1)
    ]
    await store(database, tasks=tasks)
    async with retention(database, task_age=timedelta(days=5)) as pruning:
        assert await pruning.prune() == 2 * STEP + 5
        assert await pruning.prune() == 0
    assert await left(database) == 3


async def test_beyond_the_count_the_oldest_go(database):
    now = Clock().now()
    tasks = [
        task(key, status=TaskStatus.FAILED, finished_at=now - key * 1000) for key in range(1, 21)
    ]
    await store(database, tasks=[*tasks, task(99)])
    async with retention(database, task_count=5) as pruning:
        await pruning.prune()
    page = await SqlReader(database).tasks(TaskFilter("default"), PageSpec(size=50))
    # The one on the border stays: it ended when the oldest that is kept may have ended.
    assert sorted(task.key for task in page.items) == [1, 2, 3, 4, 5, 6, 99]


async def test_events_go_by_age_and_by_count(database):
    now = Clock().now()
    old, young = now - 10 * DAY, now - DAY
    await store(database, events=[event(at=at) for at in (old, old, young, young, young)])
    async with retention(database, event_age=timedelta(days=5)) as pruning:
        assert await pruning.prune() == 2
    async with retention(database, event_count=1) as pruning:
        assert await pruning.prune() == 2
    assert [e.position for e in await SqlReader(database).events(0, 10)] == [5]
