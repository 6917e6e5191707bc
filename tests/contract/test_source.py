"""What every Database and its Source promise, whatever lies behind them."""

import asyncio
import sqlite3
import time
import zlib
from copy import deepcopy
from dataclasses import fields

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from server.domain.agent import Agent, SessionState
from server.domain.attempt import Attempt
from server.domain.changes import Changes, ChoreKind, LogBatch, LogChore, RequestRecord
from server.domain.errors import StoreUnavailable
from server.domain.log import Encoding, LogBlock, LogCounts, LogLine, amount, omitted
from server.domain.pipeline import Pipeline
from server.domain.run import Run, RunStatus
from server.domain.task import Queue, Task, TaskStatus
from server.domain.token import Token
from server.stores.interfaces import PoisonError
from server.stores.sql import database as sql
from server.stores.sql import tables
from server.stores.sql.database import DatabaseInUseError, PostgresDatabase, SqliteDatabase
from server.stores.sql.keys import Keys
from server.stores.sql.migrate import VERSION_TABLE, UnknownSchemaError, config
from server.stores.sql.rows import (
    AGENT,
    ATTEMPT,
    EVENT,
    PIPELINE,
    PLUGIN,
    RUN,
    SECRET,
    TASK,
    TOKEN,
)
from server.stores.sql.source import SqlSource
from tests.blocks import batch
from tests.records import (
    agent,
    attempt,
    bare,
    changed,
    event,
    full,
    new,
    pipeline,
    run,
    task,
)

RECORDS = [TASK, ATTEMPT, AGENT, RUN, PIPELINE, TOKEN, SECRET, PLUGIN]
HUGE = 2**63

ANY = Queue("any", "default")


async def save(database, changes):
    await database.transact(lambda source: source.save(changes))


async def read(database, ask):
    return await database.transact(ask)


async def with_parents(database):
    """Store what others point to: agent 1, pipeline 1, run 1."""
    await save(database, new(agents=[agent(1)], pipelines=[pipeline(1)], runs=[run(1)]))


def every_record():
    """Return one full record of each type, and how to ask for it."""
    return {
        Agent: (full(Agent, key=7), lambda s: s.agents_by_key([7])),
        Pipeline: (full(Pipeline, key=7), lambda s: [s.pipeline(_id(Pipeline))]),
        Run: (full(Run, key=7, pipeline_key=1), lambda s: s.runs_by_key([7])),
        Task: (
            full(Task, key=7, run_key=1, lease_agent=1, class_key="c", status=TaskStatus.RUNNING),
            lambda s: s.tasks_by_key([7]),
        ),
        Attempt: (full(Attempt, task_key=3, number=2), lambda s: s.attempts([(3, 2)])),
        Token: (full(Token, key=7), lambda s: [s.token(_id(Token))]),
    }


def _id(record_type):
    return f"the {record_type.__name__}"


ALL = pytest.mark.parametrize("kind", [Agent, Pipeline, Run, Task, Attempt, Token])
NAMES = {
    Agent: "agents",
    Pipeline: "pipelines",
    Run: "runs",
    Task: "tasks",
    Attempt: "attempts",
    Token: "tokens",
}


def record_of(kind):
    record, ask = every_record()[kind]
    if kind is not Attempt:
        record.public_id = _id(kind)
    return record, ask


# ---- round trips


@ALL
async def test_a_record_comes_back_as_it_was_stored(database, kind):
    await with_parents(database)
    await save(database, new(tasks=[task(3)]))
    record, ask = record_of(kind)
    await save(database, new(**{NAMES[kind]: [deepcopy(record)]}))
    assert await read(database, ask) == [record]


@ALL
async def test_unset_fields_come_back_unset(database, kind):
    await with_parents(database)
    await save(database, new(tasks=[task(3)]))
    record, ask = record_of(kind)
    record = bare(record)
    await save(database, new(**{NAMES[kind]: [deepcopy(record)]}))
    assert await read(database, ask) == [record]


