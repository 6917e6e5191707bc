import asyncio

from server.domain.errors import StoreUnavailable
from server.domain.policy import Policy
from server.engine.write_watch import TRY_EVERY, Touch, WriteWatch
from server.engine.writer import Writer
from server.stores.sql.database import SqliteDatabase
from tests.fakes.clock import LoopClock
from tests.fakes.shop import NoClaims, SlowDatabase
from tests.fakes.virtual_time import in_virtual_time

FULL = StoreUnavailable("full")


class Read(Touch):
    """Has nothing to write."""

    def decide(self, ledger):
        pass


class Desk:
    """A writer that is watched."""

    def __init__(self):
        self.database = SlowDatabase()
        self.clock = LoopClock()
        self.writer = Writer(
            self.database, self.clock, Policy(), NoClaims(), batch_limit=9, queue_limit=9
        )
        self.watch = WriteWatch(self.writer, self.clock)

    async def __aenter__(self):
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._tasks.create_task(self.writer.run())
        return self

    async def __aexit__(self, *error):
        self.writer.stop()
        await self._tasks.__aexit__(*error)

    async def fail(self, command=None):
        self.database.failures = [FULL]
        await asyncio.gather(self.writer.submit(command or Touch()), return_exceptions=True)


@in_virtual_time
async def test_while_all_is_well_nothing_is_written_to_look():
    async with Desk() as desk:
        assert await desk.watch.failure() is None
    assert desk.database.commits == 0


@in_virtual_time
async def test_after_a_failure_a_write_is_tried_now_and_then_until_one_is_taken():
    async with Desk() as desk:
        await desk.fail()
        desk.database.failures = [FULL, FULL]
        for _ in range(5):  # the first of them tries
            assert await desk.watch.failure() == str(FULL)
        assert desk.database.failures == [FULL]
        await asyncio.sleep(TRY_EVERY)
        assert await desk.watch.failure() == str(FULL)
        assert desk.database.failures == []
        await asyncio.sleep(TRY_EVERY)
        assert await desk.watch.failure() is None
        assert desk.database.commits == 1


@in_virtual_time
async def test_what_others_write_counts_and_what_writes_nothing_does_not():
    async with Desk() as desk:
        await desk.fail()
        desk.database.failures = [FULL]
        await desk.watch.failure()
        await desk.writer.submit(Read())
        assert await desk.watch.failure() == str(FULL)
        await desk.writer.submit(Touch())
        assert await desk.watch.failure() is None


async def test_a_touch_is_a_write_and_changes_nothing(tmp_path):
    database = SqliteDatabase(tmp_path / "muster.db")
    await database.open()
    try:
        before = await database.transact(lambda source: source.new_key())
        await database.transact(lambda source: source.touch())
        assert await database.transact(lambda source: source.new_key()) == before + 1

        def touched(source):
            changes = source._connection.connection.driver_connection.total_changes
            source.touch()
            return source._connection.connection.driver_connection.total_changes - changes

        assert await database.transact(touched) == 1
    finally:
        await database.close()
