import asyncio
from functools import partialmethod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server import metrics
from server.domain.attempt import AttemptStatus
from server.domain.claiming import Claimed
from server.domain.errors import SessionSuperseded, StoreUnavailable
from server.domain.holding import Held
from server.domain.labels import Selector
from server.domain.registering import Profile, Register, UpdateLabels
from server.domain.submitting import NewTask
from server.domain.submitting_many import CreateTasks
from server.domain.task import TaskStatus
from server.engine import dispatcher, roster
from server.engine.dispatcher import CLASSES_AT_ONCE, FEW_AGENTS
from server.engine.mailbox import Mailbox, Work
from tests.fakes.core import NAMESPACE, SPEC, needs
from tests.fakes.shop import COMMIT_SECONDS, Shop
from tests.fakes.virtual_time import VirtualTimeLoop, in_virtual_time, settle
from tests.records import event

MINUTE = 60


async def pushed(session):
    """Return the next assignments on a session's stream."""
    return [a for frame in await session.mailbox.take() for a in frame.assignments]


# ---- handing out


@in_virtual_time
async def test_a_task_is_submitted_and_handed_out_in_one_transaction():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a")
        before = shop.database.commits
        await shop.submit("t")
        assert [given.task_id for given in await pushed(session)] == ["t"]
        assert shop.database.commits == before + 1


def sample(name):
    return metrics.REGISTRY.get_sample_value(name) or 0


@in_virtual_time
async def test_claims_and_what_tasks_waited_for_them_are_measured():
    names = [
        f"muster_{of}_seconds_{part}"
        for of in ("dispatch_claim", "queue_wait")
        for part in ("count", "sum")
    ]
    before = [sample(name) for name in names]
    shop = Shop()
    async with shop.open():
        await shop.submit("t")
        await shop.submit("u")
        await asyncio.sleep(MINUTE)
        session = await shop.arrive("a", slots=2)
        assert len(await pushed(session)) == 2
    claims, claiming, tasks, waited = (
        sample(name) - old for name, old in zip(names, before, strict=True)
    )
    assert (claims, tasks) == (1, 2)
    assert claiming == pytest.approx(COMMIT_SECONDS)
    assert 2 * MINUTE <= waited <= 2 * MINUTE + 1


@in_virtual_time
async def test_work_waits_until_an_agent_appears():
    shop = Shop()
    async with shop.open():
        await shop.submit("t")
        session = await shop.arrive("a")
        assert [given.task_id for given in await pushed(session)] == ["t"]


@in_virtual_time
async def test_work_waits_until_an_agent_that_fits_appears():
    shop = Shop()
    async with shop.open():
        await shop.arrive("plain")
        await shop.submit("t", selector=needs(gpu="yes"))
        assert shop.task("t").ready
        fitting = await shop.arrive("fits", labels={"gpu": "yes"})
        assert [given.task_id for given in await pushed(fitting)] == ["t"]


@in_virtual_time
async def test_new_labels_count_at_once_for_work_that_waits():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a")
        await shop.submit("t", selector=needs(gpu="yes"))
        await shop.attendance.update_labels(
            UpdateLabels(NAMESPACE, "a", {"gpu": "yes"}, merge=True)
        )
        assert [given.task_id for given in await pushed(session)] == ["t"]


@in_virtual_time
async def test_work_waits_until_a_slot_is_free():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a")
        await shop.submit("one")
        await shop.submit("two")
        (first,) = await pushed(session)
        await settle()
        assert shop.task("two").ready
        await shop.tell("a", first)
        assert [given.task_id for given in await pushed(session)] == ["two"]


@in_virtual_time
async def test_a_dependent_goes_out_as_soon_as_it_is_ready():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a")
        await shop.submit("one")
        await shop.submit("two", depends_on=("one",))
        (first,) = await pushed(session)
        await shop.tell("a", first)
        assert [given.task_id for given in await pushed(session)] == ["two"]