@ALL
async def test_every_field_that_may_change_is_updated(database, kind):
    await with_parents(database)
    await save(database, new(tasks=[task(3)]))
    record, ask = record_of(kind)
    kept = next(r for r in RECORDS if r.record_type is kind)
    constant = {name: getattr(record, name) for name in set(kept.names) - set(kept.changing)}
    first = bare(record, *constant)
    later = full(kind, **constant)
    for field in ("lease_agent",) if kind is Task else ():
        setattr(later, field, 1)
    for field in ("session_state",) if kind is Agent else ():
        setattr(first, field, SessionState.LIVE)
    await save(database, new(**{NAMES[kind]: [first]}))
    await save(database, changed(**{NAMES[kind]: [deepcopy(later)]}))
    assert await read(database, ask) == [later]


async def test_many_rows_are_written_and_changed_at_once(database):
    """More than go into one statement, and a number that is no power of two."""
    rows = [task(key) for key in range(1, 702)]
    await save(database, new(tasks=rows, attempts=[attempt(key) for key in range(1, 702)]))

    def work(source):
        found = source.tasks_by_key(range(1, 702))
        for each in found:
            each.name = f"name of {each.key}"
            each.error = "odd" if each.key % 2 else each.error
        source.save(changed(tasks=found))

    await database.transact(work)
    names = await read(
        database, lambda source: [(t.name, t.error) for t in source.tasks_by_key(range(1, 702))]
    )
    assert names == [(f"name of {key}", "odd" if key % 2 else "") for key in range(1, 702)]


async def test_a_transaction_sees_what_it_saved(database):
    def work(source):
        source.save(new(agents=[agent(1)], tasks=[task(1)]))
        source.save(changed(tasks=[task(1, lease_agent=1)]))
        return source.tasks_leased_to(1), source.ready_tasks(ANY, 9), source.leases_of([1])

    leased, ready, counts = await database.transact(work)
    assert [t.key for t in leased] == [1]
    assert ready == []
    assert counts == {1: 1}


async def test_rows_new_and_edited_in_one_save_are_stored_as_edited(database):
    row = task(1)
    changes = new(tasks=[row], attempts=[attempt(1)])
    changes.tasks[1] = row
    row.status = TaskStatus.FAILED
    await save(database, changes)
    (stored,) = await read(database, lambda source: source.tasks_by_key([1]))
    assert stored.status is TaskStatus.FAILED


async def test_nobody_edits_a_stored_row_but_save(database):
    labels = {"os": "linux"}
    await save(database, new(agents=[agent(1, labels=labels)]))
    labels["os"] = "plan9"
    for _ in range(2):
        (stored,) = await read(database, lambda source: source.agents_by_key([1]))
        assert stored.labels == {"os": "linux"}
        stored.labels["os"] = "plan9"


async def test_an_update_of_a_row_that_is_gone_changes_nothing(database):
    await save(database, changed(tasks=[task(9)]))
    assert await read(database, lambda source: source.tasks_by_key([9])) == []


# ---- finding


async def test_rows_come_in_key_order_and_missing_ones_are_absent(database):
    await with_parents(database)
    await save(database, new(agents=[agent(3), agent(2)], tasks=[task(3), task(1), task(2)]))
    await save(database, new(runs=[run(3), run(2)], attempts=[attempt(1, 1), attempt(1, 2)]))

    def work(source):
        return (
            [t.key for t in source.tasks(["task-3", "task-9", "task-1"])],
            [t.key for t in source.tasks_by_key([3, 9, 1])],
            [a.key for a in source.agents_by_key([3, 9, 2])],
            [r.key for r in source.runs_by_key([3, 9, 2])],
            sorted(a.number for a in source.attempts([(1, 2), (1, 9), (1, 1)])),
        )

    assert await read(database, work) == ([1, 3], [1, 3], [2, 3], [2, 3], [1, 2])


async def test_more_keys_than_a_statement_takes_are_found(database):
    keys = list(range(1, 1201))
    await save(database, new(tasks=[task(k) for k in keys], attempts=[attempt(k) for k in keys]))
    await save(database, new(agents=[agent(k) for k in keys]))

    def work(source):
        return (
            len(source.tasks([f"task-{k}" for k in keys])),
            len(source.tasks_by_key(keys)),
            len(source.attempts([(k, 1) for k in keys])),
            len(source.agents_by_key(keys)),
            source.leases_of(keys),
        )

    assert await read(database, work) == (1200, 1200, 1200, 1200, {})


