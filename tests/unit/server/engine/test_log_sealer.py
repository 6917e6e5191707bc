"""Logs move from the journal into blobs, and nobody who reads them notices."""

import asyncio
import errno
import os
import zlib

import pytest
import structlog

from server.domain.attempt import LogState, LogSummary
from server.domain.errors import BlockUnreadable, DamagedLog, StoreUnavailable
from server.domain.submitting import DeleteTask
from server.engine import log_sealer
from server.engine.log_sealer import LogSealer
from server.stores import log_journal
from server.stores.blobs.folder import FolderBlobs
from server.stores.interfaces import Room
from server.stores.sql.database import SqliteDatabase
from server.stores.sql.reader import SqlReader
from server.stores.sql.source import SqlSource
from tests.contract.test_logs import NAMESPACE, Desk, loose, packed

LIMIT = 10_000


@pytest.fixture
async def desk(tmp_path):
    database = SqliteDatabase(tmp_path / "muster.db")
    await database.open()
    desk = Desk(database, tmp_path / "journal")
    desk.blobs = FolderBlobs(tmp_path / "blobs")
    await desk.open()
    equip(desk)
    yield desk
    await desk.close()
    await database.close()


def equip(desk, limit=LIMIT):
    desk.reader = SqlReader(desk.database, desk.journal, desk.blobs)
    desk.sealer = LogSealer(desk.writer, desk.reader, desk.journal, desk.blobs, desk.clock, limit)
    desk.writer.listen(desk.sealer.committed)


async def whole(desk, texts, task_id="t"):
    """Let a task print and end; return its lease."""
    lease = await desk.start_task(task_id)
    await desk.append(lease, packed(1, *texts))
    await desk.end(lease, *texts)
    return lease


async def test_a_sealed_log_reads_as_before_and_the_journal_is_empty(desk):
    texts = [f"line {n}" for n in range(1, 101)]
    lease = await desk.start_task()
    for n in range(0, 100, 7):
        await desk.append(lease, packed(n + 1, *texts[n : n + 7]))
    await desk.end(lease, *texts)
    assert await desk.state(wanted=LogState.COMPLETE)
    await desk.sealer.seal(everything=True)
    assert desk.journal.logs() == []
    for _ in range(2):
        assert await desk.texts() == texts
        assert await desk.texts(first=50, limit=3) == texts[49:52]
        assert (await desk.reader.log_place(NAMESPACE, "t", 0, 0, 1050)).line == 50
        await desk.restart()
        equip(desk)
    assert len(await desk.blobs.names("logs/")) == 1


async def test_small_logs_share_a_blob(desk):
    for number in range(5):
        await whole(desk, [f"only {number}"], f"t{number}")
    await desk.sealer.seal(everything=True)
    assert len(await desk.blobs.names("logs/")) <= 5
    for number in range(5):
        assert await desk.texts(task_id=f"t{number}") == [f"only {number}"]
    closed = [await whole(desk, [f"again {n}"], f"u{n}") for n in range(5)]
    before = len(await desk.blobs.names("logs/"))
    for lease in closed:
        assert await desk.state(wanted=LogState.COMPLETE, task_id=lease.task_id)
    desk.sealer._waiting_since = -1e9
    await desk.sealer.seal()
    assert len(await desk.blobs.names("logs/")) == before + 1
    assert await desk.texts(task_id="u3") == ["again 3"]


async def test_a_log_goes_on_after_a_part_of_it_was_sealed(desk):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one", "two"))
    await desk.sealer.seal(everything=True)
    await desk.append(lease, packed(3, "three"))
    assert await desk.texts() == ["one", "two", "three"]
    await desk.restart()
    equip(desk)
    assert await desk.append(lease, packed(4, "four")) == (4, 1)
    await desk.sealer.seal(everything=True)
    await desk.end(lease, "one", "two", "three", "four")
    assert await desk.state(wanted=LogState.COMPLETE)
    assert await desk.texts() == ["one", "two", "three", "four"]


async def test_a_crash_before_the_rows_leaves_the_log_in_the_journal(desk, monkeypatch):
    await whole(desk, ["one"])

    async def die(_command):
        raise StoreUnavailable("killed")

    monkeypatch.setattr(desk.writer, "submit", die)
    with pytest.raises(StoreUnavailable):
        await desk.sealer.seal(everything=True)
    monkeypatch.undo()
    assert await desk.texts() == ["one"]
    assert len(await desk.blobs.names("logs/")) == 1
    await desk.sealer.sweep()
    assert await desk.blobs.names("logs/") == []
    await desk.sealer.seal(everything=True)
    assert await desk.texts() == ["one"]


