import pytest

from server.domain.agent import SessionState
from server.domain.attempt import AttemptStatus, LogState
from server.domain.errors import Invalid, NotLeaseHolder, SessionSuperseded
from server.domain.event import EventKind
from server.domain.holding import Held
from server.domain.lease import LeaseRef, VerdictAction
from server.domain.registering import (
    Attach,
    ChangeAgent,
    LoseSession,
    Profile,
    RenewSessions,
    Unregister,
    UpdateLabels,
)
from server.domain.task import TaskStatus
from tests.fakes.core import NAMESPACE, v1

CONTINUE, CANCEL, SUPERSEDED = VerdictAction


# ---- sessions


def test_an_unknown_id_is_created_and_a_known_one_taken_over(core):
    core.join("b", session="one", slots=3, labels={"x": "1"})
    first = core.agent("b")
    core.join("b", session="two", slots=5)
    second = core.agent("b")
    assert (first.key, first.session_id, first.slots) == (second.key, "one", 3)
    assert (second.session_id, second.slots, second.labels) == ("two", 5, {})


def test_slots_left_unsaid_are_one(core):
    core.join("b", slots=0)
    assert core.agent("b").slots == 1


def test_an_older_session_is_told_that_it_was_superseded(core):
    core.join("a", session="newer")
    with pytest.raises(SessionSuperseded):
        core.do(Attach("a", "older"))
    assert core.do(Unregister("a", "older", "")) is False
    assert core.agent("a").session_state is SessionState.LIVE


def test_a_closed_session_does_not_come_back_without_registering(core):
    session = core.agent("a").session_id
    assert core.do(Unregister("a", session, "done"))
    assert core.do(Unregister("a", session, "done"))
    with pytest.raises(SessionSuperseded):
        core.do(Attach("a", session))
    core.join("a")
    assert core.agent("a").session_state is SessionState.LIVE


def test_a_lost_session_revives_with_its_next_word(core):
    assert core.lose()
    assert core.agent("a").session_state is SessionState.LOST
    core.hold()
    assert core.agent("a").session_state is SessionState.LIVE
    assert len(core.events(EventKind.AGENT_REGISTERED, "a")) == 2


def test_a_session_heard_since_is_not_lost(core):
    agent = core.agent("a")
    core.clock.advance(5)
    assert core.do(RenewSessions(((agent.key, agent.session_id),))) == core.clock.now()
    assert not core.do(LoseSession("a", agent.session_id, agent.last_seen))
    assert core.agent("a").session_state is SessionState.LIVE


def test_only_the_current_session_is_renewed_or_lost(core):
    older = core.agent("a")
    core.clock.advance(5)
    core.join("a")
    before = core.agent("a")
    core.clock.advance(5)
    core.do(RenewSessions(((older.key, older.session_id), (99, "x"))))
    assert not core.do(LoseSession("a", older.session_id, before.last_seen))
    assert not core.do(LoseSession("nobody", "x", 0))
    assert core.agent("a") == before


def test_a_session_is_lost_once(core):
    assert core.lose()
    assert not core.lose()
    assert len(core.events(EventKind.AGENT_OFFLINE)) == 1


# ---- what an agent holds


def test_a_lease_the_agent_names_goes_on(core):
    _, lease = core.running()
    assert core.hold(lease, complete=True) == [CONTINUE]
    assert core.status(lease.task_id) is TaskStatus.RUNNING


def test_a_lease_it_does_not_name_at_stream_open_is_released_free_of_charge(core):
    task_id, _ = core.running()
    core.hold(complete=True)
    task = core.task(task_id)
    assert (task.status, task.infra_retries, task.failed_attempts) == (TaskStatus.QUEUED, 0, 0)
    assert core.attempt(task_id).status is AttemptStatus.RELEASED


def test_on_heartbeats_only_leases_it_must_have_seen_are_released(core):
    task_id, lease = core.create(), None
    (given,) = core.claim(frame=5)
    lease = LeaseRef(task_id, given.lease_id)
    core.hold(seen_through=4)
    assert core.task(task_id).leased
    assert core.hold(lease, seen_through=5) == [CONTINUE]
    assert core.task(task_id).leased
    core.hold(seen_through=5)
    assert core.task(task_id).ready