async def test_nothing_is_found_by_no_keys_and_unknown_ids(database):
    def work(source):
        lists = (source.tasks([]), source.tasks_by_key([]), source.attempts([]))
        more = (source.agents_by_key([]), source.runs_by_key([]), source.dependents([9]))
        ones = (source.agent("x"), source.run("x"), source.pipeline("x"))
        named = (source.pipeline_named("default", "x"), source.request("default", "c", "x"))
        return [*lists, *more], [*ones, *named], source.leases_of([]), source.class_known("x")

    assert await read(database, work) == ([[]] * 6, [None] * 5, {}, False)


async def test_ready_tasks_come_by_sort_key_then_key_up_to_the_limit(database):
    await with_parents(database)
    rows = [
        task(1, sort_key=30),
        task(2, sort_key=10),
        task(4, sort_key=20),
        task(3, sort_key=20),
        task(5, sort_key=1, class_key="other"),
        task(7, sort_key=1, namespace="other"),
        task(6, sort_key=1, lease_agent=1),
        *(task(9 + s, sort_key=1, status=s) for s in TaskStatus if s is not TaskStatus.QUEUED),
    ]
    await save(database, new(tasks=rows))

    def keys(limit):
        return lambda source: [t.key for t in source.ready_tasks(ANY, limit)]

    assert await read(database, keys(9)) == [2, 3, 4, 1]
    assert await read(database, keys(2)) == [2, 3]


async def test_ready_tasks_for_one_agent_leave_out_those_that_avoid_it_now(database):
    rows = [
        task(1, avoid_agent=7, avoid_until=50),
        task(2, avoid_agent=7, avoid_until=40),
        task(3, avoid_agent=8, avoid_until=50),
        task(4),
    ]
    await save(database, new(tasks=rows))

    def keys(agent_key):
        return lambda source: [
            t.key for t in source.ready_tasks(ANY, 3, only_agent=agent_key, now=40)
        ]

    assert await read(database, keys(7)) == [2, 3, 4]
    assert await read(database, keys(8)) == [1, 2, 4]
    assert await read(database, keys(None)) == [1, 2, 3]


async def test_due_rows_come_earliest_first_up_to_the_limit(database):
    dues = {1: 30, 2: 10, 3: 20, 4: None, 5: 41}
    rows = [task(key, due_at=due) for key, due in dues.items()]
    tries = [attempt(key, log_due=due) for key, due in dues.items()]
    await save(database, new(tasks=rows, attempts=tries))
    await save(database, new(agents=[agent(key, due_at=due) for key, due in dues.items()]))

    def keys(limit):
        return lambda source: (
            [t.key for t in source.tasks_due(40, limit)],
            [a.task_key for a in source.attempts_due(40, limit)],
            [a.key for a in source.agents_due(40, limit)],
        )

    assert await read(database, keys(9)) == ([2, 3, 1], [2, 3, 1], [2, 3, 1])
    assert await read(database, keys(2)) == ([2, 3], [2, 3], [2, 3])


async def test_chores_are_taken_in_batches_that_keep_their_names(database):
    await save(database, new(tasks=[task(key) for key in (1, 2, 3)]))
    kind = ChoreKind.ARCHIVE
    wanted = [LogChore(kind, *rest) for rest in (((1, 1), 30), ((2, 1), 10), ((2, 2), 20))]
    await save(database, Changes(chores=wanted))
    await save(database, Changes(chores=[LogChore(kind, (2, 1), 99)]))  # known already

    async def due(now, limit=9):
        return await read(database, lambda source: source.chores_due(kind, now, limit))

    assert await due(20) == [wanted[1], wanted[2]]
    assert await due(50, limit=1) == [wanted[1]]
    await read(database, lambda source: source.claim_chores(kind, [(2, 2), (1, 1)], "b", 40))
    assert await due(39) == [wanted[1]]
    assert [entry.batch for entry in await due(40)] == [None, "b", "b"]
    assert await read(database, lambda source: source.chore_batch("b")) == [(1, 1), (2, 2)]
    assert await read(database, lambda s: s.with_chore(kind, [(1, 1), (2, 1), (3, 1)])) == {
        (1, 1),
        (2, 1),
    }
    for due_at, until, renewed in ((39, 50, False), (40, 50, True), (40, 60, False)):
        answer = await read(database, lambda s: s.renew_chores("b", due_at, until))  # noqa: B023 (runs at once)
        assert answer is renewed
    assert await due(49) == [wanted[1]]
    assert len(await due(50)) == 3
    await read(database, lambda source: source.end_chores("b"))
    assert await read(database, lambda source: source.renew_chores("b", 50, 70)) is False
    assert await due(99) == [wanted[1]]
    await save(database, Changes(deleted_tasks=[task(2)]))
    assert await due(99) == []


