import pytest

from server.domain.agent import Scheduling, SchedulingState, scheduling_state
from server.domain.attempt import AttemptStatus
from server.domain.controlling import DEADLINE_LIMIT, Action, SetAgentState
from server.domain.errors import Invalid, NotFound
from server.domain.event import EventKind
from server.domain.lease import VerdictAction
from server.domain.task import TaskStatus
from tests.fakes.core import NAMESPACE, v1

PAUSE, RESUME, DRAIN = Action
CANCELLED, FAILED, RUNNING = TaskStatus.CANCELLED, TaskStatus.FAILED, TaskStatus.RUNNING


def state(core, agent_id="a"):
    agent = core.agent(agent_id)
    held = sum(task.lease_agent == agent.key for task in core.tables.tasks.values())
    return scheduling_state(agent, held)


def told(core):
    return [SchedulingState(e.data["state"]).name for e in core.events(EventKind.AGENT_STATE)]


@pytest.mark.parametrize("action", [PAUSE, DRAIN])
def test_nothing_new_is_given_until_it_is_resumed(core, action):
    core.join("a", slots=2)
    core.create()
    agent, held = core.control("a", action, note="disk swap")
    assert (agent.note, agent.scheduling_since, held) == ("disk swap", core.clock.now(), 0)
    assert core.claim(slots=2) == []
    agent, _ = core.control("a", RESUME)
    assert (agent.note, agent.scheduling_since, agent.drain_until) == ("", None, None)
    assert len(core.claim(slots=2)) == 1


def test_what_a_paused_agent_runs_goes_on(core):
    core.join("a")
    task_id, lease = core.running()
    _, held = core.control("a", PAUSE)
    assert held == 1
    core.pass_time(20_000)
    assert core.hold(lease) == [VerdictAction.CONTINUE]
    assert core.report(lease, TaskStatus.SUCCESS) is VerdictAction.CONTINUE
    assert core.status(task_id) is TaskStatus.SUCCESS
    assert told(core) == ["PAUSED"]


@pytest.mark.parametrize("action", [PAUSE, DRAIN])
def test_a_pause_outlives_the_agents_restart_and_its_loss(core, action):
    core.join("a")
    core.control("a", action, note="why")
    core.lose("a")
    core.join("a")
    agent = core.agent("a")
    assert not agent.open
    assert agent.note == "why"
    core.create()
    assert core.claim() == []


@pytest.mark.parametrize(("first", "second"), [(PAUSE, DRAIN), (DRAIN, PAUSE)])
def test_another_state_has_its_own_time_and_keeps_the_note_until_there_is_another(
    core, first, second
):
    core.join("a")
    core.control("a", first, note="disk swap")
    core.pass_time(5_000)
    agent, _ = core.control("a", second)
    assert (agent.note, agent.scheduling_since) == ("disk swap", core.clock.now())
    core.pass_time(5_000)
    agent, _ = core.control("a", second, note="new disk")
    assert (agent.note, agent.scheduling_since) == ("new disk", core.clock.now() - 5_000)


def test_the_same_again_is_no_news(core):
    core.join("a")
    core.control("a", PAUSE, note="x")
    core.pass_time(1_000)
    before = core.agent("a")
    core.control("a", PAUSE, note="x")
    assert core.agent("a") == before
    core.control("a", RESUME)
    core.control("a", RESUME)
    assert told(core) == ["PAUSED", "ACTIVE"]


def test_every_change_raises_the_number_by_which_servers_know_the_latest(core):
    core.join("a")
    numbers = [core.control("a", action)[0].control for action in (PAUSE, DRAIN, RESUME)]
    assert numbers == [1, 2, 3]
    assert [e.data["control"] for e in core.events(EventKind.AGENT_STATE)] == numbers
    assert [e.data["open"] for e in core.events(EventKind.AGENT_STATE)] == [False, False, True]