@in_virtual_time
async def test_after_a_start_work_of_before_goes_out():
    earlier = Shop()
    async with earlier.open():
        await earlier.submit("t", selector=needs(gpu="yes"))
    shop = Shop()
    shop.database.tables = earlier.database.tables
    await shop.dispatcher.start(shop.reader)
    async with shop.open():
        session = await shop.arrive("a", labels={"gpu": "yes"})
        assert [given.task_id for given in await pushed(session)] == ["t"]


@in_virtual_time
async def test_a_class_that_another_server_made_ready_is_learnt_and_handed_out():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a")
        shop.create("t")  # behind the engine's back
        class_key = shop.task("t").class_key
        shop.dispatcher.told(event(data={"class": class_key}))
        assert [given.task_id for given in await pushed(session)] == ["t"]


@in_virtual_time
async def test_classes_without_ready_work_are_forgotten_and_learnt_again(monkeypatch):
    monkeypatch.setattr(dispatcher, "KNOWN_CLASSES", 4)
    monkeypatch.setattr(roster, "KNOWN_CLASSES", 4)
    shop = Shop()
    async with shop.open():
        labels = {f"key-{number}": "1" for number in range(20)}
        session = await shop.arrive("a", slots=50, labels=labels)
        for turn in range(2):
            for number in range(20):
                task_id = f"{turn}-{number}"
                await shop.submit(task_id, selector=needs(**{f"key-{number}": "1"}))
                assert [given.task_id for given in await pushed(session)] == [task_id]
        await settle()
        assert len(shop.dispatcher._selectors) <= 4 + len(shop.dispatcher._ready)
        (hungry,) = shop.sessions.roster._hungry
        assert len(hungry._fits) <= 4


@in_virtual_time
async def test_word_of_new_work_during_a_claim_that_found_none_is_not_missed():
    """The claim had looked before the other server committed; its answer comes after the word."""
    shop = Shop()
    async with shop.open():
        await shop.arrive("a")
        await shop.submit("t")
        class_key = shop.task("t").class_key
    idle = await settled_session(shop)
    claim = shop.dispatcher.offer([])
    shop.dispatcher.told(event(data={"class": class_key}))
    shop.dispatcher.claimed(claim, Claimed(exhausted={shop.task("t").queue}))
    again = shop.dispatcher.offer([])
    assert again is not None, "the work of the other server is forgotten"
    assert idle.session_id in {offer.session_id for offer in again.offers}


async def settled_session(shop):
    """Return a session with a free slot while the writer rests."""
    (session,) = shop.sessions
    session.leases.clear()
    session.mailbox = Mailbox(pushes=True)
    shop.dispatcher.told(event(data={"class": shop.task("t").class_key}))
    return session


@in_virtual_time
async def test_nobody_is_looked_at_for_a_class_without_ready_work():
    shop = Shop()
    async with shop.open():
        await shop.arrive("a")
        assert shop.dispatcher.offer([]) is None


@in_virtual_time
async def test_work_goes_out_again_after_a_claim_that_failed():
    shop = Shop()
    async with shop.open():
        await shop.submit("t")
        session = await shop.arrive("a", pushes=False)
        shop.database.failures = [StoreUnavailable("locked")]
        fetch = shop.fetching(session, MINUTE)
        async with asyncio.timeout(MINUTE / 2):
            tasks, _ = await fetch
        assert [given.task_id for given in tasks] == ["t"]


@in_virtual_time
async def test_a_lost_or_leaving_agent_gets_nothing():
    shop = Shop()
    async with shop.open():
        lost = await shop.arrive("lost")
        leaving = await shop.arrive("leaving")
        lost.lost = leaving.draining = True
        await shop.submit("t")
        assert shop.task("t").ready


# ---- many agents, many namespaces


@in_virtual_time
async def test_a_claim_looks_at_few_agents_while_there_is_little_work():
    shop = Shop()
    async with shop.open():
        for number in range(50):
            await shop.arrive(f"a{number}", labels={"hostname": f"h{number}"})
        assert len(shop.sessions.roster) == 1, "no selector looks at hostname"
        await shop.submit("t")
        shop.dispatcher._add(shop.task("t").queue)
        assert len(shop.dispatcher.offer([]).offers) == FEW_AGENTS