async def test_leases_are_counted_by_agent(database):
    await save(database, new(agents=[agent(1), agent(2), agent(3)]))
    holders = [1, 1, 2, None]
    await save(database, new(tasks=[task(k, lease_agent=a) for k, a in enumerate(holders, 1)]))
    assert await read(database, lambda source: source.leases_of([1, 3])) == {1: 2}
    held = await read(database, lambda source: [t.key for t in source.tasks_leased_to(1)])
    assert held == [1, 2]


async def test_the_rows_of_a_log_amount_to_what_its_lines_do(database):
    lines = [LogLine(1, "stdout", "info", text) for text in ("one", "two", "three")]
    whole = LogCounts(3, 14, zlib.crc32(b"one\ntwo\nthree\n"))
    await save(
        database,
        new(
            tasks=[task(1), task(2)],
            logs=[batch(1, 2, 3, lines[2:]), batch(1, 2, 1, lines[:2]), batch(1, 1, 1, lines)],
        ),
    )
    asked = [(1, 1), (1, 2), (1, 3), (2, 1)]
    found = await read(database, lambda source: source.log_heads(asked))
    assert {key: amount(blocks) for key, blocks in found.items()} == {(1, 1): whole, (1, 2): whole}
    assert await read(database, lambda source: source.log_heads([])) == {}
    part = await read(database, lambda source: source.log_heads(asked, (2, 3)))
    assert part == {(1, 2): found[1, 2][1:]}


async def test_rows_in_the_middle_of_a_log_make_room_for_one(database):
    def line(number):
        return [LogLine(1, "stdout", "info", str(number))]

    rows = [batch(1, 1, number, line(number)) for number in range(1, 6)]
    await save(database, new(tasks=[task(1)], logs=[*rows, batch(1, 2, 3, line(3))]))

    def cut(source):
        gone = source.log_heads([(1, 1)])[1, 1][1:4]
        source.drop_log((1, 1), 2, 4)
        source.save(new(logs=[LogBatch(1, 1, "default", omitted(gone))]))
        return source.log_heads([(1, 1), (1, 2)])

    found = await read(database, cut)
    assert [(b.first_line, b.lines, b.encoding) for b in found[1, 1]] == [
        (1, 1, Encoding.PLAIN),
        (2, 3, Encoding.OMITTED),
        (5, 1, Encoding.PLAIN),
    ]
    text = b"1\n2\n3\n4\n5\n"
    assert amount(found[1, 1]) == LogCounts(5, len(text), zlib.crc32(text))
    assert len(found[1, 2]) == 1


async def test_dependents_are_those_who_wait(database):
    edges = [(3, 1), (2, 1), (3, 2)]
    await save(database, new(tasks=[task(1), task(2), task(3)], dependencies=edges))

    found = await read(database, lambda source: source.dependents([1, 2, 3]))
    assert sorted(found) == [(1, 2), (1, 3), (2, 3)]
    assert [waiting for other, waiting in found if other == 1] == [2, 3]


async def test_active_runs_are_those_that_have_not_ended(database):
    await save(database, new(pipelines=[pipeline(1), pipeline(9)]))
    runs = [run(int(s), status=s) for s in RunStatus]
    await save(database, new(runs=[*runs, run(9, pipeline_key=9)]))
    found = await read(database, lambda source: [r.status for r in source.active_runs(1)])
    assert found == [RunStatus.PENDING, RunStatus.RUNNING]


