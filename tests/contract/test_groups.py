"""What a Source promises about concurrency groups, and groups that two servers want at once."""

import asyncio
from functools import partial

import pytest
from sqlalchemy import select, text

from server.domain.admission import SettleGroups
from server.domain.canceling import CancelTask
from server.domain.group import Membership, Newcomer
from server.domain.policy import Policy
from server.domain.submitting import CreateTask, NewTask
from server.domain.task import TaskSpec, TaskStatus
from server.engine.clock import Clock
from server.engine.writer import decide
from server.stores.sql import tables
from server.stores.sql.database import PostgresDatabase
from server.stores.sql.keys import Keys
from server.stores.sql.reader import SqlReader
from server.stores.sql.source import SqlSource
from tests.records import agent, new, task

P, Q, R = TaskStatus.PENDING, TaskStatus.QUEUED, TaskStatus.RUNNING
GROUP = ("default", "g")


async def save(database, *rows):
    await database.transact(lambda source: source.save(new(tasks=list(rows))))


def member(key, status=P, **chosen):
    return task(key, **{"status": status, "group_key": "g", **chosen})


# ---- the source


async def test_places_are_taken_by_what_is_ready_leased_and_running(database):
    rows = [member(int(status), status) for status in TaskStatus]
    rows += [member(20, Q, group_key="h"), member(21, Q, namespace="x"), task(22)]
    await save(database, *rows)
    assert await database.transact(lambda source: source.places_taken(GROUP)) == 2


async def test_those_that_wait_for_a_place_come_in_order_up_to_the_limit(database):
    rows = [
        member(1, sort_key=30),
        member(2, sort_key=10),
        member(4, sort_key=20),
        member(3, sort_key=20),
        member(5, sort_key=1, unmet=1),
        member(6, sort_key=1, not_before=5),
        member(7, Q, sort_key=1),
        member(8, sort_key=1, group_key="h"),
        member(9, sort_key=1, namespace="x"),
        task(10, status=P, sort_key=1),
    ]
    await save(database, *rows)

    def keys(limit):
        return lambda source: [t.key for t in source.next_members(GROUP, limit)]

    assert await database.transact(keys(9)) == [2, 3, 4, 1]
    assert await database.transact(keys(2)) == [2, 3]


async def test_the_newest_canceller_is_the_last_submitted_that_waits(database):
    assert await database.transact(lambda source: source.newest_canceller(GROUP)) is None
    rows = [
        member(1, cancels_older=True, created_at=7),
        member(2, cancels_older=True, created_at=7),
        member(3, cancels_older=True, created_at=6),
        member(4, created_at=9),
        member(5, R, cancels_older=True, created_at=9),
        member(6, unmet=1, cancels_older=True, created_at=9),
    ]
    await save(database, *rows)
    found = await database.transact(lambda source: source.newest_canceller(GROUP))
    assert found == Newcomer(7, 2, "task-2")


async def test_older_members_are_the_open_ones_submitted_before(database):
    rows = [member(int(status), status, created_at=5) for status in TaskStatus]
    rows += [member(20, created_at=6), member(21, created_at=5, group_key="h")]
    rows += [member(22, unmet=1, created_at=4), member(23, not_before=1, created_at=5)]
    await save(database, *rows)

    def keys(*newcomer, limit=9):
        newcomer = Newcomer(*newcomer, "")
        return lambda source: [t.key for t in source.older_members(GROUP, newcomer, limit)]

    assert await database.transact(keys(6, 1)) == [1, 2, 3, 22, 23]
    assert await database.transact(keys(5, 3)) == [1, 2, 22]
    assert await database.transact(keys(6, 1, limit=2)) == [1, 2]


async def test_of_older_members_those_at_agents_come_first_unless_they_were_asked(database):
    leased = {"lease_agent": 1, "lease_session": "s", "lease_epoch": 1}
    await database.transact(lambda source: source.save(new(agents=[agent()])))
    await save(
        database,
        member(1, created_at=1),
        member(2, R, created_at=1, **leased),
        member(3, R, created_at=1, cancel_requested_at=2, **leased),
        member(4, created_at=1, cancel_requested_at=2),
        member(5, R, created_at=1, **leased),
    )

    def older(source):
        return [t.key for t in source.older_members(GROUP, Newcomer(9, 9, ""), 9)]

    assert await database.transact(older) == [2, 5, 1, 4]


async def test_a_group_is_made_with_its_first_limit_and_keeps_the_last(database):
    def lock(**limits):
        groups = {("default", key): limit for key, limit in limits.items()}
        return lambda source: source.lock_groups(groups)

    assert await database.transact(lock(b=2, a=1)) == {("default", "a"): 1, ("default", "b"): 2}
    assert await database.transact(lock(a=3, b=None)) == {("default", "a"): 3, ("default", "b"): 2}
    assert await database.transact(lock(a=None, c=None)) == {("default", "a"): 3}