def test_a_drain_lets_tasks_end_and_is_over_when_the_last_has(core):
    core.join("a", slots=2)
    _, first = core.running()
    _, second = core.running()
    core.control("a", DRAIN)
    assert core.agent("a").due_at is None
    core.pass_time(3_000)
    core.report(first, TaskStatus.SUCCESS)
    assert state(core) is SchedulingState.DRAINING
    core.report(second, FAILED)
    assert state(core) is SchedulingState.DRAINED
    assert told(core) == ["DRAINING", "DRAINED"]


def test_an_idle_agent_is_drained_at_once(core):
    core.join("a")
    core.control("a", DRAIN, deadline=60)
    assert told(core) == ["DRAINED"]
    core.pass_time(60_000)
    assert told(core) == ["DRAINED"]
    assert core.agent("a").due_at is None


def test_at_the_deadline_what_runs_is_stopped_and_queued_again_without_charge(core):
    core.join("a")
    task_id, lease = core.running()
    core.control("a", DRAIN, deadline=30)
    assert core.effects.next_due == core.clock.now() + 30_000
    core.pass_time(29_999)
    assert core.hold(lease) == [VerdictAction.CONTINUE]
    core.pass_time(1)
    assert core.agent("a").due_at is None
    (asked,) = core.events(EventKind.TASK_RELEASE_REQUESTED)
    assert (asked.resource_id, asked.data["lease"]) == (task_id, lease.lease_id)
    assert core.hold(lease) == [VerdictAction.CANCEL]
    core.report(lease, CANCELLED, exit_code=143, error="its agent is drained")
    task, attempt = core.task(task_id), core.attempt(task_id)
    assert task.ready
    assert (task.infra_retries, task.failed_attempts, task.error) == (0, 0, "")
    assert (attempt.status, attempt.cause) == (AttemptStatus.RELEASED, "its agent is drained")
    assert told(core) == ["DRAINING", "DRAINED"]
    assert core.report(lease, CANCELLED) is VerdictAction.CONTINUE, "the same end again is fine"
    core.join("b")
    (given,) = core.claim("b")
    assert core.task(task_id).release_requested_at is None
    assert given.attempt == 2


def test_no_number_of_drains_fails_a_task(core):
    task_id = core.create()
    core.join("a")
    for _ in range(core.policy.infra_retry_limit + 2):
        (lease,) = core.claim()
        core.control("a", DRAIN, deadline=0)
        core.report(lease, RUNNING)
        core.report(lease, CANCELLED)
        assert core.task(task_id).ready
        core.control("a", RESUME)


def test_an_end_of_its_own_counts_although_a_stop_was_asked_for(core):
    core.join("a", slots=2)
    well, first = core.running()
    badly, second = core.running()
    core.control("a", DRAIN, deadline=0)
    core.report(first, TaskStatus.SUCCESS)
    core.report(second, FAILED, exit_code=1)
    assert core.status(well) is TaskStatus.SUCCESS
    assert core.status(badly) is FAILED


def test_a_task_that_must_not_run_twice_fails_when_it_had_started(core):
    core.join("a", slots=2)
    started, lease = core.running(retry_on_lost=False)
    waiting, other = core.leased(retry_on_lost=False)
    core.control("a", DRAIN, deadline=0)
    for ref in (lease, other):
        core.report(ref, CANCELLED, error="its agent is drained")
    task = core.task(started)
    assert (task.status, task.error) == (FAILED, "its agent is drained")
    assert core.task(waiting).ready


def test_who_asks_for_the_cancel_too_gets_it(core):
    core.join("a")
    task_id, lease = core.running()
    core.control("a", DRAIN, deadline=0)
    core.cancel(task_id, reason="enough")
    core.report(lease, CANCELLED)
    assert core.status(task_id) is CANCELLED
    assert core.attempt(task_id).status is AttemptStatus.CANCELLED