async def test_a_run_knows_its_tasks(database):
    await with_parents(database)
    await save(database, new(tasks=[task(2, run_key=1), task(1, run_key=1), task(3)]))
    found = await read(database, lambda source: [t.key for t in source.tasks_of_run(1)])
    assert found == [1, 2]


async def test_a_pipeline_is_found_by_id_and_by_name_in_its_namespace(database):
    await save(database, new(pipelines=[pipeline(1), pipeline(2, namespace="b", name="build")]))

    def work(source):
        return (
            source.pipeline("pipeline-2").key,
            source.pipeline_named("b", "build").key,
            source.pipeline_named("default", "build"),
            source.run("run-1"),
        )

    assert await read(database, work) == (2, 2, None, None)


async def test_a_class_is_stored_once(database):
    for text_of_class in ("first", "second"):
        await save(database, Changes(new_classes={"c": text_of_class}))
    assert await read(database, lambda source: source.class_known("c"))


# ---- deleting


async def test_a_deleted_task_takes_everything_of_its_own_along(database):
    doomed = task(2)
    stored = batch(2, 1, 1, [LogLine(1, "stdout", "info", "text")])
    await save(
        database,
        new(
            tasks=[task(1), doomed, task(3)],
            attempts=[attempt(2), attempt(1)],
            dependencies=[(2, 1), (3, 2)],
            logs=[stored],
        ),
    )
    await save(database, Changes(deleted_tasks=[doomed]))

    def work(source):
        left = [t.key for t in source.tasks_by_key([1, 2, 3])]
        return left, source.dependents([1, 2]), len(source.attempts([(2, 1)]))

    assert await read(database, work) == ([1, 3], [], 0)
    await save(database, new(tasks=[task(2)], attempts=[attempt(2)], logs=[stored]))


# ---- requests


def remembered(**chosen):
    return full(RequestRecord, namespace="a", caller="b", request_id="c", **chosen)


@pytest.mark.parametrize("answer", ["one id", ["a", "list"], []])
async def test_an_answer_is_remembered(database, answer):
    record = remembered(answer=answer)
    await save(database, new(requests=[record]))
    assert await read(database, lambda source: source.request("a", "b", "c")) == record
    for other in [("x", "b", "c"), ("a", "x", "c"), ("a", "b", "x")]:
        assert await read(database, lambda source, o=other: source.request(*o)) is None


async def test_an_expired_answer_makes_room_for_a_new_one(database):
    old = remembered(answer="old", expires_at=1)
    await save(database, new(requests=[old]))
    newer = remembered(answer="new", expires_at=2)
    await save(database, Changes(requests=[newer], expired_requests=[old]))
    assert await read(database, lambda source: source.request("a", "b", "c")) == newer


async def test_an_answer_that_somebody_stored_meanwhile_is_not_replaced(database):
    old = remembered(answer="old", expires_at=1)
    first = remembered(answer="first", expires_at=2)
    await save(database, new(requests=[old]))
    await save(database, Changes(requests=[first], expired_requests=[old]))
    late = remembered(answer="late", expires_at=3)
    with pytest.raises((PoisonError, StoreUnavailable)):
        await save(database, Changes(requests=[late], expired_requests=[old]))
    assert await read(database, lambda source: source.request("a", "b", "c")) == first


# ---- keys and positions


async def test_keys_never_repeat(database):
    seen = set()

    def draw(count):
        def work(source):
            keys = [source.new_key() for _ in range(count)]
            source.save(new(agents=[agent(key) for key in keys]))
            return keys

        return work

    def draw_and_fail(source):
        seen.discard(source.new_key())  # given up with the transaction
        raise RuntimeError

    for _ in range(5):
        keys = await database.transact(draw(3))
        assert seen.isdisjoint(keys)
        seen.update(keys)
        with pytest.raises(RuntimeError):
            await database.transact(draw_and_fail)
    assert len(seen) == 15


