"""Rows of closed logs move into blobs that servers share, and nobody who reads them notices."""

import asyncio

import pytest

from server.domain.attempt import LogState
from server.domain.changes import ChoreKind
from server.domain.chores import RenewClaim
from server.domain.errors import DamagedLog, StoreUnavailable
from server.domain.log_pruning import DropLogs
from server.domain.log_sealing import ClaimRows
from server.domain.policy import Policy
from server.domain.submitting import DeleteTask
from server.engine import chore_loop, row_sealer
from server.engine.clock import Clock
from server.engine.log_intake import RowIntake
from server.engine.row_sealer import YOUNG, RowSealer
from server.stores.blobs.folder import FolderBlobs
from server.stores.interfaces import Room
from server.stores.sql import tables
from server.stores.sql.reader import SqlReader
from server.stores.sql.source import SqlSource
from tests.contract.test_logs import NAMESPACE, Desk, packed
from tests.fakes.clock import HandClock


@pytest.fixture
async def desk(sql_database, tmp_path, monkeypatch):
    monkeypatch.setattr(chore_loop, "STEP_PAUSE", 0)
    desk = Desk(sql_database, tmp_path / "journal")
    desk.clock = HandClock(Clock().now())
    desk.policy = Policy(seal_rows=True)
    await desk.open()
    desk.intake = RowIntake(desk.writer)
    desk.blobs = FolderBlobs(tmp_path / "shared")
    desk.reader = SqlReader(sql_database, None, desk.blobs)
    yield desk
    await desk.close()


@pytest.fixture
def sealer(desk):
    return server(desk)


def server(desk):
    """Return the sealer of one of several servers."""
    return RowSealer(desk.writer, desk.reader, desk.blobs, desk.clock)


async def whole(desk, *texts, task_id="t", a_batch=3):
    """Let a task print and end, and its log be closed."""
    lease = await desk.start_task(task_id)
    for n in range(0, len(texts), a_batch):
        await desk.append(lease, packed(n + 1, *texts[n : n + a_batch]))
    await desk.end(lease, *texts)
    assert await desk.state(wanted=LogState.COMPLETE, task_id=task_id)


async def in_rows(desk):
    """Return how many blocks still lie in rows, and how many rows there are."""
    async with desk.database.reading() as connection:
        rows = (await connection.execute(tables.logs.select())).all()
    return sum(row.blob is None for row in rows), len(rows)


async def expire(desk, name):
    """Let a claim end; PostgreSQL goes by a clock of its own."""
    kind = ChoreKind.SEAL
    await desk.database.transact(
        lambda source: source.claim_chores(kind, source.chore_batch(name), name, 0)
    )


async def test_a_closed_log_reads_as_before_once_it_is_packed(desk, sealer):
    texts = [f"line {n}" for n in range(1, 101)]
    await whole(desk, *texts)
    assert await in_rows(desk) == (34, 34)
    assert await sealer.seal() == 1
    assert await in_rows(desk) == (0, 1)
    assert await desk.texts() == texts
    assert await desk.texts(first=50, limit=3) == texts[49:52]
    assert (await desk.reader.log_place(NAMESPACE, "t", 0, 0, 1050)).line == 52
    assert await sealer.seal() == 0


async def test_small_logs_share_a_blob(desk, sealer):
    for number in range(5):
        await whole(desk, f"only {number}", task_id=f"t{number}")
    assert await sealer.seal() == 5
    assert len(await desk.blobs.names("logs/")) == 1
    for number in range(5):
        assert await desk.texts(task_id=f"t{number}") == [f"only {number}"]


async def test_a_long_log_goes_in_pieces(desk, sealer, monkeypatch):
    monkeypatch.setattr(row_sealer, "BLOB_BYTES", 300)
    texts = [f"line {n} " + "x" * 50 for n in range(1, 61)]
    await whole(desk, *texts)
    await sealer.seal()
    assert len(await desk.blobs.names("logs/")) > 3
    assert (await in_rows(desk))[0] == 0
    assert await desk.texts() == texts


async def test_a_piece_of_a_long_log_asks_for_its_own_rows_only(desk, sealer, monkeypatch):
    monkeypatch.setattr(row_sealer, "BLOB_BYTES", 300)
    await whole(desk, *(f"line {n} " + "x" * 50 for n in range(1, 61)))
    real, asked = SqlSource.log_heads, []

    def heads(source, *wanted):
        found = real(source, *wanted)
        asked.append(sum(map(len, found.values())))
        return found

    monkeypatch.setattr(SqlSource, "log_heads", heads)
    await sealer.seal()
    assert len(asked) > 3
    assert sum(asked) == 20


