"""Streams over durable events: whoever goes on where it stopped misses nothing.

Over SQLite and PostgreSQL; where servers share a database, readers change between two of them.
"""

import asyncio
import random
from contextlib import aclosing, asynccontextmanager

import pytest

from generated.stream.v1 import stream_pb2
from server.domain.errors import CursorExpired, Invalid
from server.domain.event import EventKind
from server.domain.task import TaskStatus
from server.engine import event_feed
from server.engine.event_feed import EventFeed
from server.engine.event_tail import EventTail
from server.rpc.event_stream import stream_events
from server.stores.sql.reader import SqlReader
from tests.records import event, new

EVENTS = 20_000
READERS = 4
MINE = "default"
LIMIT = 90


class OneServer:
    """What a server hears of the database's events, as `app` connects it."""

    def __init__(self, database):
        self.reader = SqlReader(database)
        self.feed = EventFeed(self.reader)
        self.tail = EventTail(self.reader)
        self.tail.tell_every(self.feed.tell)

    async def begin(self):
        self.feed.begin(await self.tail.start())

    def events(self, namespace=MINE, **asked):
        request = stream_pb2.StreamEventsRequest(**asked)
        return stream_events(request, namespace, self.feed, self.reader)


@asynccontextmanager
async def running(*databases):
    servers = [OneServer(database) for database in databases]
    async with asyncio.TaskGroup() as group:
        for server in servers:
            await server.begin()
        loops = [group.create_task(server.tail.run()) for server in servers]
        yield servers
        for loop in loops:
            loop.cancel()


def happened(place):
    """Return the event of a place in the story; every third is another namespace's."""
    data = {"name": f"task {place}", "status": int(TaskStatus.QUEUED), "previous": 0}
    rest = {"attempt": 0, "agent": "", "exit_code": 0, "error": "", "duration": 0}
    namespace = "other" if place % 3 == 2 else MINE
    return event(f"task-{place}", namespace=namespace, data={**data, **rest})


async def write(database, servers, places):
    events = [happened(place) for place in places]
    await database.transact(lambda source: source.save(new(events=events)))
    for server in servers:
        server.tail.hint()


async def connect_once(server, after, dice, batched, seen):
    """Read on one connection until it breaks, and return the cursor to go on after."""
    cursor, patience, here = after, dice.randint(1, 3000), []
    async with aclosing(server.events(after=after, batched=batched)) as answers:
        async for answer in answers:
            cursor = answer.cursor
            told = answer.events if batched else [answer]
            here += [each.resource_id for each in told]
            if len(here) >= patience or (here and here[-1] == f"task-{EVENTS - 1}"):
                break
    assert len(here) == len(set(here)), "an event came twice on one connection"
    seen += here
    return cursor


async def read_all(servers, seed, seen):
    dice, cursor = random.Random(seed), "0"  # noqa: S311 - no secret
    while not seen or seen[-1] != f"task-{EVENTS - 1}":
        cursor = await connect_once(dice.choice(servers), cursor, dice, seed % 2 == 0, seen)
        await asyncio.sleep(dice.choice([0, 0, 0.05]))


@pytest.mark.timeout(LIMIT + 30)
async def test_readers_that_resume_at_random_points_miss_nothing(sql_database, monkeypatch):
    monkeypatch.setattr(event_feed, "RECENT", 700)
    monkeypatch.setattr(event_feed, "BACKLOG", 500)
    seen = [[] for _ in range(READERS)]
    places = [place for place in range(EVENTS) if place % 3 != 2]
    assert places[-1] == EVENTS - 1
    async with (
        asyncio.timeout(LIMIT),
        running(sql_database, sql_database) as servers,
        asyncio.TaskGroup() as group,
    ):
        for seed, mine in enumerate(seen):
            group.create_task(read_all(servers, seed, mine))
        written, dice = 0, random.Random(0)  # noqa: S311 - no secret
        while written < EVENTS:
            step = min(dice.randint(1, 400), EVENTS - written)
            await write(sql_database, servers, range(written, written + step))
            written += step
    # Between connections nothing comes twice either: a cursor is exact.
    expected = [f"task-{place}" for place in places]
    for mine in seen:
        assert mine == expected