async def test_keys_go_on_over_many_blocks(database):
    keys = await database.transact(lambda source: [source.new_key() for _ in range(9000)])
    assert len(set(keys)) == 9000


async def test_events_are_numbered_in_commit_order_and_numbers_are_not_reused(database):
    def told(count):
        def work(source):
            events = [event() for _ in range(count)]
            source.save(new(events=events))
            return [e.position for e in events]

        return work

    def failing(source):
        source.save(new(events=[event()]))
        raise RuntimeError

    positions = await database.transact(told(2))
    with pytest.raises(RuntimeError):
        await database.transact(failing)
    positions += await database.transact(told(3))
    assert positions[0] > 0
    assert positions == sorted(set(positions))


# ---- all or nothing


class OwnError(Exception):
    pass


async def test_an_exception_comes_through_and_nothing_was_changed(database):
    await save(database, new(agents=[agent(1)], tasks=[task(1)]))

    def work(source):
        source.save(new(agents=[agent(2)]))
        source.save(changed(tasks=[task(1, name="changed")]))
        raise OwnError

    with pytest.raises(OwnError):
        await database.transact(work)
    (stored,) = await read(database, lambda source: source.tasks_by_key([1]))
    assert stored.name == "task 1"
    assert await read(database, lambda source: source.agents_by_key([2])) == []


@pytest.mark.parametrize(
    "poison",
    [
        lambda: new(tasks=[task(8, timeout=HUGE)]),
        lambda: new(tasks=[task(8, timeout=-HUGE - 1)]),
        lambda: changed(tasks=[task(1, deadline=HUGE)]),
        lambda: new(tasks=[task(8, public_id="task-1")]),
        lambda: new(tasks=[task(1, public_id="other")]),
        lambda: new(attempts=[attempt(99)]),
        lambda: new(dependencies=[(1, 99)]),
    ],
    ids=["huge", "tiny", "huge in an update", "same id", "same key", "no task", "dangling"],
)
async def test_what_the_database_rejects_is_poison_and_changes_nothing(database, poison):
    await save(database, new(tasks=[task(1)]))

    def work(source):
        source.save(new(agents=[agent(5)]))
        source.save(poison())

    with pytest.raises(PoisonError):
        await database.transact(work)
    assert await read(database, lambda source: source.agents_by_key([5])) == []


@pytest.mark.parametrize("text_of_task", ["a\0b", "lone \ud800"], ids=["NUL", "surrogate"])
async def test_text_that_postgresql_cannot_keep_is_poison(postgresql, text_of_task):
    with pytest.raises(PoisonError):
        await save(postgresql, new(tasks=[task(1, name=text_of_task)]))


async def test_text_that_sqlite_cannot_keep_is_poison(sqlite):
    with pytest.raises(PoisonError):
        await save(sqlite, new(tasks=[task(1, name="lone \ud800")]))


async def test_only_a_shared_database_tells_the_time(database):
    told = await read(database, lambda source: source.now())
    shared = isinstance(database, PostgresDatabase)
    assert (told is not None) is shared
    if shared:
        assert abs(told - time.time() * 1000) < 60_000


async def test_a_first_run_is_not_a_replay(database):
    assert await read(database, lambda source: source.replayed) is False


# ---- SQLite


async def test_a_second_server_on_one_file_is_refused_by_name(sqlite, tmp_path):
    second = SqliteDatabase(tmp_path / "muster.db")
    try:
        with pytest.raises(DatabaseInUseError, match=r"muster\.db"):
            await second.open()
    finally:
        await second.close()
    await save(sqlite, new(tasks=[task(1)]))


async def test_a_closed_file_opens_again_with_everything_in_it(tmp_path):
    for expected in ([], [1]):
        database = SqliteDatabase(tmp_path / "muster.db")
        await database.open()
        found = await read(database, lambda source: [t.key for t in source.tasks_by_key([1])])
        assert found == expected
        if not expected:
            await save(database, new(tasks=[task(1)]))
        await database.close()


