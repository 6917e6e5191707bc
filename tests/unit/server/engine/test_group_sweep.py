import asyncio

from server.domain.errors import StoreUnavailable
from server.domain.group import Membership
from server.domain.task import TaskStatus
from server.engine import group_sweep
from server.engine.group_sweep import GroupSweep
from tests.fakes.shop import Shop
from tests.fakes.virtual_time import in_virtual_time

ONE = Membership("g")


async def with_somebody_stranded(shop):
    """Submit two members, and let the one that holds the place end unnoticed."""
    await shop.submit("first", group=ONE)
    await shop.submit("second", group=ONE)
    row = shop.tables.tasks[shop.task("first").key]
    row.status, row.finished_at = TaskStatus.SUCCESS, 1
    assert shop.status("second") is TaskStatus.PENDING


@in_virtual_time
async def test_a_start_finds_whoever_was_left_waiting_and_sweeps_once():
    shop = Shop()
    async with shop.open():
        await with_somebody_stranded(shop)
        sweep = asyncio.ensure_future(GroupSweep(shop.writer).run(shared=False))
        await asyncio.sleep(1)
        assert shop.task("second").ready
        commits = shop.database.commits
        await asyncio.sleep(3 * group_sweep.LOOK_AGAIN)
        assert shop.database.commits == commits
        sweep.cancel()


@in_virtual_time
async def test_what_a_transaction_leaves_for_later_is_worked_off(monkeypatch):
    monkeypatch.setattr("server.domain.admission.CANCEL_STEP", 3)
    shop = Shop()
    sweep = GroupSweep(shop.writer)
    shop.writer.listen(sweep.committed)
    async with shop.open(sweep.run(shared=False)):
        for n in range(20):
            await shop.submit(f"n{n}", group=ONE)
        shop.database.failures = [None, StoreUnavailable("away")]
        await shop.submit("newest", group=Membership("g", cancels_older=True))
        await asyncio.sleep(10)
        ended = [shop.status(f"n{n}") for n in range(20)]
        assert ended == [TaskStatus.CANCELLED] * 20
        assert shop.task("newest").ready


@in_virtual_time
async def test_more_groups_than_a_step_takes_are_all_looked_at(monkeypatch):
    monkeypatch.setattr("server.domain.admission.STEP", 2)
    shop = Shop()
    async with shop.open():
        for key in "abcde":
            for n in "12":
                await shop.submit(f"{key}{n}", group=Membership(key))
            row = shop.tables.tasks[shop.task(f"{key}1").key]
            row.status, row.finished_at = TaskStatus.SUCCESS, 1
        await GroupSweep(shop.writer).sweep()
        assert all(shop.task(f"{key}2").ready for key in "abcde")


@in_virtual_time
async def test_where_servers_share_a_database_it_looks_again_and_outlives_an_outage():
    shop = Shop()
    sweep = GroupSweep(shop.writer)
    async with shop.open(sweep.run(shared=True)):
        await with_somebody_stranded(shop)
        shop.database.failures = [StoreUnavailable("away")]
        await asyncio.sleep(3 * group_sweep.LOOK_AGAIN)
        assert shop.task("second").ready
