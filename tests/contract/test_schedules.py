"""Two servers on one database, and a clock that is set back and forth: each time comes once."""

import asyncio

import pytest

from server.definition.times import CronTimes
from server.domain.canceling import StopPipeline
from server.domain.defining import CreatePipeline, Description
from server.domain.pipeline import Definition
from server.domain.policy import Policy
from server.domain.schedule import CatchUp, Overlap, Plan
from server.domain.scheduling import CreateSchedule
from server.domain.timing import RunTimers
from server.engine.writer import Writer
from server.stores.sql.reader import SqlReader
from server.stores.sql.source import SqlSource
from tests.fakes.clock import HandClock
from tests.fakes.core import NAMESPACE, job, serial
from tests.fakes.shop import NoClaims

MINUTE = 60_000


@pytest.fixture
async def servers(sql_database, monkeypatch):
    """Two writers over one database, and the clock that both look at."""
    clock = HandClock()
    monkeypatch.setattr(SqlSource, "now", lambda _source: clock.now())
    writers = [
        Writer(
            sql_database,
            clock,
            Policy(),
            NoClaims(),
            batch_limit=100,
            queue_limit=1000,
            times=CronTimes(),
        )
        for _ in range(2)
    ]
    running = [asyncio.ensure_future(writer.run()) for writer in writers]
    yield writers, clock
    for writer in writers:
        writer.stop()
    await asyncio.gather(*running)


async def test_each_time_comes_once_on_two_servers_with_a_stepped_clock(servers, sql_database):
    (one, two), clock = servers
    clock.advance(-clock.now() % MINUTE)
    definition = Definition((serial("s", job("j")),))
    await one.submit(CreatePipeline(NAMESPACE, "p", Description("p", definition)))
    plan = Plan("* * * * *", catch_up=CatchUp.ALL, overlap=Overlap.ALLOW, catch_up_limit=100)
    await two.submit(CreateSchedule(NAMESPACE, "s", "s", "p", plan))
    begin = clock.now()
    for step in (1, 3, -2, 1, 5, -4, 2, 7):
        clock.advance(step * MINUTE)
        await asyncio.gather(*(writer.submit(RunTimers()) for writer in (one, two, one, two)))
    reader = SqlReader(sql_database)
    schedule = await reader.schedule(NAMESPACE, "s")
    fires = await reader.fires(schedule, 1000)
    times = [fire.at for fire in reversed(fires)]
    assert times == list(range(begin + MINUTE, clock.now() + 1, MINUTE))
    assert len({fire.run_id for fire in fires}) == len(fires)
    assert await one.submit(StopPipeline(NAMESPACE, "p")) == len(fires)
    assert (await reader.next_due()) == schedule.next_at
