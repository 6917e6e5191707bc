"""Closed logs are archived by day, hour and level: each at least once, under the same names."""

import gzip
import json

import pytest

from server.domain.attempt import LogState
from server.domain.changes import ChoreKind
from server.domain.errors import StoreUnavailable
from server.domain.log import LogLine
from server.domain.log_archiving import ClaimArchive, folder_of
from server.domain.log_keeping import LooseLines
from server.domain.log_pruning import DropLogs
from server.domain.policy import Policy
from server.domain.pruning import PruneTasks
from server.domain.submitting import DeleteTask
from server.engine import chore_loop, log_archiver
from server.engine.clock import Clock
from server.engine.log_archiver import LogArchiver
from server.stores.blobs.folder import FolderBlobs
from server.stores.interfaces import Room
from server.stores.sql.reader import SqlReader
from tests.contract.test_logs import NAMESPACE, Desk
from tests.fakes.clock import HandClock

NINE = 1_700_038_800_000
"""2023-11-15, 9:00 UTC."""
MINUTE = 60_000


@pytest.fixture
async def desk(sql_database, tmp_path, monkeypatch):
    monkeypatch.setattr(chore_loop, "STEP_PAUSE", 0)
    desk = Desk(sql_database, tmp_path / "journal")
    desk.clock = HandClock(Clock().now())
    desk.policy = Policy(archive_logs=True)
    await desk.open()
    desk.reader = SqlReader(sql_database, desk.journal)
    yield desk
    await desk.close()


@pytest.fixture
def blobs(tmp_path):
    return FolderBlobs(tmp_path / "archive here")


@pytest.fixture
def archiver(desk, blobs):
    return LogArchiver(desk.writer, desk.reader, blobs)


def said(text, minutes=0, level="info"):
    return LogLine(NINE + minutes * MINUTE, "stdout", level, text)


async def ended(desk, task_id, *lines):
    """Let a task print lines and end, and its log be closed."""
    lease = await desk.start_task(task_id)
    await desk.append(lease, LooseLines(1, lines))
    await desk.end(lease, *(line.text for line in lines))
    assert await desk.state(wanted=LogState.COMPLETE, task_id=task_id)


async def files(blobs):
    """Return the records of every file, by its folder."""
    found = {}
    for name in await blobs.names("archive/"):
        packed = await blobs.get(name, 0, 2**30)
        records = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
        found.setdefault(name.rpartition("/")[0], []).extend(records)
    return found


async def test_a_closed_log_is_archived_by_hour_and_level(desk, archiver, blobs):
    lines = (said("one"), said("bad", level="error"), said("two", 59), said("three", 60))
    await ended(desk, "t", *lines)
    assert await archiver.archive() == 1
    found = await files(blobs)
    assert {folder: [r["message"] for r in records] for folder, records in found.items()} == {
        "archive/2023/11/15/09/info": ["one", "two"],
        "archive/2023/11/15/09/error": ["bad"],
        "archive/2023/11/15/10/info": ["three"],
    }
    assert found["archive/2023/11/15/10/info"] == [
        {
            "time": "2023-11-15T10:00:00.000Z",
            "level": "info",
            "stream": "stdout",
            "namespace": NAMESPACE,
            "task_id": "t",
            "task": "t",
            "attempt": 1,
            "line": 4,
            "agent_id": "a",
            "message": "three",
        }
    ]
    assert await archiver.archive() == 0


async def test_many_logs_share_a_file_and_each_line_is_there_once(desk, archiver, blobs):
    for number in range(5):
        await ended(desk, f"t{number}", *(said(f"{number}.{n}") for n in range(20)))
    assert await archiver.archive() == 5
    assert len(await blobs.names("archive/")) == 1
    (records,) = (await files(blobs)).values()
    expected = sorted(f"{number}.{n}" for number in range(5) for n in range(20))
    assert sorted(record["message"] for record in records) == expected


async def test_a_long_log_goes_in_parts(desk, archiver, blobs, monkeypatch):
    monkeypatch.setattr(log_archiver, "PART_BYTES", 1000)
    monkeypatch.setattr(log_archiver, "PAGE", 7)
    await ended(desk, "t", *(said(f"line {n}") for n in range(1, 51)))
    await archiver.archive()
    names = await blobs.names("archive/")
    assert [name[-14:] for name in names[:2]] == ["-0001.jsonl.gz", "-0002.jsonl.gz"]
    (records,) = (await files(blobs)).values()
    assert [record["line"] for record in records] == list(range(1, 51))