async def test_a_locked_file_is_unavailable_and_works_again_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(sql, "BUSY_SECONDS", 0.05)
    database = SqliteDatabase(tmp_path / "muster.db")
    await database.open()
    try:
        other = sqlite3.connect(tmp_path / "muster.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await save(database, new(tasks=[task(1)]))
        other.execute("ROLLBACK")
        other.close()
        await save(database, new(tasks=[task(1)]))
        assert await read(database, lambda source: len(source.tasks_by_key([1]))) == 1
    finally:
        await database.close()


async def test_a_full_disk_is_unavailable_and_works_again_afterwards(sqlite):
    """SQLite's own limit on a file's pages fails as a full disk does."""

    def limit(pages):
        def work(source):
            source._connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

        return work

    big = new(tasks=[task(1, spec="x" * 1_000_000)])
    await sqlite.transact(limit(1))  # SQLite makes that: as many as there are
    with pytest.raises(StoreUnavailable, match="full"):
        await save(sqlite, big)
    await sqlite.transact(limit(1_000_000))
    await save(sqlite, big)


async def test_commits_are_durable_and_foreign_keys_hold(sqlite):
    def pragmas(source):
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [source._connection.exec_driver_sql(f"PRAGMA {n}").scalar() for n in names]

    assert await sqlite.transact(pragmas) == ["wal", 2, 1]


FOREIGN = {
    "somebody else's": ["CREATE TABLE theirs (x)", "INSERT INTO theirs VALUES (1)"],
    "newer": [
        f"CREATE TABLE {VERSION_TABLE} (version_num TEXT)",
        f"INSERT INTO {VERSION_TABLE} VALUES ('9999')",  # noqa: S608
        "CREATE TABLE tasks (x)",
    ],
}


@pytest.mark.parametrize("statements", FOREIGN.values(), ids=FOREIGN)
async def test_a_foreign_or_newer_file_is_refused_and_left_untouched(tmp_path, statements):
    path = tmp_path / "muster.db"
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    before = path.read_bytes()
    database = SqliteDatabase(path)
    with pytest.raises(UnknownSchemaError):
        await database.open()
    await database.close()
    assert path.read_bytes() == before
    left = {each.name for each in tmp_path.iterdir()}
    assert left <= {"muster.db", "muster.db.lock"}


async def test_a_file_that_is_no_database_is_refused_and_left_untouched(tmp_path):
    path = tmp_path / "muster.db"
    path.write_bytes(b"notes, not a database\n" * 300)
    before = path.read_bytes()
    database = SqliteDatabase(path)
    with pytest.raises((UnknownSchemaError, StoreUnavailable, PoisonError)):
        await database.open()
    await database.close()
    assert path.read_bytes() == before


# ---- PostgreSQL


@pytest.mark.parametrize("statements", FOREIGN.values(), ids=FOREIGN)
async def test_a_foreign_or_newer_database_is_refused_and_left_untouched(postgres, statements):
    name = await postgres.create()
    database = PostgresDatabase(postgres.url(name))
    listing = text(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2"
    )
    try:
        async with database._engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement.replace("(x)", "(x int)")))
        async with database.reading() as connection:
            before = (await connection.execute(listing)).all()
        with pytest.raises(UnknownSchemaError):
            await database.open()
        async with database.reading() as connection:
            assert (await connection.execute(listing)).all() == before
    finally:
        await database.close()
        await postgres.drop(name)


async def test_two_servers_may_open_one_empty_database_at_once(postgres):
    name = await postgres.create()
    servers = [PostgresDatabase(postgres.url(name)) for _ in range(3)]
    try:
        await asyncio.gather(*(server.open() for server in servers))
    finally:
        for server in servers:
            await server.close()
        await postgres.drop(name)


async def test_two_servers_draw_different_keys_from_the_first_on(postgres):
    name = await postgres.create()
    servers = [PostgresDatabase(postgres.url(name)) for _ in range(3)]

    def work(source):
        source.save(new(events=[event()]))
        return source.new_key()

    try:
        await servers[0].open()
        keys = await asyncio.gather(*(server.transact(work) for server in servers * 2))
    finally:
        for server in servers:
            await server.close()
        await postgres.drop(name)
    assert len(set(keys)) == 6