async def test_a_crash_after_the_rows_finds_each_line_once(desk, monkeypatch):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one", "two"))
    monkeypatch.setattr(desk.journal, "forget", lambda *_args, **_more: None)
    await desk.sealer.seal(everything=True)
    assert await desk.texts() == ["one", "two"]
    await desk.restart()
    equip(desk)
    assert desk.journal.logs() == []
    assert await desk.append(lease, packed(3, "three")) == (3, 1)
    assert await desk.texts() == ["one", "two", "three"]


async def test_a_blob_goes_with_the_last_task_that_needs_it(desk):
    await whole(desk, ["one"])
    assert await desk.state(wanted=LogState.COMPLETE)
    await desk.sealer.seal(everything=True)
    await desk.sealer.sweep()
    assert len(await desk.blobs.names("logs/")) == 1
    await desk.writer.submit(DeleteTask(NAMESPACE, "t"))
    await desk.sealer.sweep()
    assert await desk.blobs.names("logs/") == []


def harm(path, damage):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"flip": data, "cut": data[:10], "gone": b""}[damage])
    if damage == "gone":
        path.unlink()


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
async def test_a_damaged_blob_is_told_and_not_served(desk, tmp_path, damage):
    await whole(desk, ["one"] * 100)
    await desk.sealer.seal(everything=True)
    (name,) = await desk.blobs.names("logs/")
    harm(tmp_path / "blobs" / name, damage)
    with pytest.raises(DamagedLog, match="begins with line 1"):
        await desk.texts()


async def test_a_disk_that_is_nearly_full_is_left_to_the_database(desk, monkeypatch):
    free = [Room(63 * 2**20, 2**40), Room(4, 100), Room(5, 100), None]
    monkeypatch.setattr(desk.blobs, "room", lambda: asyncio.sleep(0, free[0]))
    await whole(desk, ["one"])
    with structlog.testing.capture_logs() as said:
        for _ in range(2):
            await desk.sealer.seal(everything=True)
            free.pop(0)
            assert await desk.blobs.names("logs/") == []
            assert await desk.texts() == ["one"]
        assert [entry["event"] for entry in said] == ["log_sealing_waits"]
        await desk.sealer.seal(everything=True)
    assert desk.journal.logs() == []
    free.pop(0)
    await desk.sealer.seal(everything=True)
    assert [entry["event"] for entry in said] == ["log_sealing_waits", "log_sealing_goes_on"]


def test_each_failure_doubles_the_wait_up_to_a_minute():
    waits = [log_sealer.LOOK_EVERY]
    for _ in range(8):
        waits.append(log_sealer.next_wait(waits[-1], fine=False))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert log_sealer.next_wait(60, fine=True) == 1


@pytest.fixture
def unreadable(monkeypatch):
    """Let the journal fail to read whatever holds one of these words."""
    words, real = {}, log_journal._read

    def read(path, offset, size):
        data = real(path, offset, size)
        for word, error in words.items():
            if word in data:
                raise OSError(error, os.strerror(error))
        return data

    monkeypatch.setattr(log_journal, "FRESH_BYTES", 0)
    monkeypatch.setattr(log_journal, "_read", read)
    return words


async def test_a_block_that_is_lost_stops_neither_its_log_nor_the_others(
    desk, unreadable, monkeypatch
):
    monkeypatch.setattr(log_sealer, "LOST_AFTER", 0)
    lease = await desk.start_task()
    for number, text in enumerate(("one", "two", "three"), 1):
        await desk.append(lease, loose(number, text))
    await desk.end(lease, "one", "two", "three")
    await whole(desk, ["else"], "u")
    unreadable[b"two"] = errno.EIO
    await desk.sealer.seal(everything=True)
    unreadable.clear()
    assert desk.journal.logs() == []
    assert await desk.texts(task_id="u") == ["else"]
    assert await desk.texts() == ["one"]
    with pytest.raises(DamagedLog, match="begins with line 2"):
        await desk.texts(first=2)
    assert await desk.texts(first=3) == ["three"]
    assert (await desk.page()).total == 3


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOENT])
async def test_a_disk_that_was_away_for_a_while_has_lost_nothing(
    desk, unreadable, monkeypatch, number
):
    monkeypatch.setattr(log_sealer, "READ_AGAIN", 0)
    await whole(desk, ["one"])
    unreadable[packed(1, "one").data] = number
    for _ in range(3):
        await desk.sealer.seal(everything=True)
        with pytest.raises(StoreUnavailable):
            await desk.texts()
    unreadable.clear()
    assert await desk.texts() == ["one"]
    await desk.sealer.seal(everything=True)
    assert desk.journal.logs() == []
    assert await desk.texts() == ["one"]