async def test_a_log_that_may_still_grow_waits(desk, archiver, blobs):
    lease = await desk.start_task()
    await desk.append(lease, LooseLines(1, (said("one"),)))
    assert await archiver.archive() == 0
    await desk.end(lease, "one", "two")
    assert await archiver.archive() == 0
    await desk.append(lease, LooseLines(2, (said("two"),)))
    assert await desk.state(wanted=LogState.COMPLETE)
    assert await archiver.archive() == 1


async def test_what_a_full_disk_refused_is_written_again_under_the_same_names(
    desk, archiver, blobs, monkeypatch
):
    await ended(desk, "t", said("one"), said("bad", level="error"))
    real, names = blobs.put, []

    async def full(name, data):
        names.append(name)
        if len(names) == 2:
            raise StoreUnavailable("No space left on device")
        await real(name, data)

    monkeypatch.setattr(blobs, "put", full)
    with pytest.raises(StoreUnavailable):
        await archiver.archive()
    await ended(desk, "u", said("late"))
    assert await archiver.archive() == 2
    assert names[:2] == names[2:4]
    assert len(await blobs.names("archive/")) == 3


async def test_a_log_that_cannot_be_read_now_is_archived_later_and_lets_others_pass(
    desk, archiver, blobs, monkeypatch
):
    await ended(desk, "t", said("one"))
    real = desk.reader.log

    async def away(namespace, task_id, *rest):
        if task_id == "t":
            raise StoreUnavailable("Input/output error")
        return await real(namespace, task_id, *rest)

    monkeypatch.setattr(desk.reader, "log", away)
    for _ in range(chore_loop.TRIES):
        with pytest.raises(StoreUnavailable):
            await archiver.archive()
    await ended(desk, "u", said("two"))
    assert await archiver.archive() == 1
    (records,) = (await files(blobs)).values()
    assert [record["message"] for record in records] == ["two"]
    task = (await desk.reader.task(NAMESPACE, "t")).task
    still = await desk.database.transact(
        lambda source: source.with_chore(ChoreKind.ARCHIVE, [(task.key, 1)])
    )
    assert still == {(task.key, 1)}


async def test_a_disk_that_is_nearly_full_is_left_alone(desk, archiver, blobs, monkeypatch):
    await ended(desk, "t", said("one"))
    free = [4]

    async def room():
        return Room(free[0], 100)

    monkeypatch.setattr(blobs, "room", room)
    assert await archiver.archive() == 0
    free[0] = 5
    assert await archiver.archive() == 1


async def test_a_batch_of_a_killed_server_is_taken_by_another_with_its_name(desk, archiver, blobs):
    await ended(desk, "t", said("one"))
    taken = await desk.writer.submit(ClaimArchive("killed"))
    assert (taken.claim.name, [log.task_id for log in taken.logs]) == ("killed", ["t"])
    await ended(desk, "u", said("two"))
    assert await archiver.archive() == 1
    await expire(desk)
    again = await desk.writer.submit(ClaimArchive("other"))
    assert (again.claim.name, again.logs) == ("killed", taken.logs)
    await expire(desk)
    assert await archiver.archive() == 1
    assert sum("/killed-0001" in name for name in await blobs.names("archive/")) == 1


async def test_a_batch_that_is_taken_again_has_its_logs_in_the_same_order(desk):
    for due, task_id in ((2, "t"), (1, "u")):
        await ended(desk, task_id, said("one"))
        key = ((await desk.reader.task(NAMESPACE, task_id)).task.key, 1)
        await set_due(desk, key, due)
    taken = await desk.writer.submit(ClaimArchive("killed"))
    assert [log.task_id for log in taken.logs] == ["t", "u"]
    await expire(desk)
    assert (await desk.writer.submit(ClaimArchive("other"))).logs == taken.logs


async def set_due(desk, key, due):
    """Let a log be due since a moment."""
    await desk.database.transact(
        lambda source: source.claim_chores(ChoreKind.ARCHIVE, [key], None, due)
    )