async def test_a_reader_away_for_longer_than_events_are_kept_is_told_the_oldest_cursor(
    sql_database,
):
    await write(sql_database, [], range(30))
    async with running(sql_database) as (fresh,):
        await sql_database.transact(lambda source: source.prune_events(0, 20, 100))
        for batched in (False, True):
            with pytest.raises(CursorExpired) as caught:
                async for _ in fresh.events(after="5", batched=batched):
                    pass
            assert caught.value.oldest == 20
        kept = fresh.events(after="20")
        async with aclosing(kept):
            assert (await anext(kept)).cursor == "22"  # 21 is the other namespace's
        kept = fresh.events(from_oldest=True, batched=True)
        async with aclosing(kept):
            assert (await anext(kept)).cursor == "20"


async def test_a_cursor_that_another_server_gave_works_before_this_one_has_caught_up(
    sql_database,
):
    behind = OneServer(sql_database)
    await behind.begin()
    await write(sql_database, [], range(12))
    answers = behind.events(after="7", batched=True)
    async with aclosing(answers):
        assert (await anext(answers)).cursor == "7"
        going = asyncio.ensure_future(anext(answers))
        await behind.tail._read()
        assert [each.cursor for each in (await going).events] == ["8", "10", "11"]


async def test_a_cursor_beyond_the_last_event_is_refused(sql_database):
    await write(sql_database, [], range(3))
    async with running(sql_database) as (server,):
        for after in ("4", "999999999999999999"):
            with pytest.raises(Invalid, match="beyond the last event"):
                await anext(server.events(after=after))


async def test_what_happened_before_is_left_out_unless_asked_for(sql_database):
    await write(sql_database, [], range(3))
    async with running(sql_database) as (server,):
        answers = server.events(batched=True)
        async with aclosing(answers):
            assert (await anext(answers)).cursor == "3"
            await write(sql_database, [server], range(3, 5))
            told = (await anext(answers)).events
            assert [each.resource_id for each in told] == ["task-3", "task-4"]


KINDS = (
    (EventKind.TASK_DELETED, {}),
    (EventKind.RUN_REMARK, {"text": "something"}),
    (EventKind.AGENT_OFFLINE, {"session": "s"}),
    (EventKind.PIPELINE_CREATED, {"name": "nightly"}),
)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [1, 2, 3, 4]),
        ({"resource_types": ["agent", "pipeline"]}, [3, 4]),
        ({"event_types": [stream_pb2.EVENT_TYPE_AGENT_OFFLINE]}, [3]),
        ({"event_types": [stream_pb2.EVENT_TYPE_UNSPECIFIED]}, [1, 2, 4]),
        ({"resource_ids": ["r1", "r4", "r5"]}, [1, 4]),
        ({"run_ids": ["run-1"]}, [1, 2]),
        ({"pipeline_ids": ["pipeline-1"]}, [2, 4]),
        ({"run_ids": ["run-1"], "pipeline_ids": ["pipeline-1"]}, [2]),
        ({"resource_types": ["run"], "resource_ids": ["r1"]}, []),
    ],
)
async def test_filters_are_anded_and_their_values_ored(sql_database, asked, expected):
    runs = {1: "run-1", 2: "run-1", 3: None, 4: "run-2"}
    pipelines = {2: "pipeline-1", 4: "pipeline-1"}
    events = [
        event(f"r{n}", kind=kind, data=data, run_id=runs[n], pipeline_id=pipelines.get(n))
        for n, (kind, data) in enumerate(KINDS, 1)
    ]
    last = event("last", kind=EventKind.TASK_DELETED, namespace=MINE)
    await sql_database.transact(lambda source: source.save(new(events=[*events, last])))
    seen = []
    async with (
        running(sql_database) as (server,),
        aclosing(server.events(after="0", batched=True, **asked)) as answers,
    ):
        async for answer in answers:
            seen += [int(each.cursor) for each in answer.events if each.resource_id != "last"]
            if answer.cursor == "5":
                break
    assert seen == expected