def test_a_new_session_carries_over_what_it_names_and_releases_the_rest(core):
    core.join("a", slots=2)
    kept, lease = core.running()
    dropped, _ = core.running()
    attached = core.join("a", session="next", held=[lease])
    assert attached.leases == {lease.lease_id: 0}
    assert [v.action for v in attached.verdicts] == [CONTINUE]
    assert core.task(kept).lease_session == "next"
    assert core.task(dropped).ready


def test_what_it_does_not_hold_any_more_it_must_kill(core):
    task_id, lease = core.running()
    core.hold(complete=True)
    core.claim()
    strangers = (lease, LeaseRef("nobody", "nobody.1"), LeaseRef(task_id, ""))
    now = LeaseRef(task_id, core.task(task_id).lease_id)
    assert core.hold(*strangers, now) == [SUPERSEDED] * 3 + [CONTINUE]


def test_a_finished_lease_whose_answer_was_lost_is_not_a_stranger(core):
    task_id, lease = core.running()
    core.report(lease, TaskStatus.SUCCESS)
    before = core.task(task_id), core.attempt(task_id)
    assert core.hold(lease, complete=True) == [CONTINUE]
    assert (core.task(task_id), core.attempt(task_id)) == before


def test_a_cancel_is_repeated_until_the_agent_confirms(core):
    _, lease = core.running()
    core.cancel(lease.task_id, reason="enough")
    for _ in range(2):
        attached = core.do(Attach("a", core.agent("a").session_id, Held((lease,))))
        assert [(v.action, v.reason) for v in attached.verdicts] == [(CANCEL, "enough")]


def test_a_cancelled_task_whose_lease_is_released_ends_and_is_not_handed_out_again(core):
    task_id, _ = core.leased()
    core.cancel(task_id, reason="enough")
    core.hold(complete=True)
    task = core.task(task_id)
    assert (task.status, task.error) == (TaskStatus.CANCELLED, "enough")
    assert core.claim() == []


# ---- loss, and adoption


def test_the_tasks_of_a_lost_session_go_back_to_the_queue(core):
    task_id, _ = core.running()
    core.lose()
    task = core.task(task_id)
    assert (task.status, task.infra_retries, task.error) == (
        TaskStatus.QUEUED,
        1,
        "agent a was lost",
    )
    assert core.attempt(task_id).status is AttemptStatus.LOST


def test_a_task_lost_too_often_fails_and_names_the_agent(core):
    task_id = core.create()
    for _ in range(core.policy.infra_retry_limit + 1):
        core.claim()
        core.lose()
        core.hold()
    task = core.task(task_id)
    assert task.status is TaskStatus.FAILED
    assert task.error == "agent a was lost; given up after 4 lost attempts"


def test_a_task_that_must_not_be_lost_fails_at_once(core):
    task_id, _ = core.running(retry_on_lost=False)
    core.lose()
    assert core.status(task_id) is TaskStatus.FAILED


def test_a_cancelled_task_that_is_lost_is_cancelled(core):
    task_id, _ = core.running()
    core.cancel(task_id, reason="enough")
    core.lose()
    assert core.status(task_id) is TaskStatus.CANCELLED


@pytest.mark.parametrize("started", [True, False])
def test_adoption_undoes_the_loss_and_its_charge(core, started):
    task_id, lease = core.running() if started else core.leased()
    before = core.task(task_id)
    core.clock.advance(40_000)
    core.lose()
    assert core.hold(lease, complete=True) == [CONTINUE]
    task, attempt = core.task(task_id), core.attempt(task_id)
    assert (task.status, task.infra_retries, task.error) == (before.status, 0, "")
    assert (task.attempt, task.lease_epoch) == (1, 1)
    assert (attempt.ended_at, attempt.cause) == (None, "")
    assert attempt.status is (AttemptStatus.RUNNING if started else AttemptStatus.CLAIMED)
    assert core.effects.adopted_leases == [(task.lease_session, lease.lease_id)]