async def test_a_log_that_may_still_grow_stays_in_rows(desk, sealer):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one"))
    assert await sealer.seal() == 0
    await desk.append(lease, packed(2, "two"))
    assert await desk.texts() == ["one", "two"]


async def test_what_a_limit_left_out_stays_left_out(desk, sealer):
    desk.policy = Policy(seal_rows=True, log_limit=2_000)
    await desk.restart()
    desk.intake = RowIntake(desk.writer)
    desk.reader = sealer._reader
    texts = [f"{n:05} " + "x" * 93 for n in range(1, 101)]
    await whole(desk, *texts)
    before = await desk.texts()
    mark = await desk.texts(first=len(before) + 1)
    rest = await desk.texts(first=90)
    assert await server(desk).seal() == 1
    assert (await in_rows(desk))[0] == 1
    assert await desk.texts() == before
    assert await desk.texts(first=len(before) + 1) == mark
    assert await desk.texts(first=90) == rest


async def test_a_disk_that_is_nearly_full_is_left_alone(desk, sealer, monkeypatch):
    await whole(desk, "one")
    free = [4]

    async def room():
        return Room(free[0], 100)

    monkeypatch.setattr(desk.blobs, "room", room)
    assert await sealer.seal() == 0
    free[0] = 5
    assert await sealer.seal() == 1


async def test_several_servers_pack_each_log_once(desk):
    for number in range(12):
        await whole(desk, *(f"{number}.{n}" for n in range(5)), task_id=f"t{number}")
    packed_logs = await asyncio.gather(*(server(desk).seal() for _ in range(3)))
    assert sum(packed_logs) == 12
    assert await in_rows(desk) == (0, 12)
    for number in range(12):
        assert await desk.texts(task_id=f"t{number}") == [f"{number}.{n}" for n in range(5)]


async def test_a_crash_between_blob_and_rows_leaves_the_log_as_it_was(desk, sealer, monkeypatch):
    await whole(desk, "one")
    real = desk.writer.submit

    async def die(command):
        if not isinstance(command, ClaimRows | RenewClaim):
            raise StoreUnavailable("killed")
        return await real(command)

    monkeypatch.setattr(desk.writer, "submit", die)
    with pytest.raises(StoreUnavailable):
        await sealer.seal()
    monkeypatch.undo()
    assert await desk.texts() == ["one"]
    assert await server(desk).seal() == 0  # the claim of the dead one lasts
    await expire(desk, sealer._chores._unfinished.claim.name)
    assert await server(desk).seal() == 1
    assert await desk.texts() == ["one"]
    assert len(await desk.blobs.names("logs/")) == 2
    await sealer.sweep()
    assert len(await desk.blobs.names("logs/")) == 2  # it may be one that is about to be noted
    desk.clock.advance(YOUNG + 1)
    await sealer.sweep()
    assert len(await desk.blobs.names("logs/")) == 1
    assert await desk.texts() == ["one"]


async def test_a_log_that_was_dropped_meanwhile_stays_dropped(desk, sealer, monkeypatch):
    await whole(desk, "one")
    key = ((await desk.reader.task(NAMESPACE, "t")).task.key, 1)
    real = desk.blobs.put

    async def put(name, data):
        await real(name, data)
        assert await desk.writer.submit(DropLogs((key,))) == [key]

    monkeypatch.setattr(desk.blobs, "put", put)
    await sealer.seal()
    assert (await desk.texts())[0].startswith("[muster: the log is not kept any more; it had 1 ")


async def test_a_blob_goes_with_the_last_task_that_needs_it(desk, sealer):
    await whole(desk, "one")
    await sealer.seal()
    await desk.writer.submit(DeleteTask(NAMESPACE, "t"))
    desk.clock.advance(YOUNG + 1)
    await sealer.sweep()
    assert await desk.blobs.names("logs/") == []


async def test_a_blob_that_is_gone_is_told_and_not_served(desk, sealer):
    await whole(desk, "one")
    await sealer.seal()
    for name in await desk.blobs.names("logs/"):
        await desk.blobs.delete(name)
    with pytest.raises(DamagedLog, match="begins with line 1"):
        await desk.texts()


async def test_without_shared_blobs_rows_stay(desk, sealer):
    desk.policy = Policy()
    await desk.restart()
    desk.intake = RowIntake(desk.writer)
    await whole(desk, "one")
    assert await server(desk).seal() == 0
    assert await in_rows(desk) == (1, 1)