def test_a_stop_that_nobody_confirms_is_declared_after_the_grace(core):
    core.join("a")
    task_id, lease = core.running()
    core.control("a", DRAIN, deadline=0)
    core.pass_time(core.policy.kill_grace + core.policy.deadline_slack)
    assert core.attempt(task_id).status is AttemptStatus.RELEASED
    assert core.task(task_id).ready
    assert core.hold(lease) == [VerdictAction.SUPERSEDED]


def test_a_v1_agent_that_does_not_confirm_has_lost_it(core):
    """Its late report names no lease, so the task must avoid it."""
    core.join("a", v1=True)
    task_id, lease = core.running()
    core.control("a", DRAIN, deadline=0)
    assert core.report(v1(lease), RUNNING) is VerdictAction.CANCEL
    core.pass_time(core.policy.kill_grace + core.policy.deadline_slack)
    assert core.attempt(task_id).status is AttemptStatus.LOST
    core.control("a", RESUME)
    assert core.claim() == []


def test_a_lease_taken_up_again_after_the_deadline_is_stopped_too(core):
    core.join("a")
    task_id, lease = core.running()
    core.control("a", DRAIN, deadline=10)
    core.lose()
    core.pass_time(10_000)
    assert core.agent("a").scheduling is Scheduling.STOPPING
    assert core.hold(lease) == [VerdictAction.CANCEL]
    core.report(lease, CANCELLED)
    assert core.task(task_id).ready


def test_the_stop_of_a_drain_is_remembered_over_a_loss_and_a_resume(core):
    """The agent was told to kill it, and says so when it is back."""
    core.join("a")
    task_id, lease = core.running()
    core.control("a", DRAIN, deadline=0)
    core.lose()
    core.control("a", RESUME)
    core.report(lease, CANCELLED)
    assert core.task(task_id).ready
    assert core.task(task_id).infra_retries == 0


def test_a_drain_that_is_ended_stops_nothing(core):
    core.join("a")
    _, lease = core.running()
    core.control("a", DRAIN, deadline=10)
    core.control("a", PAUSE)
    core.pass_time(20_000)
    assert core.hold(lease) == [VerdictAction.CONTINUE]
    assert core.agent("a").drain_until is None


def test_what_an_agent_stopped_because_it_was_told_to_is_charged_to_nobody(core):
    core.join("a")
    task_id, lease = core.running()
    core.report(lease, FAILED, error="the agent was stopped", released=True)
    task = core.task(task_id)
    assert task.ready
    assert (task.infra_retries, task.failed_attempts) == (0, 0)
    assert core.report(lease, FAILED, released=True) is VerdictAction.CONTINUE
    assert core.report(lease, FAILED) is VerdictAction.SUPERSEDED


def test_an_unknown_agent_is_not_found_and_nobody_reaches_into_another_namespace(core):
    core.join("a")
    for command in (
        SetAgentState(NAMESPACE, "nobody", PAUSE),
        SetAgentState("other", "a", PAUSE),
    ):
        with pytest.raises(NotFound):
            core.do(command)


@pytest.mark.parametrize(
    ("action", "wrong", "field"),
    [
        (DRAIN, {"deadline": -1}, "deadline_seconds"),
        (DRAIN, {"deadline": DEADLINE_LIMIT + 1}, "deadline_seconds"),
        (PAUSE, {"deadline": 5}, "deadline_seconds"),
        (RESUME, {"deadline": 0}, "deadline_seconds"),
        (RESUME, {"note": "x"}, "note"),
        (PAUSE, {"note": "x" * 1025}, "note"),
        (PAUSE, {"note": "\0"}, "note"),
    ],
)
def test_what_does_not_belong_is_refused_by_its_field(action, wrong, field):
    with pytest.raises(Invalid) as refused:
        SetAgentState(NAMESPACE, "a", action, **wrong).check()
    assert [v.field for v in refused.value.violations] == [field]


@pytest.mark.parametrize("deadline", [None, 0, DEADLINE_LIMIT])
def test_a_good_deadline_is_taken(deadline):
    SetAgentState(NAMESPACE, "a", DRAIN, "note", deadline).check()