async def test_a_block_that_cannot_be_read_now_waits_and_the_other_logs_do_not(
    desk, unreadable, monkeypatch
):
    await whole(desk, ["one"])
    await whole(desk, ["else"], "u")
    unreadable[packed(1, "one").data] = errno.EMFILE
    await desk.sealer.seal(everything=True)
    assert len(desk.journal.logs()) == 1
    assert await desk.texts(task_id="u") == ["else"]
    with pytest.raises(StoreUnavailable, match="open files"):
        await desk.texts()
    unreadable.clear()
    assert await desk.texts() == ["one"]
    await desk.sealer.seal()
    assert len(desk.journal.logs()) == 1
    monkeypatch.setattr(log_sealer, "READ_AGAIN", 0)
    await desk.sealer.seal(everything=True)
    assert desk.journal.logs() == []
    assert await desk.texts() == ["one"]


async def test_a_reader_of_a_file_that_has_gone_is_told(desk, unreadable, tmp_path):
    assert not unreadable
    await whole(desk, ["one"])
    for path in (tmp_path / "journal").glob("*.log"):
        path.unlink()
    async with asyncio.timeout(10):
        with pytest.raises(BlockUnreadable):
            await desk.texts()
        with pytest.raises(BlockUnreadable):
            await desk.reader.log_place(NAMESPACE, "t", 0, 0, 1)


async def test_a_log_that_moves_while_it_is_searched_is_found(desk, unreadable, monkeypatch):
    assert not unreadable
    await whole(desk, ["one"])
    real = desk.journal.load

    async def move_first(entry):
        monkeypatch.setattr(desk.journal, "load", real)
        await desk.sealer.seal(everything=True)
        raise FileNotFoundError

    monkeypatch.setattr(desk.journal, "load", move_first)
    assert (await desk.reader.log_place(NAMESPACE, "t", 0, 0, 1)).line == 1
    assert desk.journal.logs() == []


async def test_a_log_beyond_its_limit_keeps_beginning_and_end_and_says_so(desk):
    equip(desk, limit=50_000)
    lease = await desk.start_task()
    texts = [f"{n:05} " + "x" * 93 for n in range(1, 1001)]  # 100 bytes each with their ends
    for n in range(0, 1000, 10):
        await desk.append(lease, packed(n + 1, *texts[n : n + 10]))
        if n % 100 == 90:
            await desk.sealer.seal(everything=True)
    joined = "".join(text + "\n" for text in texts).encode()
    await desk.end(lease, log=LogSummary(1000, len(joined), zlib.crc32(joined)))
    assert await desk.state(wanted=LogState.COMPLETE)
    for _ in range(2):
        page = await desk.reader.log(NAMESPACE, "t", 0, 1, 1000)
        head = [line.text for line in page.lines]
        assert head == texts[: len(head)]
        mark = await desk.reader.log(NAMESPACE, "t", 0, len(head) + 1, 1000)
        (line,) = mark.lines
        assert line.text.startswith(f"[muster: lines {len(head) + 1:,} to {mark.first_line:,} ")
        rest = await desk.texts(first=mark.first_line + 1)
        assert rest == texts[mark.first_line :]
        kept = 100 * (len(head) + len(rest))
        assert 20_000 <= kept <= 50_000
        assert (page.total, head[0], rest[-1]) == (1000, texts[0], texts[-1])
        await desk.restart()
        equip(desk, limit=50_000)
    assert (await desk.reader.task(NAMESPACE, "t")).attempts[0].log_lines == 1000


async def test_the_rows_of_a_log_that_is_cut_are_read_once(desk, monkeypatch):
    lease = await desk.start_task()
    for number in range(1, 31):
        await desk.append(lease, packed(number, "x" * 1000))
    real, asked = SqlSource.log_heads, []

    def heads(source, *wanted):
        asked.append(wanted)
        return real(source, *wanted)

    monkeypatch.setattr(SqlSource, "log_heads", heads)
    await desk.sealer.seal(everything=True)
    assert len(asked) == 1


async def test_long_open_logs_are_moved_by_themselves(desk, monkeypatch):
    monkeypatch.setattr(log_sealer, "LONG_BYTES", 200)
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "short"))
    await desk.sealer.seal()
    assert desk.journal.logs() != []
    for n in range(2, 12):
        await desk.append(lease, packed(n, f"line {n} " + "y" * 20))
    await desk.sealer.seal()
    assert desk.journal.logs() == []
    assert (await desk.texts())[-1].startswith("line 11 ")