def test_an_adopted_task_keeps_its_own_deadline_but_has_time_to_say_so(core):
    task_id, lease = core.running(timeout=600)
    deadline = core.task(task_id).deadline
    core.clock.advance(40_000)
    core.lose()
    core.hold(lease)
    assert core.task(task_id).deadline == deadline
    core.lose()
    core.clock.advance(700_000)
    core.hold(lease)
    slack = core.policy.kill_grace + core.policy.deadline_slack
    assert core.task(task_id).deadline == core.clock.now() + slack


def test_a_lost_lease_is_stale_once_the_task_was_claimed_again(core):
    core.join("b")
    task_id, lease = core.running()
    core.lose()
    core.claim("b")
    before = core.task(task_id)
    assert core.hold(lease, complete=True) == [SUPERSEDED]
    assert core.task(task_id) == before


def test_nobody_else_adopts_a_lost_lease(core):
    core.join("b")
    _, lease = core.running()
    core.lose()
    assert core.hold(lease, agent_id="b") == [SUPERSEDED]
    assert core.task(lease.task_id).ready


@pytest.mark.parametrize("started", [True, False])
def test_the_log_of_an_adopted_attempt_goes_on_however_long_the_agent_was_away(core, started):
    task_id, lease = core.running() if started else core.leased()
    core.lose()
    core.pass_time(core.policy.log_incomplete_after + 1)
    assert core.attempt(task_id).log_state is LogState.INCOMPLETE
    core.hold(lease)
    assert core.attempt(task_id).log_state is LogState.OPEN
    assert core.append(lease, 1, ["still here"]).acked_through == 1
    assert core.lines(task_id) == [(1, 1)]


def test_an_adopted_lease_counts_as_seen_whatever_frame_once_carried_it(core):
    task_id = core.create()
    (given,) = core.claim(frame=50)
    lease = LeaseRef(task_id, given.lease_id)
    core.lose()
    core.join("a", held=[lease])
    core.hold(seen_through=0)
    assert core.task(task_id).ready


def test_an_agent_that_leaves_gives_its_tasks_back(core):
    task_id, _ = core.running()
    core.do(Unregister("a", core.agent("a").session_id, "upgrade"))
    task = core.task(task_id)
    assert (task.status, task.error) == (TaskStatus.QUEUED, "agent a left: upgrade")
    assert core.agent("a").session_state is SessionState.CLOSED


# ---- v1 agents


def test_a_v1_agent_that_restarts_keeps_its_leases_until_they_should_be_confirmed(core):
    core.join("old", v1=True)
    task_id, lease = core.running("old")
    core.join("old", v1=True)
    task = core.task(task_id)
    assert task.leased
    assert task.confirm_by == core.clock.now() + core.policy.lease
    core.report(v1(lease), TaskStatus.RUNNING, agent_id="old")
    core.pass_time(core.policy.lease + 1)
    assert core.status(task_id) is TaskStatus.RUNNING


def test_a_log_line_confirms_too(core):
    core.join("old", v1=True)
    task_id, lease = core.running("old")
    core.join("old", v1=True)
    core.append(v1(lease), 0, ["line"], agent_id="old")
    core.pass_time(core.policy.lease + 1)
    assert core.status(task_id) is TaskStatus.RUNNING


def test_silence_requeues_what_a_v1_agent_did_not_confirm(core):
    core.join("old", v1=True)
    task_id, _ = core.running("old")
    core.join("old", v1=True)
    core.pass_time(core.policy.lease)
    task = core.task(task_id)
    assert (task.status, task.error) == (TaskStatus.QUEUED, "agent old came back without it")


