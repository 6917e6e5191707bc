"""Logs move from the journal into blobs, and nobody who reads them notices."""

import zlib

import pytest

from server.domain.attempt import LogState, LogSummary
from server.domain.errors import DamagedLog, StoreUnavailable
from server.domain.submitting import DeleteTask
from server.engine import log_sealer
from server.engine.log_sealer import LogSealer
from server.stores.blobs.folder import FolderBlobs
from server.stores.sql.database import SqliteDatabase
from server.stores.sql.reader import SqlReader
from tests.contract.test_logs import NAMESPACE, Desk, packed

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
