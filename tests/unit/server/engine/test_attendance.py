"""Agents come, are heard and go: what memory makes of it."""

import asyncio

from server.domain.claiming import HandBack
from server.domain.controlling import Action, SetAgentState
from server.domain.errors import SessionSuperseded
from server.domain.event import EventKind
from server.domain.holding import Held
from server.domain.lease import LeaseRef, VerdictAction
from server.domain.policy import Policy
from server.domain.task import TaskStatus
from server.engine.mailbox import HandBackAll, Mailbox, Stop, Work
from server.engine.sessions import Sessions
from server.engine.timers import Timers
from tests.fakes.core import NAMESPACE
from tests.fakes.shop import Shop
from tests.fakes.virtual_time import in_virtual_time


def forget(shop):
    """Let the server have started anew: its memory of sessions is gone."""
    for session in list(shop.sessions):
        shop.sessions.remove(session)


async def lease_of(session):
    """Return the lease of the one task that was pushed to an agent."""
    (frame,) = await session.mailbox.take()
    assert isinstance(frame, Work)
    (given,) = frame.assignments
    return LeaseRef(given.task_id, given.lease_id)


@in_virtual_time
async def test_who_has_not_said_what_it_holds_is_offered_nothing():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", slots=2)
        await shop.submit("running")
        lease = await lease_of(session)
        forget(shop)
        # Its first word is a report or a log line, not a heartbeat.
        session = await shop.attendance.session("a", "a-session")
        session.mailbox = Mailbox(pushes=True)
        await shop.submit("new")
        await asyncio.sleep(1)
        assert shop.task("new").ready, "slots were offered before anybody knew what is held"
        assert await shop.attendance.heartbeat(session, Held((lease,), 1)) == []
        (frame,) = await session.mailbox.take()
        assert [given.task_id for given in frame.assignments] == ["new"]
        assert set(session.leases) == {lease.lease_id, frame.assignments[0].lease_id}


@in_virtual_time
async def test_a_lost_session_is_not_given_its_own_running_task_again():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", slots=2)
        await shop.submit("t")
        lease = await lease_of(session)
        await shop.tell("a", lease, TaskStatus.RUNNING)
        shop.lose("a")
        session.lost = True
        session = await shop.attendance.session("a", "a-session")
        await asyncio.sleep(1)
        assert shop.task("t").attempt == 1
        assert await shop.attendance.heartbeat(session, Held((lease,), 1)) == []
        assert shop.status("t") is TaskStatus.RUNNING


@in_virtual_time
async def test_frames_are_counted_on_from_where_the_agent_stands():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", slots=9)
        forget(shop)
        session = await shop.attendance.session("a", "a-session")
        await shop.attendance.heartbeat(session, Held((), 41))
        session.mailbox = Mailbox(pushes=True)
        await shop.submit("t")
        (frame,) = await session.mailbox.take()
        assert frame.frame == 42


@in_virtual_time
async def test_a_cancel_is_told_again_after_a_server_start_also_to_a_v1_agent():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", v1=True, pushes=False)
        fetching = asyncio.ensure_future(shop.fetching(session, 60))
        await shop.submit("t")
        await fetching
        shop.cancel("t", reason="enough")
        forget(shop)
        session = await shop.attendance.session("a", "")
        (verdict,) = await shop.attendance.heartbeat(session, None)
        assert (verdict.action, verdict.reason) == (VerdictAction.CANCEL, "enough")
        mailbox = Mailbox(pushes=False)
        shop.attendance.use_v1_stream(session, mailbox)
        (frame,) = await mailbox.take()
        assert isinstance(frame, Stop)


@in_virtual_time
async def test_a_newer_registration_closes_the_older_session_with_its_reason():
    shop = Shop()
    async with shop.open():
        older = await shop.arrive("a")
        mailbox = older.mailbox
        await shop.arrive("a")
        assert mailbox.closed
        assert isinstance(mailbox.error, SessionSuperseded)


def test_a_new_memory_knows_nobody():
    sessions = Sessions()
    assert (len(sessions), sessions.get("s"), sessions.of_agent("a")) == (0, None, None)


@in_virtual_time
async def test_a_paused_agent_is_offered_nothing_and_told_to_hand_back():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", slots=2)
        await shop.writer.submit(SetAgentState(NAMESPACE, "a", Action.PAUSE))
        assert await session.mailbox.take() == [HandBackAll()]
        await shop.submit("t")
        await asyncio.sleep(1)
        assert shop.task("t").ready
        forget(shop)
        session = await shop.arrive("a", slots=2)
        assert session.wants == 0, "a new session knew nothing of the pause"
        await shop.writer.submit(SetAgentState(NAMESPACE, "a", Action.RESUME))
        await lease_of(session)


@in_virtual_time
async def test_word_of_a_pause_that_is_over_comes_too_late_to_count():
    """Another server's events are read after the commit, and ours are told at once."""
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a")
        for action in (Action.PAUSE, Action.RESUME):
            await shop.writer.submit(SetAgentState(NAMESPACE, "a", action))
        paused, _ = shop.events(EventKind.AGENT_STATE)
        shop.attendance.told(paused)
        assert session.open


@in_virtual_time
async def test_an_agent_hears_at_the_deadline_of_its_drain_that_tasks_must_stop():
    shop = Shop()
    timers = Timers(shop.writer, shop.reader, shop.clock)
    shop.writer.listen(timers.committed)
    async with shop.open(timers.run()):
        session = await shop.arrive("a")
        await shop.submit("t")
        lease = await lease_of(session)
        await shop.tell("a", lease, TaskStatus.RUNNING)
        await shop.writer.submit(SetAgentState(NAMESPACE, "a", Action.DRAIN, deadline=20))
        assert await session.mailbox.take() == [HandBackAll()]
        began = shop.clock.now()
        (frame,) = await session.mailbox.take()
        assert frame.verdict.action is VerdictAction.CANCEL
        assert frame.verdict.lease_id == lease.lease_id
        assert 20_000 <= shop.clock.now() - began < 21_000
        verdicts = await shop.attendance.heartbeat(session, Held((lease,), 1))
        assert [v.action for v in verdicts] == [VerdictAction.CANCEL], "it is told until it is done"


@in_virtual_time
async def test_a_quarantine_is_over_at_its_moment_and_work_goes_out_at_once():
    shop = Shop(policy=Policy(quarantine_after=1))
    timers = Timers(shop.writer, shop.reader, shop.clock)
    shop.writer.listen(timers.committed)
    async with shop.open(timers.run()):
        session = await shop.arrive("a")
        await shop.submit("t")
        lease = await lease_of(session)
        back = HandBack("a", (lease,), {lease.lease_id: "no disk"})
        await shop.writer.submit(back)
        began = shop.clock.now()
        assert await session.mailbox.take() == [HandBackAll()]
        await lease_of(session)
        assert 10_000 <= shop.clock.now() - began < 11_000
