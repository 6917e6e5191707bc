import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

from server.domain.agent import SessionState
from server.domain.errors import StoreUnavailable
from server.domain.holding import Held
from server.domain.lease import LeaseRef
from server.domain.moment import SECOND
from server.domain.task import TaskStatus
from server.engine.lease_keeper import LeaseKeeper
from tests.fakes.shop import Shop
from tests.fakes.virtual_time import in_virtual_time
from tests.records import changed

LEASE = 30
GRACE = 60
MOMENT = 3  # loops look every half second, commits take a while


class Office(Shop):
    """A shop whose leases are kept."""

    @asynccontextmanager
    async def open(self):
        keeper = LeaseKeeper(
            self.writer,
            self.reader,
            self.sessions,
            self.clock,
            timedelta(seconds=LEASE),
            timedelta(seconds=GRACE),
        )
        await keeper.start()
        async with super().open(keeper.run()) as tasks:
            yield tasks

    def state(self, agent_id="a"):
        return self.agent(agent_id).session_state

    async def speak(self, session, seconds):
        """Let an agent be heard for a while."""
        for _ in range(seconds):
            await asyncio.sleep(1)
            self.attendance.hear(session)


@in_virtual_time
async def test_a_session_silent_for_a_whole_lease_is_lost_and_not_before():
    shop = Office()
    async with shop.open():
        session = await shop.arrive("a")
        await shop.submit("t")
        await asyncio.sleep(LEASE - MOMENT)
        assert shop.state() is SessionState.LIVE
        await asyncio.sleep(2 * MOMENT)
        assert shop.state() is SessionState.LOST
        assert session.lost
        assert shop.task("t").ready


@in_virtual_time
async def test_a_session_that_is_heard_lives_on():
    shop = Office()
    async with shop.open():
        session = await shop.arrive("a")
        await shop.speak(session, 10 * LEASE)
        assert shop.state() is SessionState.LIVE


@in_virtual_time
async def test_hearing_many_agents_costs_one_write_every_few_seconds():
    shop = Office()
    async with shop.open():
        sessions = [await shop.arrive(f"a{n}") for n in range(20)]
        before = shop.database.commits
        for _ in range(30):
            await asyncio.sleep(1)
            for session in sessions:
                shop.attendance.hear(session)
        assert 5 <= shop.database.commits - before <= 11


@in_virtual_time
async def test_what_was_heard_is_written_a_few_seconds_late_at_most():
    shop = Office()
    async with shop.open():
        session = await shop.arrive("a")
        for _ in range(20):
            await shop.speak(session, 1)
            assert shop.clock.now() - shop.agent("a").last_seen <= 5_000


@in_virtual_time
async def test_nothing_is_written_for_those_who_are_silent():
    shop = Office()
    async with shop.open():
        await shop.arrive("a")
        await asyncio.sleep(MOMENT + 1)
        before = shop.database.commits
        await asyncio.sleep(LEASE / 2)
        assert shop.database.commits == before


@in_virtual_time
async def test_a_lost_session_revives_with_its_next_word_and_its_task_goes_on():
    """A healthy long task does not die of a network blip of 31 seconds."""
    shop = Office()
    async with shop.open():
        session = await shop.arrive("a", slots=1)
        await shop.submit("t")
        ((given,),) = [frame.assignments for frame in await session.mailbox.take()]
        await shop.tell("a", given, TaskStatus.RUNNING)
        await asyncio.sleep(LEASE + MOMENT)
        assert shop.status("t") is TaskStatus.QUEUED
        lease = LeaseRef("t", given.lease_id)
        session = await shop.attendance.session("a", session.session_id)
        await shop.attendance.heartbeat(session, Held((lease,), session.frame))
        task = shop.task("t")
        assert (task.status, task.attempt, task.infra_retries) == (TaskStatus.RUNNING, 1, 0)
        await shop.speak(session, 2 * LEASE)
        assert shop.status("t") is TaskStatus.RUNNING


@in_virtual_time
async def test_after_a_start_sessions_of_before_get_longer():
    shop = Office()
    shop.join("a")  # as the server of before left it
    async with shop.open():
        await asyncio.sleep(GRACE - MOMENT)
        assert shop.state() is SessionState.LIVE
        await asyncio.sleep(2 * MOMENT)
        assert shop.state() is SessionState.LOST


@in_virtual_time
async def test_a_session_of_before_that_speaks_in_time_lives_on():
    shop = Office()
    session_id = shop.join("a").agent.session_id
    async with shop.open():
        await asyncio.sleep(GRACE / 2)
        session = await shop.attendance.session("a", session_id)
        await shop.speak(session, 2 * GRACE)
        assert shop.state() is SessionState.LIVE


@in_virtual_time
async def test_a_clock_that_is_set_loses_nobody():
    """Named in the third issue: clock stepped back an hour, and forward."""
    shop = Office()
    async with shop.open():
        session = await shop.arrive("a")
        for hours in (-1, 1, 1):
            shop.clock.jump(hours * 3_600_000)
            await shop.speak(session, 2 * LEASE)
            assert shop.state() is SessionState.LIVE
        await asyncio.sleep(LEASE + MOMENT)
        assert shop.state() is SessionState.LOST


@in_virtual_time
async def test_a_store_that_does_not_answer_for_a_while_ends_nothing():
    shop = Office()
    async with shop.open():
        session = await shop.arrive("a")
        shop.database.failures = [StoreUnavailable("locked")] * 5
        await shop.speak(session, LEASE)
        assert shop.state() is SessionState.LIVE
        await asyncio.sleep(LEASE + MOMENT)
        assert shop.state() is SessionState.LOST


@in_virtual_time
async def test_a_session_another_server_hears_is_left_to_it():
    shop = Office()
    async with shop.open():
        session = await shop.arrive("a")
        for _ in range(LEASE + MOMENT):
            await asyncio.sleep(1)
            agent = shop.agent("a")
            agent.last_seen = shop.clock.now()  # the other server writes it down
            shop.database.transact_now(lambda source, a=agent: source.save(changed(agents=[a])))
        assert shop.state() is SessionState.LIVE
        assert shop.sessions.get(session.session_id) is None


@in_virtual_time
async def test_in_a_large_fleet_agents_speak_less_often_and_are_waited_for_as_long(monkeypatch):
    monkeypatch.setattr("server.engine.attendance.BEATS_A_SECOND", 0.1)
    shop = Office()
    async with shop.open():
        early = await shop.arrive("early")
        await shop.arrive("second")
        late = await shop.arrive("late")
        assert shop.attendance.times_of(early) == (10, LEASE)
        assert shop.attendance.times_of(late) == (20, 2 * LEASE)
        await asyncio.sleep(LEASE + MOMENT)
        assert (shop.state("early"), shop.state("late")) == (SessionState.LOST, SessionState.LIVE)
        await asyncio.sleep(LEASE)
        assert shop.state("late") is SessionState.LOST


@in_virtual_time
async def test_after_a_start_each_agent_is_waited_for_as_long_as_its_own_lease():
    earlier = Shop()
    async with earlier.open():
        await earlier.arrive("a", pushes=False)
    shop = Office()
    shop.database.tables = earlier.database.tables
    agent = shop.agent("a")
    agent.lease = 4 * LEASE * SECOND
    await shop.database.transact(lambda source: source.save(changed(agents=[agent])))
    async with shop.open():
        await asyncio.sleep(GRACE + MOMENT)
        assert shop.state() is SessionState.LIVE
        await asyncio.sleep(4 * LEASE - GRACE + MOMENT)
        assert shop.state() is SessionState.LOST