@in_virtual_time
async def test_work_for_many_agents_goes_out_in_a_few_claims():
    shop = Shop()
    async with shop.open():
        sessions = [await shop.arrive(f"a{number}") for number in range(50)]
        before = shop.database.commits
        new = tuple(NewTask(f"t{n}", SPEC) for n in range(50))
        await shop.writer.submit(CreateTasks(NAMESPACE, tuple(t.name for t in new), new, ""))
        await settle()
        assert all(session.free == 0 for session in sessions)
        assert shop.database.commits == before + 1


@in_virtual_time
async def test_a_crowd_of_tasks_delays_another_namespace_by_no_more_than_its_share():
    shop = Shop()
    async with shop.open():
        crowd = tuple(NewTask(f"c{n}", SPEC) for n in range(200))
        await shop.writer.submit(CreateTasks("crowd", tuple(t.name for t in crowd), crowd, ""))
        few = tuple(NewTask(f"f{n}", SPEC) for n in range(10))
        await shop.writer.submit(CreateTasks("few", tuple(t.name for t in few), few, ""))
        session = await shop.arrive("a", slots=2)
        order = []
        while len(order) < 210:
            for given in await pushed(session):
                order.append(given.task_id)
                await shop.tell("a", given)
        last_of_few = max(place for place, name in enumerate(order) if name.startswith("f"))
        assert last_of_few <= 2 * 10 + 2
        assert len(set(order)) == 210


@in_virtual_time
async def test_an_agent_that_works_ahead_gets_more_than_its_slots():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", slots=1)
        session.ahead = 2
        for name in "wxyz":
            await shop.submit(name)
        await settle()
        assert [shop.task(name).leased for name in "wxyz"] == [True, True, True, False]


@in_virtual_time
async def test_more_classes_than_a_claim_looks_at_are_all_served():
    shop = Shop(batch_limit=1000)
    async with shop.open():
        names = [f"t{number}" for number in range(3 * CLASSES_AT_ONCE)]
        for name in names:
            await shop.submit(name, selector=needs(**{name: "yes"}))
        labels = dict.fromkeys(names, "yes")
        await shop.arrive("a", slots=len(names), labels=labels)
        await settle()
        await asyncio.sleep(1)
        assert not [name for name in names if shop.task(name).ready]


# ---- FetchTask


@in_virtual_time
async def test_a_fetch_without_patience_is_answered_after_one_look():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", pushes=False)
        assert await shop.fetching(session, MINUTE, once=True) == ([], 0)
        await shop.submit("t")
        tasks, frame = await shop.fetching(session, MINUTE, once=True)
        assert [given.task_id for given in tasks] == ["t"]
        assert frame == shop.task("t").lease_frame == 1


@in_virtual_time
async def test_a_fetch_with_patience_waits_for_work():
    shop = Shop()
    async with shop.open() as tasks:
        session = await shop.arrive("a", pushes=False)
        fetch = tasks.create_task(shop.fetching(session, MINUTE))
        await asyncio.sleep(MINUTE / 2)
        await shop.submit("t")
        found, _ = await fetch
        assert [given.task_id for given in found] == ["t"]


@in_virtual_time
async def test_a_fetch_ends_empty_when_its_time_is_up():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", pushes=False)
        begun = shop.clock.monotonic()
        assert (await shop.fetching(session, MINUTE))[0] == []
        assert shop.clock.monotonic() == pytest.approx(begun + MINUTE)
        assert session.parked is None


@in_virtual_time
async def test_a_fetch_gets_no_more_than_it_wants_and_has_slots_for():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", slots=3, pushes=False)
        for name in "uvwxyz":
            await shop.submit(name)
        counts = [
            len((await shop.fetching(session, MINUTE, want=want, once=True))[0])
            for want in (2, 5, 1)
        ]
        assert counts == [2, 1, 0]