@pytest.mark.parametrize("started", [True, False])
def test_a_task_lost_by_a_v1_agent_avoids_it_until_that_run_can_be_heard_of_no_more(core, started):
    """The run's time is counted from its start, which may come long after the claim."""
    core.join("old", v1=True)
    task_id, lease = core.leased("old", timeout=600)
    core.pass_time(50_000)
    if started:
        core.report(v1(lease), TaskStatus.RUNNING, agent_id="old")
    last_word = core.clock.now() + 600_000
    core.lose("old")
    core.join("old", v1=True)
    core.clock.advance(last_word - core.clock.now())
    assert core.claim("old") == []
    core.clock.advance(core.policy.kill_grace + core.policy.deadline_slack)
    assert [given.task_id for given in core.claim("old")] == [task_id]


def test_each_v1_agent_that_lost_a_task_is_remembered_not_only_the_last(core):
    for agent_id in ("one", "two"):
        core.join(agent_id, v1=True)
    task_id, lease = core.running("one")
    core.lose("one")
    core.claim("two")
    core.lose("two")
    for agent_id in ("one", "two"):
        core.join(agent_id, v1=True)
        assert core.claim(agent_id) == []
    assert [given.task_id for given in core.claim("a")] == [task_id]
    with pytest.raises(NotLeaseHolder):
        core.report(v1(lease), TaskStatus.SUCCESS, agent_id="one")


def test_an_adoption_in_between_does_not_make_it_forgotten(core):
    core.join("old", v1=True)
    core.running("old", task_id="t")
    core.lose("old")
    (given,) = core.claim("a")
    core.lose("a")
    core.hold(LeaseRef("t", given.lease_id))
    core.lose("a")
    core.join("old", v1=True)
    assert core.claim("old") == []


def test_a_v1_agents_word_needs_no_session(core):
    core.join("old", v1=True)
    core.lose("old")
    core.do(Attach("old", ""))
    assert core.agent("old").session_state is SessionState.LIVE


# ---- labels and profile


def violations(check, *arguments):
    """Return the fields that a check refuses."""
    try:
        check(*arguments)
    except Invalid as error:
        return [violation.field for violation in error.violations]
    return []


def test_labels_reported_are_under_the_overlay_and_that_is_under_the_hosts_facts(core):
    labels = {"a": "reported", "b": "reported", "agent": "forged"}
    core.do(ChangeAgent("a", labels, 4))
    core.do(UpdateLabels(NAMESPACE, "a", {"b": "overlay", "agent": "forged"}, merge=True))
    agent = core.agent("a")
    assert agent.effective_labels == {"a": "reported", "b": "overlay", "agent": "a"}
    assert agent.slots == 4


def test_update_labels_merges_or_replaces_and_tells_only_of_news(core):
    for labels, merge in [({"x": "1"}, True), ({"y": "2"}, True), ({"y": "2"}, True)]:
        core.do(UpdateLabels(NAMESPACE, "a", labels, merge))
    assert core.agent("a").overlay == {"x": "1", "y": "2"}
    core.do(UpdateLabels(NAMESPACE, "a", {"z": "3"}, merge=False))
    assert core.agent("a").overlay == {"z": "3"}
    assert len(core.events(EventKind.AGENT_LABELS)) == 3


def test_a_plugin_is_a_label_with_its_version(core):
    agent = core.agent("a")
    agent.plugins = ["git@1.2", "bare", "@x"]
    assert agent.effective_labels == {"plugin/git": "1.2", "plugin/bare": "", "agent": "a"}


@pytest.mark.parametrize(
    ("profile", "agent_id", "fields"),
    [
        (Profile(), "a.b:c-9_", []),
        (Profile(), "", []),
        (Profile(), "-a", ["agent_id"]),
        (Profile(), "a" * 129, ["agent_id"]),
        (Profile(hostname="a\n", slots=-1), "a", ["hostname", "max_concurrent_jobs"]),
        (Profile(slots=10_001), "a", ["max_concurrent_jobs"]),
        (Profile(labels={"-": "x"}), "a", ["labels[-]"]),
        (Profile(plugins=("ok", "")), "a", ["installed_plugins[1]"]),
    ],
)
def test_a_malformed_profile_is_refused_by_field(profile, agent_id, fields):
    assert violations(profile.check, agent_id) == fields
