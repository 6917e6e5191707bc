import asyncio
from contextlib import asynccontextmanager

from server.domain.errors import StoreUnavailable
from server.domain.policy import Policy
from server.domain.task import TaskStatus
from server.domain.timing import RunTimers
from server.engine.timers import LOOK_AGAIN, Timers
from tests.fakes.shop import Shop
from tests.fakes.virtual_time import in_virtual_time

BRIEF = 0.2


class Watch(Shop):
    """A shop whose timers run."""

    def __init__(self, policy=None):
        super().__init__(policy=policy)
        self.timers = Timers(self.writer, self.reader, self.clock)
        self.writer.listen(self.timers.committed)

    @asynccontextmanager
    async def open(self):
        async with super().open(self.timers.run()) as tasks:
            yield tasks

    async def failed_once(self):
        """Have a task fail that has another try."""
        session = await self.arrive("a")
        await self.submit("t", retry_count=1)
        ((given,),) = [frame.assignments for frame in await session.mailbox.take()]
        await self.tell("a", given, TaskStatus.FAILED)
        return session


@in_virtual_time
async def test_what_is_due_happens_at_its_moment():
    shop = Watch(Policy(retry_backoff=7_000))
    async with shop.open():
        session = await shop.failed_once()
        await asyncio.sleep(7 - BRIEF)
        assert shop.status("t") is TaskStatus.PENDING
        await asyncio.sleep(2 * BRIEF)
        ((given,),) = [frame.assignments for frame in await session.mailbox.take()]
        assert given.attempt == 2


@in_virtual_time
async def test_something_due_sooner_wakes_the_sleeper():
    shop = Watch(Policy(retry_backoff=7_000, claim_to_start=14_000))
    async with shop.open():
        await shop.arrive("b")
        await shop.submit("later")
        await shop.failed_once()
        await asyncio.sleep(7 + BRIEF)
        assert shop.attempt("t").number == 2 or shop.task("t").ready


@in_virtual_time
async def test_something_due_sooner_that_is_told_while_the_database_is_asked_is_not_missed():
    shop = Watch(Policy(retry_backoff=2_000))
    shop.reader.seconds = 1.0
    async with shop.open():
        await shop.failed_once()  # all of it while the first question is under way
        assert shop.clock.monotonic() < shop.reader.seconds
        await asyncio.sleep(2 + shop.reader.seconds + BRIEF)
        assert shop.status("t") is not TaskStatus.PENDING


@in_virtual_time
async def test_an_idle_server_asks_rarely():
    shop = Watch()
    async with shop.open():
        before = shop.database.commits
        await asyncio.sleep(10 * LOOK_AGAIN)
        assert shop.database.commits == before


@in_virtual_time
async def test_a_store_that_does_not_answer_delays_what_is_due_and_no_more():
    shop = Watch(Policy(retry_backoff=7_000))
    async with shop.open():
        await shop.failed_once()
        await asyncio.sleep(5)
        shop.database.failures = [StoreUnavailable("locked")] * 2
        await asyncio.sleep(2 + 3 + BRIEF)
        assert shop.status("t") is TaskStatus.QUEUED


@in_virtual_time
async def test_everything_that_is_due_happens_however_much_it_is(monkeypatch):
    monkeypatch.setattr(RunTimers, "__init__", lambda self: object.__setattr__(self, "limit", 3))
    shop = Watch(Policy(claim_to_start=5_000))
    async with shop.open():
        await shop.arrive("a", slots=20)
        for n in range(20):
            await shop.submit(f"t{n}")
        await asyncio.sleep(6)
        assert all(task.infra_retries == 1 for task in shop.tables.tasks.values())


@in_virtual_time
async def test_a_clock_stepped_back_delays_by_that_and_strands_nothing():
    shop = Watch(Policy(retry_backoff=7_000))
    async with shop.open():
        await shop.failed_once()
        shop.clock.jump(-3_600_000)
        await asyncio.sleep(3_600)
        assert shop.status("t") is TaskStatus.PENDING
        await asyncio.sleep(7 + BRIEF)
        assert shop.status("t") is TaskStatus.QUEUED


@in_virtual_time
async def test_a_clock_stepped_forward_is_noticed_within_one_look():
    shop = Watch(Policy(retry_backoff=3_000_000, retry_backoff_limit=3_000_000))
    async with shop.open():
        await shop.failed_once()
        shop.clock.jump(3_600_000)
        await asyncio.sleep(LOOK_AGAIN * 1.3)
        assert shop.status("t") is TaskStatus.QUEUED