async def expire(desk, name="killed"):
    """Let a claim end; PostgreSQL goes by a clock of its own."""
    await desk.database.transact(
        lambda source: source.claim_chores(ChoreKind.ARCHIVE, source.chore_batch(name), name, 0)
    )


def batch_of(name):
    """Return the batch that a file belongs to."""
    return name.rpartition("/")[2].partition("-")[0]


async def test_what_another_server_has_finished_is_not_written_over(
    desk, archiver, blobs, monkeypatch
):
    await ended(desk, "t", said("one"))
    await ended(desk, "u", said("two"))
    refused = []

    async def full(name, _data):
        refused.append(name)
        raise StoreUnavailable("No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(blobs, "put", full)
        with pytest.raises(StoreUnavailable):
            await archiver.archive()
    await expire(desk, batch_of(refused[0]))
    assert await LogArchiver(desk.writer, desk.reader, blobs).archive() == 2
    written = await files(blobs)
    await desk.writer.submit(DeleteTask(NAMESPACE, "t"))
    assert await archiver.archive() == 0
    assert await files(blobs) == written


async def test_who_has_lost_a_batch_stops_in_the_middle_of_it(desk, archiver, blobs, monkeypatch):
    await ended(desk, "t", said("one"), said("bad", level="error"))
    real, names = blobs.put, []

    async def put(name, data):
        names.append(name)
        await real(name, data)
        if len(names) == 1:
            await expire(desk, batch_of(name))
            assert await LogArchiver(desk.writer, desk.reader, blobs).archive() == 1

    monkeypatch.setattr(blobs, "put", put)
    assert await archiver.archive() == 0
    assert len(names) == 3
    assert names[0] == names[1], "the error's file, then both by the other server"


async def test_a_batch_that_takes_long_stays_with_its_server(desk, archiver, blobs, monkeypatch):
    await ended(desk, "t", said("one"), said("bad", level="error"))
    real, others = blobs.put, []

    async def put(name, data):
        await real(name, data)
        desk.clock.advance(4 * MINUTE)
        others.append(await desk.writer.submit(ClaimArchive("other")))

    monkeypatch.setattr(blobs, "put", put)
    assert await archiver.archive() == 1
    assert others == [None, None]


async def test_a_deleted_task_is_passed_over(desk, archiver, blobs):
    await ended(desk, "t", said("one"))
    await ended(desk, "u", said("two"))
    await desk.writer.submit(ClaimArchive("killed"))
    await desk.writer.submit(DeleteTask(NAMESPACE, "t"))
    await expire(desk)
    await archiver.archive()
    (records,) = (await files(blobs)).values()
    assert [record["message"] for record in records] == ["two"]


async def test_a_log_does_not_go_before_it_is_archived(desk, archiver):
    await ended(desk, "t", said("one"))
    task = (await desk.reader.task(NAMESPACE, "t")).task
    drop = DropLogs(((task.key, 1),))
    if desk.journal is not None:
        pytest.skip("DropLogs wants rows")
    assert await desk.writer.submit(drop) == []
    await archiver.archive()
    assert await desk.writer.submit(drop) == [(task.key, 1)]


async def test_a_task_does_not_go_before_its_log_is_archived(desk, archiver, blobs):
    await ended(desk, "t", said("one"))
    later = desk.clock.now() + 24 * 60 * MINUTE
    assert await desk.writer.submit(PruneTasks(later)) == 0
    await archiver.archive()
    assert await desk.writer.submit(PruneTasks(later)) == 1
    assert await files(blobs)


async def test_without_the_setting_nothing_is_noted(desk, blobs):
    desk.policy = Policy()
    await desk.restart()
    await ended(desk, "t", said("one"))
    assert await LogArchiver(desk.writer, desk.reader, blobs).archive() == 0


@pytest.mark.parametrize(
    ("at", "level", "folder"),
    [
        (NINE, "warn", "2023/11/15/09/warn"),
        (NINE - 1, "../../etc", "2023/11/15/08/other"),
        (2**63, "debug", "1970/01/01/00/debug"),
    ],
)
def test_a_line_belongs_to_its_hour_and_one_of_few_levels(at, level, folder):
    assert folder_of(LogLine(at, "stdout", level, "x")) == folder
