"""Logs go by age and by size, in rows and in blobs; what they were stays known."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from generated.task.v1 import task_pb2
from server import metrics
from server.auth import Caller, set_caller
from server.domain.attempt import LogState
from server.engine import log_retention
from server.engine.call_limits import QueueLimit
from server.engine.clock import Clock
from server.engine.log_retention import LogLimits, LogRetention
from server.engine.log_sealer import LogSealer
from server.rpc.task_secrets import TaskSecrets
from server.rpc.task_service import TaskService
from server.stores.blobs.folder import FolderBlobs
from server.stores.sql import tables
from server.stores.sql.reader import SqlReader
from tests.contract.test_logs import NAMESPACE, Desk, packed, summary
from tests.fakes.clock import HandClock

HOUR = 3_600_000
MARK = "[muster: the log is not kept any more; it had {} (0.0 MiB)]"


@pytest.fixture
async def desk(sql_database, tmp_path, monkeypatch):
    monkeypatch.setattr(log_retention, "STEP_PAUSE", 0)
    desk = Desk(sql_database, tmp_path / "journal")
    desk.clock = HandClock(Clock().now())
    await desk.open()
    desk.blobs = FolderBlobs(tmp_path / "blobs") if desk.journal else None
    desk.reader = SqlReader(sql_database, desk.journal, desk.blobs)
    yield desk
    await desk.close()


def retention(desk, *, age=timedelta(0), size=0, shared=False):
    return LogRetention(desk.writer, desk.reader, desk.clock, LogLimits(age, size, shared=shared))


async def ended(desk, task_id, *texts, seal=True):
    """Let a task print and end now, and its log be stored for good."""
    lease = await desk.start_task(task_id)
    await desk.append(lease, packed(1, *texts))
    await desk.end(lease, *texts)
    assert await desk.state(wanted=LogState.COMPLETE, task_id=task_id)
    await set_end(desk, task_id)
    if seal:
        await seal_all(desk)


async def set_end(desk, task_id):
    """Let a task have ended now; PostgreSQL goes by a clock of its own."""
    table = tables.tasks
    statement = update(table).where(table.c.public_id == task_id)
    await desk.database.transact(
        lambda source: source._connection.execute(statement.values(finished_at=desk.clock.now()))
    )


async def seal_all(desk):
    if desk.journal is not None:
        await sealer(desk).seal(everything=True)


def sealer(desk):
    return LogSealer(desk.writer, desk.reader, desk.journal, desk.blobs, desk.clock, limit=2**30)


def pruned(reason):
    return metrics.logs_pruned.labels(reason)._value.get()


async def test_a_log_goes_some_time_after_its_task_ended(desk):
    before = pruned("age")
    await ended(desk, "old", "one", "two")
    desk.clock.advance(2 * HOUR)
    await ended(desk, "new", "three")
    keeper = retention(desk, age=timedelta(hours=1))
    assert await keeper.prune() == 1
    assert await desk.texts(task_id="new") == ["three"]
    assert await desk.texts(task_id="old") == [MARK.format("2 lines")]
    assert await keeper.prune() == 0
    assert pruned("age") == before + 1
    desk.clock.advance(2 * HOUR)
    assert await keeper.prune() == 1
    assert await desk.texts(task_id="new") == [MARK.format("1 line")]


async def test_a_log_that_is_gone_tells_what_it_was(desk):
    await ended(desk, "t", "one", "two", "three")
    desk.clock.advance(2 * HOUR)
    assert await retention(desk, age=timedelta(hours=1)).prune() == 1
    (attempt,) = (await desk.reader.task(NAMESPACE, "t")).attempts
    whole = summary("one", "two", "three")
    assert (attempt.log_lines, attempt.log_bytes, attempt.log_crc) == (3, whole.bytes, whole.crc32)
    for first in (1, 2, 3):
        page = await desk.reader.log(NAMESPACE, "t", 0, first, 1000)
        assert (page.total, page.first_line, page.omitted_from) == (3, 3, 1)
        assert (page.state, page.lines[0].level) == (LogState.COMPLETE, "warn")
    assert (await desk.reader.log_place(NAMESPACE, "t", 0, 2, 0)).line == 2
    assert (await desk.reader.log_place(NAMESPACE, "t", 0, 0, 900)).line == 3


async def test_beyond_the_size_the_oldest_logs_go(desk):
    for number in range(5):
        await ended(desk, f"t{number}", f"line of task {number}")
        desk.clock.advance(1000)
    each = await desk.reader.stored_log_bytes() // 5
    keeper = retention(desk, size=3 * each)
    assert await keeper.prune() == 2
    assert await desk.reader.stored_log_bytes() == 3 * each
    for number in range(5):
        text = MARK.format("1 line") if number < 2 else f"line of task {number}"
        assert await desk.texts(task_id=f"t{number}") == [text]
    assert await keeper.prune() == 0


async def test_several_servers_take_no_more_than_one_would(desk, monkeypatch):
    monkeypatch.setattr(log_retention, "STEP", 2)
    for number in range(8):
        await ended(desk, f"t{number}", "x")
        desk.clock.advance(1000)
    each = await desk.reader.stored_log_bytes() // 8
    one, other = (retention(desk, size=4 * each, shared=True) for _ in range(2))
    real = desk.reader.ended_logs

    async def meanwhile(*wanted):
        monkeypatch.setattr(desk.reader, "ended_logs", real)
        assert await other.prune() == 4
        return await real(*wanted)

    monkeypatch.setattr(desk.reader, "ended_logs", meanwhile)
    assert await one.prune() == 0
    assert await desk.reader.stored_log_bytes() == 4 * each


async def test_a_log_that_could_not_go_is_looked_at_again_and_holds_up_no_other(desk, monkeypatch):
    monkeypatch.setattr(log_retention, "STEP", 1)
    lease = await desk.start_task("slow")
    await desk.append(lease, packed(1, "one"))
    await desk.end(lease, "one", "two")
    await seal_all(desk)
    await set_end(desk, "slow")
    desk.clock.advance(1000)
    await ended(desk, "t", "x")
    keeper = retention(desk, age=timedelta(hours=1))
    desk.clock.advance(9 * HOUR)
    assert await keeper.prune() == 1
    assert await desk.texts(task_id="t") == [MARK.format("1 line")]
    await desk.append(lease, packed(2, "two"))
    assert await desk.state(wanted=LogState.COMPLETE, task_id="slow")
    await seal_all(desk)
    assert await keeper.prune() == 1


async def test_logs_go_in_more_than_one_step(desk, monkeypatch):
    monkeypatch.setattr(log_retention, "STEP", 2)
    for number in range(5):
        await ended(desk, f"t{number}", "x")
    desk.clock.advance(2 * HOUR)
    assert await retention(desk, age=timedelta(hours=1)).prune() == 5


async def test_a_log_that_is_stored_late_goes_too(desk):
    if desk.journal is None:
        pytest.skip("these logs are stored at once")
    await ended(desk, "first", "x")
    await ended(desk, "late", "x", seal=False)
    desk.clock.advance(2 * HOUR)
    keeper = retention(desk, age=timedelta(hours=1.5))
    assert await keeper.prune() == 1
    assert await desk.texts(task_id="late") == ["x"]
    await seal_all(desk)
    assert await keeper.prune() == 1


async def test_a_log_that_may_still_grow_stays(desk):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one"))
    await desk.end(lease, "one", "two")
    await seal_all(desk)
    await set_end(desk, "t")
    desk.clock.advance(2 * HOUR)
    keeper = retention(desk, age=timedelta(hours=1))
    assert await keeper.prune() == 0
    await desk.append(lease, packed(2, "two"))
    assert await desk.state(wanted=LogState.COMPLETE)
    assert await desk.texts() == ["one", "two"]
    await seal_all(desk)
    assert await keeper.prune() == 1


async def test_blobs_of_logs_that_went_are_deleted(desk):
    if desk.blobs is None:
        pytest.skip("these logs are rows")
    await ended(desk, "t", "one")
    assert len(await desk.blobs.names("")) == 1
    desk.clock.advance(2 * HOUR)
    await retention(desk, age=timedelta(hours=1)).prune()
    await sealer(desk).sweep()
    assert await desk.blobs.names("") == []
    assert await desk.texts() == [MARK.format("1 line")]


async def test_backwards_the_line_for_what_is_gone_comes_once(desk):
    await ended(desk, "t", *(f"line {number}" for number in range(1, 10)))
    desk.clock.advance(2 * HOUR)
    await retention(desk, age=timedelta(hours=1)).prune()
    set_caller(Caller())
    service = TaskService(
        desk.writer,
        desk.reader,
        None,
        desk.clock,
        TaskSecrets(None, None),
        QueueLimit(desk.reader, 0),
        None,
    )
    numbers, before = [], 10
    while before > 1:
        request = task_pb2.GetTaskLogRequest(task_id="t", before_line=before, limit=2)
        answer = await service.GetTaskLog(request, None)
        if not answer.logs:
            break
        numbers += [line.line_number for line in answer.logs]
        before = answer.logs[0].line_number
    assert numbers == [9]


async def test_a_namespace_beyond_its_quota_loses_its_oldest_logs(desk):
    for number in range(4):
        await ended(desk, f"t{number}", "x" * 50_000 + str(number))
        desk.clock.advance(1000)
    sizes = await desk.reader.log_bytes_by_namespace()
    assert set(sizes) == {NAMESPACE}
    keeper = LogRetention(
        desk.writer, desk.reader, desk.clock, LogLimits(timedelta(0), 0, sizes[NAMESPACE] // 2)
    )
    dropped = await keeper.prune()
    assert dropped >= 1
    kept = [(await desk.texts(task_id=f"t{number}"))[0][-1] for number in range(4)]
    assert kept[-1] == "3"
    assert kept[0] != "0"
    assert (await desk.reader.log_bytes_by_namespace())[NAMESPACE] <= sizes[NAMESPACE] // 2 + 500
    assert await keeper.prune() == 0