async def test_awaited_groups_come_in_order_after_one_up_to_the_limit(database):
    rows = [member(n, group_key=f"g{n}") for n in (3, 1, 2, 4)]
    rows += [member(5, Q, group_key="g5"), member(6, unmet=1, group_key="g6")]
    rows.append(member(7, group_key="a", namespace="z"))
    await save(database, *rows)
    groups = {(row.namespace, row.group_key): 1 for row in rows}
    await database.transact(lambda source: source.lock_groups(groups))

    def ask(after, limit):
        return lambda source: source.awaited_groups(after, limit)

    first = [("default", f"g{n}") for n in (1, 2, 3)]
    assert await database.transact(ask(("", ""), 3)) == first
    assert await database.transact(ask(first[-1], 3)) == [("default", "g4"), ("z", "a")]


async def test_groups_that_no_task_is_in_go_in_steps(database):
    await save(database, member(1, TaskStatus.SUCCESS))
    groups = {("default", key): 1 for key in "abg"}
    await database.transact(lambda source: source.lock_groups(groups))
    steps = [await database.transact(lambda source: source.prune_groups(1)) for _ in range(3)]
    assert steps == [1, 1, 0]
    left = await database.transact(lambda s: s.lock_groups(dict.fromkeys(groups)))
    assert left == {GROUP: 1}


# ---- the reader


async def test_a_reader_is_told_who_holds_the_places(sql_database):
    rows = [member(n, R, name=f"job {n}") for n in range(1, 8)]
    await save(sql_database, *rows, member(9), task(10))
    await sql_database.transact(lambda source: source.lock_groups({GROUP: 7}))
    reader = SqlReader(sql_database)
    crowd = (await reader.task("default", "task-9")).crowd
    assert (crowd.key, crowd.places, crowd.taken) == ("g", 7, 7)
    assert crowd.holders == [(f"task-{n}", f"job {n}") for n in range(1, 6)]
    assert (await reader.task("default", "task-10")).crowd is None


# ---- two servers


@pytest.fixture
async def servers(postgres):
    name = await postgres.create()
    made = [PostgresDatabase(postgres.url(name)) for _ in range(2)]
    for server in made:
        await server.open()
    yield made
    for server in made:
        await server.close()


async def do(database, *commands):
    return (await database.transact(partial(decide, commands, Clock(), Policy()))).answers


def create(task_id, key, limit=1, **chosen):
    group = Membership(key, limit, **chosen)
    return CreateTask("default", task_id, NewTask("x", TaskSpec(("true",)), group=group), "")


async def standing(database):
    """Return the statuses of members by group."""
    table = tables.tasks
    async with database.reading() as connection:
        rows = await connection.execute(select(table.c.group_key, table.c.status))
        found = {}
        for key, status in rows:
            found.setdefault(key, []).append(TaskStatus(status))
    return found


async def deadlocks(database):
    async with database.reading() as connection:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return await connection.scalar(text(query))


async def test_two_servers_that_contest_groups_never_exceed_a_limit_and_strand_nobody(servers):
    """Each changes many groups a transaction, in an order of its own."""
    keys = [f"g{n}" for n in range(6)]
    for turn in range(8):
        orders = (keys, keys[::-1])
        await asyncio.gather(
            *(
                do(server, *(create(f"{turn}-{place}-{key}", key, 2) for key in order))
                for place, (server, order) in enumerate(zip(servers, orders, strict=True))
            )
        )
        going_on = await standing(servers[0])
        for key in keys:
            assert going_on[key].count(Q) == 2, going_on
        victims = [f"{turn}-0-{key}" for key in keys], [f"{turn}-1-{key}" for key in keys[::-1]]
        await asyncio.gather(
            *(
                do(server, *(CancelTask("default", task_id) for task_id in ids))
                for server, ids in zip(servers, victims, strict=True)
            )
        )
        for key in keys:
            await do(
                servers[0], create(f"{turn}-a-{key}", key, 2), create(f"{turn}-b-{key}", key, 2)
            )
    assert await deadlocks(servers[0]) == 0


async def blocked(database):
    """Wait until some transaction of the database waits for a lock."""
    waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with asyncio.timeout(30):
        while True:
            async with database.reading() as connection:
                if await connection.scalar(waits):
                    return


async def test_a_member_in_the_hands_of_another_server_is_passed_over_and_then_found(servers):
    first, second = servers
    await do(first, create("holder", "g"), create("next", "g"))
    async with first._engine.begin() as connection:
        # Somebody looks at the waiting member, and would change it.
        await connection.run_sync(lambda c: SqlSource(c, Keys()).tasks(["next"]))
        async with asyncio.timeout(20):
            await do(second, CancelTask("default", "holder"))  # waits for nobody
    assert (await standing(first))["g"].count(P) == 1
    await do(second, SettleGroups())
    assert (await standing(first))["g"].count(Q) == 1


async def test_a_group_is_locked_until_the_transaction_ends(servers):
    first, second = servers
    await do(first, create("holder", "g"), create("next", "g"), create("last", "g"))
    async with asyncio.TaskGroup() as tasks, first._engine.begin() as connection:
        await connection.run_sync(lambda c: SqlSource(c, Keys()).lock_groups({GROUP: None}))
        waiting = tasks.create_task(do(second, CancelTask("default", "holder")))
        await blocked(second)
        assert not waiting.done()
    assert (await standing(first))["g"].count(Q) == 1