async def test_a_connection_that_is_cut_does_not_end_the_service(postgresql):
    await save(postgresql, new(tasks=[task(1)]))
    async with postgresql.reading() as connection:
        cut = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.execute(cut)
    await save(postgresql, new(tasks=[task(2)]))
    assert await read(postgresql, lambda source: len(source.tasks_by_key([1, 2]))) == 2


async def test_a_connection_cut_in_mid_transaction_is_tried_again(postgresql):
    tries = []

    def work(source):
        source.save(new(tasks=[task(1)]))
        tries.append(source.replayed)
        if len(tries) == 1:
            me = source._connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            me.close()

    await postgresql.transact(work)
    assert tries == [False, True]
    assert await read(postgresql, lambda source: len(source.tasks_by_key([1]))) == 1


async def test_a_server_that_is_gone_is_unavailable(postgresql, tmp_path):
    url = postgresql._engine.url.set(query={"host": str(tmp_path)})
    database = PostgresDatabase(url)
    try:
        with pytest.raises(StoreUnavailable):
            await save(database, new(tasks=[task(1)]))
    finally:
        await database.close()


async def blocked(database):
    """Wait until some transaction of the database waits for a lock."""
    waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with asyncio.timeout(30):
        while True:
            async with database.reading() as connection:
                if await connection.scalar(waits):
                    return


async def test_a_position_is_given_only_after_every_smaller_one_is_committed(postgresql):
    keys = Keys()
    await save(postgresql, new(events=[event()]))

    async def late():
        second = event()
        await save(postgresql, new(events=[second]))
        return second.position

    async with asyncio.TaskGroup() as tasks, postgresql._engine.begin() as connection:
        first = event()
        changes = new(events=[first])
        await connection.run_sync(lambda c: SqlSource(c, keys).save(changes))
        waiting = tasks.create_task(late())
        await blocked(postgresql)
        assert not waiting.done()
    assert first.position < waiting.result()


async def test_two_claims_do_not_wait_for_each_other(postgresql):
    await save(postgresql, new(tasks=[task(1), task(2), task(3)]))
    keys = Keys()
    async with postgresql._engine.begin() as connection:
        first = await connection.run_sync(lambda c: SqlSource(c, keys).ready_tasks(ANY, 2))
        async with asyncio.timeout(10):
            second = await read(postgresql, lambda source: source.ready_tasks(ANY, 2))
    assert [t.key for t in first] == [1, 2]
    assert [t.key for t in second] == [3]


# ---- the schema


@pytest.mark.parametrize("record", [*RECORDS, EVENT], ids=lambda r: r.table.name)
def test_columns_bear_the_names_of_the_records_fields(record):
    assert {c.name for c in record.table.columns} == {f.name for f in fields(record.record_type)}


KEYS = ("task_key", "attempt", "namespace")


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (tables.logs, {*KEYS, "blob", "blob_offset", "blob_size", *LogBlock.__slots__}),
        (tables.requests, {f.name for f in fields(RequestRecord)}),
    ],
)
def test_columns_of_what_is_only_written_are_its_fields(table, names):
    assert {c.name for c in table.columns} == names


@pytest.mark.parametrize("record", [*RECORDS, EVENT], ids=lambda r: r.table.name)
def test_a_column_may_be_empty_when_its_field_may(record):
    optional = {f.name for f in fields(record.record_type) if "None" in str(f.type)}
    assert {c.name for c in record.table.columns if c.nullable} == optional


async def test_the_migrations_make_the_tables_of_the_program(sql_database):
    def compare(connection):
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "version_table": VERSION_TABLE}
        )
        return compare_metadata(context, tables.metadata)

    async with sql_database.reading() as connection:
        assert await connection.run_sync(compare) == []


def test_there_is_one_head():
    assert len(ScriptDirectory.from_config(config()).get_heads()) == 1


async def test_opening_again_changes_nothing(sql_database):
    await save(sql_database, new(tasks=[task(1)]))
    if isinstance(sql_database, PostgresDatabase):
        await sql_database.open()
    else:
        await sql_database._in_thread(sql_database._migrate)
    assert await read(sql_database, lambda source: len(source.tasks_by_key([1]))) == 1