@in_virtual_time
async def test_an_older_fetch_of_the_session_ends_empty():
    shop = Shop()
    async with shop.open() as tasks:
        session = await shop.arrive("a", pushes=False)
        older = tasks.create_task(shop.fetching(session, MINUTE, request_id="one"))
        await settle()
        newer = tasks.create_task(shop.fetching(session, MINUTE, request_id="two"))
        assert (await older)[0] == []
        await shop.submit("t")
        assert [given.task_id for given in (await newer)[0]] == ["t"]
        assert shop.task("t").lease_request == "two"


@in_virtual_time
async def test_what_an_abandoned_fetch_was_given_is_handed_back():
    shop = Shop()
    async with shop.open() as tasks:
        session = await shop.arrive("a", pushes=False)
        await shop.submit("t")
        fetch = tasks.create_task(shop.fetching(session, MINUTE))
        await asyncio.sleep(COMMIT_SECONDS / 2)  # the claim is being written
        fetch.cancel()
        await asyncio.sleep(1)
        assert shop.attempt("t").status is AttemptStatus.RELEASED
        assert shop.task("t").ready
        found, _ = await shop.fetching(session, MINUTE)
        assert found[0].attempt == 2


@in_virtual_time
async def test_what_comes_too_late_for_a_fetch_is_handed_back():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", pushes=False)
        await shop.submit("t")
        assert (await shop.fetching(session, COMMIT_SECONDS / 2))[0] == []
        await asyncio.sleep(1)
        assert shop.task("t").ready


@in_virtual_time
async def test_work_for_an_older_fetch_is_not_pushed_to_a_stream_that_did_not_ask():
    """A v1 agent's stream gets work only in answer to its own task_fetch."""
    shop = Shop()
    async with shop.open() as tasks:
        session = await shop.arrive("old", v1=True, pushes=False)
        shop.attendance.use_v1_stream(session, Mailbox(pushes=False))
        await shop.submit("t")
        older = tasks.create_task(shop.fetching(session, MINUTE, request_id="one"))
        await asyncio.sleep(COMMIT_SECONDS / 2)
        newer = tasks.create_task(shop.fetching(session, 5, request_id="two"))
        assert (await older)[0] == []
        await newer
        await asyncio.sleep(1)
        assert not session.mailbox._frames


@in_virtual_time
async def test_what_a_closed_stream_was_to_carry_is_handed_back():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a")
        submitting = asyncio.ensure_future(shop.submit("t"))
        await asyncio.sleep(COMMIT_SECONDS / 2)
        session.mailbox.close()
        await submitting
        await asyncio.sleep(1)
        assert shop.task("t").ready
        assert shop.task("t").attempt == 1, "it was handed to a closed stream again"


@in_virtual_time
async def test_what_a_superseded_session_was_to_get_goes_to_the_new_one():
    shop = Shop()
    async with shop.open():
        await shop.arrive("a")
        submitting = asyncio.ensure_future(shop.submit("t"))
        await asyncio.sleep(COMMIT_SECONDS / 2)
        command = Register(NAMESPACE, "a", "newer", Profile(), Held())
        session, _ = await shop.attendance.register(command)
        await submitting
        await shop.attendance.open_stream("a", "newer", Held(), Mailbox(pushes=True))
        assert [given.task_id for given in await pushed(session)] == ["t"]


@in_virtual_time
async def test_a_session_another_server_has_taken_over_is_closed_here():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a")
        shop.join("a")  # behind the engine's back
        await shop.submit("t")
        assert session.mailbox.closed
        assert isinstance(session.mailbox.error, SessionSuperseded)
        assert shop.sessions.get(session.session_id) is None


# ---- frames


@in_virtual_time
async def test_frames_are_numbered_and_the_lease_knows_its_frame():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", slots=9)
        for name in "xyz":
            await shop.submit(name)
        frames = await session.mailbox.take()
        assert all(isinstance(frame, Work) for frame in frames)
        for frame in frames:
            assert {shop.task(a.task_id).lease_frame for a in frame.assignments} == {frame.frame}
        numbers = [frame.frame for frame in frames]
        assert numbers == sorted(set(numbers))


