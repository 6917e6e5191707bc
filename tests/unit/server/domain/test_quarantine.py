import pytest

from server.domain.attempt import AttemptStatus
from server.domain.claiming import HandBack
from server.domain.controlling import Action
from server.domain.event import EventKind
from server.domain.lease import VerdictAction
from server.domain.moment import SECOND
from server.domain.policy import Policy
from server.domain.quarantine import quarantine_length
from server.domain.registering import Unregister
from server.domain.task import TaskStatus
from server.domain.waiting import Fit, WaitingFor

SUCCESS, FAILED, RUNNING = TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.RUNNING
FIRST = 10 * SECOND


@pytest.fixture
def core(core):
    core.join("a", slots=8)
    core.policy = Policy(infra_retry_limit=1000)
    return core


def fail(core, times=1, **how):
    """Let attempts fail by their agent's fault, one after the other."""
    for _ in range(times):
        core.pass_time(1)
        (lease,) = core.claim()
        core.report(lease, FAILED, error="no process can be started", infrastructure=True, **how)


def told(core):
    return [e.data["quarantined_until"] for e in core.events(EventKind.AGENT_STATE)]


def test_the_third_failure_in_a_row_keeps_work_away_for_ten_seconds(core):
    core.create()
    fail(core, 2)
    assert core.agent("a").open
    fail(core)
    agent, now = core.agent("a"), core.clock.now()
    assert (agent.faults, agent.fault) == (3, "no process can be started")
    assert agent.quarantined_until == agent.due_at == now + FIRST
    assert core.claim() == []
    core.pass_time(FIRST - 1)
    assert core.claim() == []
    core.pass_time(1)
    assert core.agent("a").due_at is None
    assert len(core.claim()) == 1
    assert told(core) == [now + FIRST, None]
    assert [e.data["open"] for e in core.events(EventKind.AGENT_STATE)] == [False, True]


def test_each_further_failure_doubles_it_up_to_an_hour(core):
    core.create()
    fail(core, 2)
    lengths = []
    for _ in range(12):
        fail(core)
        lengths.append(core.agent("a").quarantined_until - core.clock.now())
        core.pass_time(lengths[-1])
    assert [length // SECOND for length in lengths] == [
        *(10, 20, 40, 80, 160, 320, 640, 1280, 2560),
        *(3600, 3600, 3600),
    ]
    assert quarantine_length(10**6, core.policy) == 3600 * SECOND


def test_a_success_begins_the_count_anew(core):
    core.create()
    fail(core, 2)
    (lease,) = core.claim()
    core.report(lease, SUCCESS)
    assert (core.agent("a").faults, core.agent("a").fault) == (0, "")
    core.create()
    fail(core, 2)
    assert core.agent("a").open


def test_a_success_of_what_still_ran_ends_the_quarantine(core):
    _, lease = core.running()
    core.create()
    fail(core, 3)
    core.report(lease, SUCCESS)
    assert core.agent("a").open
    assert told(core)[-1] is None


def test_a_tasks_own_failures_are_nobody_elses(core):
    for status in (FAILED, TaskStatus.TIMEOUT, TaskStatus.CANCELLED) * 2:
        _, lease = core.running()
        core.report(lease, status)
    assert core.agent("a").faults == 0


def test_what_fails_together_counts_once(core):
    """An agent that vanishes takes all its tasks with it, by one fault."""
    for _ in range(4):
        core.running()
    core.lose()
    assert (core.agent("a").faults, core.agent("a").open) == (1, True)


def test_what_was_handed_out_before_tells_nothing_new(core):
    leases = [core.running()[1] for _ in range(6)]
    for lease in leases:
        core.pass_time(1)
        core.report(lease, FAILED, infrastructure=True)
    assert core.agent("a").faults == 3
    assert core.agent("a").quarantined_until <= core.clock.now() + FIRST


def test_a_loss_that_is_undone_counts_for_nothing(core):
    core.create()
    fail(core, 2)
    (lease,) = core.claim()
    core.report(lease, RUNNING)
    core.pass_time(5)
    core.lose()
    assert not core.agent("a").open
    assert core.hold(lease) == [VerdictAction.CONTINUE]
    assert (core.agent("a").faults, core.agent("a").open) == (2, True)


def test_who_leaves_in_order_is_not_blamed(core):
    core.running()
    core.do(Unregister("a", core.agent("a").session_id, "update"))
    assert core.agent("a").faults == 0


def test_a_task_that_is_not_started_in_time_is_its_agents_fault(core):
    core.leased()
    core.pass_time(core.policy.claim_to_start)
    assert "did not start it in time" in core.agent("a").fault


def test_hand_backs_of_a_host_that_cannot_start_count_and_others_do_not(core):
    core.create()
    for _ in range(3):
        core.pass_time(1)
        (lease,) = core.claim()
        core.do(HandBack("a", (lease,)))
    assert core.agent("a").faults == 0
    for _ in range(3):
        core.pass_time(1)
        (lease,) = core.claim()
        core.do(HandBack("a", (lease,), {lease.lease_id: "too little disk is left"}))
    agent = core.agent("a")
    assert (agent.faults, agent.fault, agent.open) == (3, "too little disk is left", False)
    attempt = core.attempt(lease.task_id)
    assert (attempt.status, attempt.cause) == (AttemptStatus.RELEASED, "too little disk is left")


def test_a_heartbeat_that_is_faster_than_the_hand_back_hides_no_fault(core):
    core.join("b")
    core.create()
    for faults in (1, 2, 3):
        core.pass_time(1)
        (lease,) = core.claim()
        core.hold(complete=True)
        assert core.task(lease.task_id).ready
        (elsewhere,) = core.claim("b")
        back = HandBack("a", (lease,), {lease.lease_id: "no disk"})
        core.do(back)
        core.do(back)
        assert core.agent("a").faults == faults
        assert core.attempt(lease.task_id, lease.attempt).cause == "no disk"
        core.do(HandBack("b", (elsewhere,)))
    assert not core.agent("a").open
    assert core.agent("b").faults == 0


def test_it_outlives_a_restart_and_ends_by_a_word_of_the_operator(core):
    core.create()
    fail(core, 3)
    core.join("a")
    assert core.claim() == []
    agent, _ = core.control("a", Action.RESUME)
    assert (agent.open, agent.faults, agent.due_at) == (True, 0, None)
    assert len(core.claim()) == 1


def test_a_pause_goes_on_when_the_quarantine_is_over(core):
    core.create()
    fail(core, 3)
    core.control("a", Action.PAUSE)
    core.pass_time(FIRST)
    assert core.agent("a").quarantined_until is None
    assert core.claim() == []


def test_it_is_explained(core):
    task_id = core.create()
    fail(core, 3)
    core.pass_time(2_500)
    found = core.explain(task_id)
    assert found.waiting_for is WaitingFor.OPEN_AGENT
    (agent,) = found.agents
    assert agent.fit is Fit.QUARANTINED
    assert agent.reason == "is quarantined for 8 s: no process can be started"
