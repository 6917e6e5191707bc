from dataclasses import replace

import pytest

from server.domain.attempt import AttemptStatus
from server.domain.claiming import Claim, HandBack, Refetch
from server.domain.errors import SessionSuperseded
from server.domain.lease import LeaseRef
from server.domain.registering import Unregister
from server.domain.submitting import CreateTask, NewTask
from server.domain.task import Queue, TaskStatus
from tests.fakes.core import SPEC, needs
from tests.fakes.memory_source import MemorySource


def given_to(claimed, core, agent_id="a"):
    session = core.agent(agent_id).session_id
    return [given.task_id for given in claimed.assignments.get(session, [])]


def test_a_claim_leases_the_task_and_writes_the_attempt(core):
    task_id = core.create()
    (given,) = core.claim(frame=7, request_id="r")
    task, attempt, agent = core.task(task_id), core.attempt(task_id), core.agent("a")
    assert (task.status, task.attempt, task.lease_epoch) == (TaskStatus.QUEUED, 1, 1)
    assert (task.lease_agent, task.lease_session) == (agent.key, agent.session_id)
    assert (task.lease_frame, task.lease_request) == (7, "r")
    assert (given.lease_id, given.attempt) == (task.lease_id, 1)
    assert (attempt.status, attempt.epoch, attempt.agent_id) == (AttemptStatus.CLAIMED, 1, "a")
    assert (attempt.session, attempt.claimed_at) == (agent.session_id, core.clock.now())


def test_a_claim_that_waited_for_rows_is_not_dated_before_what_it_waited_for(core, monkeypatch):
    """Its transaction may have begun before the end that gave its task a place."""
    task_id = core.create()
    moments = iter([core.clock.now() + 1, core.clock.now() + 7])
    monkeypatch.setattr(MemorySource, "now", lambda _: next(moments))
    core.claim()
    assert core.attempt(task_id).claimed_at == core.clock.now() + 7


def test_the_epoch_grows_with_every_claim_and_is_never_reset(core):
    core.create()
    epochs = []
    for _ in range(3):
        (given,) = core.claim()
        epochs.append(given.lease_id.rpartition(".")[2])
        core.hold(complete=True)
    assert epochs == ["1", "2", "3"]


def test_a_claim_tells_how_long_its_tasks_were_ready(core):
    core.join("a", slots=9)

    def waits():
        return core.do(core.claim_of(core.offer(slots=9))).waits

    first, lease = core.running()
    core.clock.advance(1000)
    core.create(depends_on=(first,))
    core.create()
    core.clock.advance(2000)
    core.create()
    core.report(lease, TaskStatus.SUCCESS)
    core.clock.advance(500)
    assert waits() == [500, 2500, 500]  # what waited for another was not ready before it ended
    core.clock.advance(4000)
    core.hold(seen_through=9, complete=True)
    core.clock.advance(100)
    assert waits() == [100, 100, 100]


def test_first_come_first_served(core):
    core.join("a", slots=9)
    ids = []
    for _ in range(3):
        ids.append(core.create())
        core.clock.advance(1)
    assert [given.task_id for given in core.claim(slots=2)] == ids[:2]


def test_the_more_urgent_goes_first_and_the_longest_waiting_of_equals(core):
    core.join("a", slots=9)
    ids = []
    for priority in (5, 5, 9, 0, 9):
        ids.append(core.create(priority=priority))
        core.clock.advance(1)
    given = [each.task_id for each in core.claim(slots=9)]
    assert given == [ids[n] for n in (2, 4, 0, 1, 3)]


def test_nothing_is_overtaken_for_ever(core):
    patient = core.create(priority=0)
    core.clock.advance(9 * 600_000 - 1)
    urgent = core.create(priority=9)
    core.clock.advance(1)
    late = core.create(priority=9)
    core.join("a", slots=9)
    assert [given.task_id for given in core.claim(slots=9)] == [urgent, patient, late]


def test_nobody_gets_more_than_its_slots_whatever_memory_offers(core):
    core.join("a", slots=2)
    for _ in range(5):
        core.create()
    assert len(core.claim(slots=99)) == 2
    assert core.claim(slots=99) == []


def test_an_offer_of_a_session_that_is_not_current_is_refused(core):
    core.create()
    stale = core.offer()
    core.join("a")
    claimed = core.do(core.claim_of(stale))
    assert (claimed.assignments, claimed.refused) == ({}, {stale.session_id})


@pytest.mark.parametrize("gone", ["lost", "closed", "unknown"])
def test_an_offer_of_an_agent_that_is_gone_is_refused(core, gone):
    core.create()
    offer = core.offer()
    if gone == "lost":
        core.lose()
    elif gone == "closed":
        core.do(Unregister("a", offer.session_id, ""))
    else:
        offer = replace(offer, agent_key=999)
    claimed = core.do(core.claim_of(offer))
    assert (claimed.assignments, claimed.refused | claimed.lost) == ({}, {offer.session_id})


def test_a_class_is_exhausted_when_nothing_ready_is_left_of_it(core):
    core.join("a", slots=9)
    core.create()
    core.create()
    assert core.do(core.claim_of(core.offer(slots=1))).exhausted == set()
    assert core.do(core.claim_of(core.offer(slots=2))).exhausted == {
        task.queue for task in core.tables.tasks.values()
    }