# ---- nothing is missed, nobody is overloaded


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "arrive", "fetch", "once", "report", "leave", "drop"]),
        st.integers(0, 5),
        st.sampled_from([0.0, COMMIT_SECONDS / 2, COMMIT_SECONDS, 0.1]),
    ),
    max_size=25,
)


class Race:
    """Submits, fetches, reports and connection losses at arbitrary moments."""

    def __init__(self):
        self.shop = Shop()
        self.waiting = []
        self.sessions = []

    async def run(self, steps):
        async with self.shop.open() as self.tasks:
            for action, number, pause in steps:
                await getattr(self, action)(number)
                if pause:
                    await asyncio.sleep(pause)
            await asyncio.sleep(2 * MINUTE)  # every fetch has come back
            await self.check()

    async def submit(self, number):
        name = f"t{len(self.shop.tables.tasks)}-{number}-{len(self.waiting)}"
        selector = needs(gpu="yes") if number == 0 else needs()
        self.waiting.append(asyncio.ensure_future(self.shop.submit(name, selector=selector)))

    async def arrive(self, number):
        if len(self.sessions) < 4:
            labels = {"gpu": "yes"} if number % 2 else {}
            name = f"a{len(self.sessions)}"
            pushes = number > 2
            arriving = self.shop.arrive(name, slots=1 + number % 3, labels=labels, pushes=pushes)
            self.sessions.append(await arriving)

    async def fetch(self, number, *, once=False):
        able = [s for s in self.sessions if s.mailbox is None]
        if able:
            session = able[number % len(able)]
            request = f"r{len(self.waiting)}"
            fetching = self.shop.fetching(session, 1, want=2, request_id=request, once=once)
            self.waiting.append(asyncio.ensure_future(fetching))

    once = partialmethod(fetch, once=True)

    async def report(self, number):
        held = [t for t in self.shop.tables.tasks.values() if t.leased]
        if held:
            task = held[number % len(held)]
            await self.shop.tell(task.last_agent_id, _Given(task.public_id, task.lease_id))

    async def leave(self, number):
        if self.waiting:
            self.waiting[-1 - number % len(self.waiting)].cancel()

    async def drop(self, number):
        if self.sessions:
            session = self.sessions[number % len(self.sessions)]
            if session.mailbox is not None:
                session.mailbox.close()
                self.shop.attendance.close_stream(session, session.mailbox)

    async def check(self):
        """Whoever can take work has it: what is still ready fits nobody who has room and asks."""
        for session in self.sessions:
            agent = self.shop.agent(session.agent_id)
            held = [t for t in self.shop.tables.tasks.values() if t.lease_agent == agent.key]
            assert len(held) <= agent.slots
            assert set(session.leases) == {t.lease_id for t in held}
            assert session.reserved == 0
        for session in self.sessions:
            ready = [t.public_id for t in self.shop.tables.tasks.values() if self.fits(session, t)]
            if session.wants > 0:
                assert not ready, "somebody waits beside work"
            elif session.mailbox is None and session.free > 0:
                room = session.free
                found, _ = await self.shop.fetching(session, 1, want=9, once=True)
                assert len(found) == min(len(ready), room)

    def fits(self, session, task):
        selector = Selector.from_canonical(self.shop.tables.classes[task.class_key])
        return task.ready and selector.matches(session.labels)


class _Given:
    def __init__(self, task_id, lease_id):
        self.task_id, self.lease_id = task_id, lease_id


@settings(max_examples=150)
@given(STEPS)
def test_whatever_races_no_wake_up_is_missed_and_no_agent_overloaded(steps):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(Race().run(steps))


@in_virtual_time
async def test_an_end_reported_is_free_room_at_once():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a")
        await shop.submit("t")
        (given,) = await pushed(session)
        assert session.free == 0
        await shop.tell("a", given, TaskStatus.RUNNING)
        assert session.free == 0
        await shop.tell("a", given)
        await asyncio.sleep(1)
        assert session.free == 1