def test_a_class_of_which_nobody_may_take_the_last_task_is_not_exhausted(core):
    core.join("old", v1=True)
    core.running("old")
    core.lose("old")
    core.join("old", v1=True)
    claimed = core.do(core.claim_of(core.offer("old", slots=1)))
    assert (claimed.assignments, claimed.exhausted) == ({}, set())


def test_one_claim_serves_many_agents(core):
    for agent_id in "bcd":
        core.join(agent_id)
    ids = {core.create() for _ in range(6)}
    claimed = core.do(core.claim_of(*(core.offer(agent_id) for agent_id in "abcd")))
    given = [task_id for agent_id in "abcd" for task_id in given_to(claimed, core, agent_id)]
    assert len(given) == 4
    assert set(given) < ids


def test_a_v1_agents_attempt_bears_no_session(core):
    core.join("old", v1=True)
    task_id, _ = core.leased("old")
    assert core.attempt(task_id).session == ""


def test_the_same_request_finds_what_it_was_given_as_far_as_it_is_held(core):
    core.join("a", slots=3)
    ids = [core.create() for _ in range(3)]
    first, second = core.claim(slots=2, request_id="r")
    core.claim(slots=1, request_id="other")
    session = core.agent("a").session_id
    assert core.do(Refetch("a", session, "r")) == [first, second]
    core.report(LeaseRef(ids[0], first.lease_id), TaskStatus.SUCCESS)
    assert core.do(Refetch("a", session, "r")) == [second]
    assert core.do(Refetch("a", "", "r")) == [second]


def test_a_request_is_the_sessions_own(core):
    with pytest.raises(SessionSuperseded):
        core.do(Refetch("a", "older", "r"))


def test_what_could_not_be_delivered_is_handed_back_free_of_charge(core):
    task_id, lease = core.leased()
    core.do(HandBack("a", (lease, LeaseRef("gone", "gone.1"))))
    task = core.task(task_id)
    assert task.ready
    assert (task.infra_retries, task.failed_attempts) == (0, 0)
    assert core.attempt(task_id).status is AttemptStatus.RELEASED
    assert core.effects.ready_queues == {task.queue}


def test_only_a_current_lease_that_has_not_started_is_handed_back(core):
    core.join("b")
    started, lease = core.running()
    core.do(HandBack("a", (lease,)))
    core.do(HandBack("b", (lease,)))
    assert core.status(started) is TaskStatus.RUNNING
    claimed, stale = core.leased("b")
    core.do(HandBack("b", (stale,)))
    core.claim("b")
    core.do(HandBack("b", (stale,)))
    assert core.task(claimed).leased


def test_a_cancel_before_the_hand_back_ends_the_task(core):
    task_id, lease = core.leased()
    core.cancel(task_id)
    core.do(HandBack("a", (lease,)))
    assert core.status(task_id) is TaskStatus.CANCELLED


# ---- fair share between namespaces


def submit(core, namespace, *names):
    for name in names:
        core.do(CreateTask(namespace, name, NewTask(name, SPEC), "tester"))


def turn_of(core, slots, *turn):
    """Claim with the namespaces in turn; return what was handed out, and who was served."""
    class_key = next(iter(core.tables.classes))
    queues = tuple(Queue(class_key, namespace) for namespace in turn)
    offer = core.offer(slots=slots)
    claimed = core.do(Claim((offer,), queues))
    return [a.task_id for a in claimed.assignments.get(offer.session_id, [])], claimed


def test_namespaces_take_turns(core):
    core.join("a", slots=9)
    submit(core, "big", *(f"b{n}" for n in range(9)))
    submit(core, "small", "s0", "s1")
    given, claimed = turn_of(core, 4, "small", "big")
    assert given == ["s0", "b0", "s1", "b1"]
    assert claimed.served == ["small", "big"]
    assert claimed.exhausted == set()


def test_of_one_slot_whose_turn_it_is_gets_it(core):
    core.join("a", slots=9)
    submit(core, "big", *(f"b{n}" for n in range(9)))
    submit(core, "small", "s0")
    given, claimed = turn_of(core, 1, "small", "big")
    assert (given, claimed.served) == (["s0"], ["small"])
    given, claimed = turn_of(core, 1, "big", "small")
    assert (given, claimed.served) == (["b0"], ["big"])
    assert claimed.exhausted == {Queue(core.task("s0").class_key, "small")}


def test_within_a_namespace_the_oldest_goes_first_whatever_its_class(core):
    core.join("a", slots=9, labels={"gpu": "yes"})
    first = core.create(selector=needs(gpu="yes"))
    core.clock.advance(5)
    second = core.create()
    core.clock.advance(5)
    third = core.create(selector=needs(gpu="yes"))
    assert [a.task_id for a in core.claim(slots=9)] == [first, second, third]


# ---- working ahead


def test_an_agent_may_take_more_than_its_slots_as_far_as_it_offers_to(core):
    core.join("a", slots=1)
    for _ in range(5):
        core.create()
    offer = replace(core.offer(slots=3), ahead=2)
    assert len(core.do(core.claim_of(offer)).assignments[offer.session_id]) == 3
    again = replace(core.offer(slots=9), ahead=2)
    assert core.do(core.claim_of(again)).assignments == {}


def test_a_free_slot_goes_before_any_that_is_taken_ahead(core):
    core.join("busy", slots=4)
    core.join("free", slots=1)
    core.create()
    ahead = replace(core.offer("busy", slots=8), ahead=8)
    free = core.offer("free", slots=1)
    assert list(core.do(core.claim_of(ahead, free)).assignments) == [free.session_id]
