import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.attempt import AttemptStatus, LogState, LogSummary
from server.domain.errors import LogGap, NotFound, NotLeaseHolder
from server.domain.lease import LeaseRef, VerdictAction
from server.domain.log import LogLine
from server.domain.log_keeping import AppendLog, LooseLines
from server.domain.task import TaskStatus
from server.stores.log_blocks import lines_of
from tests.fakes.core import Core, v1

CONTINUE, CANCEL, SUPERSEDED = VerdictAction
RUNNING = TaskStatus.RUNNING
ENDS = [TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.TIMEOUT]


def everything(core, task_id):
    """Return all that is stored about a task, and how many events there are."""
    key = core.task(task_id).key
    attempts = [a for k, a in core.tables.attempts.items() if k[0] == key]
    return core.task(task_id), attempts, core.tables.position


# ---- starts and ends


def test_a_start_is_recorded_and_its_deadline_is_by_the_servers_clock(core):
    task_id, lease = core.leased(timeout=60)
    hour_off = core.clock.now() + 3_600_000
    assert core.report(lease, RUNNING, started_at=hour_off) is CONTINUE
    task, attempt = core.task(task_id), core.attempt(task_id)
    slack = core.policy.kill_grace + core.policy.deadline_slack
    assert task.started_at == attempt.started_at == hour_off
    assert task.deadline == core.clock.now() + 60_000 + slack
    assert attempt.status is AttemptStatus.RUNNING


def test_a_later_attempt_tells_for_itself_alone(core):
    task_id, lease = core.running(retry_count=1)
    core.report(lease, TaskStatus.FAILED, outputs={"a": "1"})
    assert core.task(task_id).outputs == '{"a": "1"}'
    core.pass_time(core.policy.retry_backoff_limit)
    (again,) = core.claim()
    core.report(LeaseRef(task_id, again.lease_id), TaskStatus.SUCCESS)
    assert core.task(task_id).outputs == ""


def test_a_start_told_twice_changes_nothing(core):
    task_id, lease = core.running()
    before = everything(core, task_id)
    assert core.report(lease, RUNNING) is CONTINUE
    assert everything(core, task_id) == before


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.name)
def test_an_end_ends_the_task_and_frees_the_agent(core, end):
    task_id, lease = core.running()
    assert core.report(lease, end, exit_code=3, error="why") is CONTINUE
    task, attempt = core.task(task_id), core.attempt(task_id)
    assert (task.status, task.exit_code, task.leased) == (end, 3, False)
    assert (attempt.status.name, attempt.exit_code, attempt.reported) == (end.name, 3, True)
    assert attempt.cause == "why"
    assert core.effects.freed == {core.agent("a").session_id}


def test_an_end_without_a_start_passes_through_running_in_the_same_transaction(core):
    task_id, lease = core.leased()
    core.report(lease, TaskStatus.SUCCESS)
    told = [event.data["status"] for event in core.events(resource_id=task_id)]
    assert told == [TaskStatus.QUEUED, RUNNING, TaskStatus.SUCCESS]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.name)
@pytest.mark.parametrize("agent_id", ["a", "old"])
def test_the_same_end_told_twice_changes_nothing(core, end, agent_id):
    core.join("old", v1=True)
    task_id, lease = core.running(agent_id)
    named = v1(lease) if agent_id == "old" else lease
    core.report(named, end, agent_id=agent_id)
    before = everything(core, task_id)
    assert core.report(named, end, agent_id=agent_id) is CONTINUE
    assert everything(core, task_id) == before


def test_a_loss_that_the_agent_reports_itself_is_told_once_too(core):
    """The report that the attempt died with the agent's own process, and its repeat."""
    task_id, lease = core.running()
    core.report(lease, TaskStatus.FAILED, infrastructure=True)
    assert core.task(task_id).infra_retries == 1
    before = everything(core, task_id)
    assert core.report(lease, TaskStatus.FAILED, infrastructure=True) is CONTINUE
    assert core.hold(lease, complete=True) == [CONTINUE]
    assert everything(core, task_id) == before


def test_a_start_that_arrives_after_the_end_changes_nothing(core):
    task_id, lease = core.leased()
    core.report(lease, TaskStatus.SUCCESS)
    before = everything(core, task_id)
    assert core.report(lease, RUNNING) is CONTINUE
    assert everything(core, task_id) == before


def test_another_end_after_the_end_is_superseded_and_changes_nothing(core):
    task_id, lease = core.running()
    core.report(lease, TaskStatus.SUCCESS)
    before = everything(core, task_id)
    assert core.report(lease, TaskStatus.FAILED) is SUPERSEDED
    assert everything(core, task_id) == before


def test_an_infrastructure_failure_is_charged_to_the_infrastructure(core):
    task_id, lease = core.running()
    core.report(lease, TaskStatus.FAILED, infrastructure=True, error="supervisor died")
    task = core.task(task_id)
    assert (task.status, task.infra_retries, task.failed_attempts) == (TaskStatus.QUEUED, 1, 0)
    assert core.attempt(task_id).status is AttemptStatus.LOST


def test_a_failed_attempt_with_tries_left_waits_for_its_next_one(core):
    task_id, lease = core.running(retry_count=1)
    core.report(lease, TaskStatus.FAILED, exit_code=2)
    task = core.task(task_id)
    assert (task.status, task.failed_attempts, task.error) == (
        TaskStatus.PENDING,
        1,
        "exit code 2",
    )
    assert task.not_before == core.clock.now() + core.policy.retry_backoff
    assert core.attempt(task_id).status is AttemptStatus.FAILED


def test_success_wins_over_a_cancel_that_came_too_late(core):
    task_id, lease = core.running()
    core.cancel(task_id)
    core.report(lease, TaskStatus.SUCCESS)
    assert core.status(task_id) is TaskStatus.SUCCESS


def test_a_failure_after_a_cancel_is_the_cancel(core):
    task_id, lease = core.running(retry_count=5)
    core.cancel(task_id, reason="enough")
    core.report(lease, TaskStatus.FAILED, exit_code=137)
    assert (core.status(task_id), core.task(task_id).error) == (TaskStatus.CANCELLED, "enough")


# ---- fences


def test_a_stale_lease_changes_nothing_and_its_holder_must_stop(core):
    """Named in the third issue: stale completion after reassignment, also to the same agent."""
    task_id, stale = core.running()
    core.lose()
    core.hold()
    (given,) = core.claim()
    assert given.lease_id != stale.lease_id
    before = everything(core, task_id)
    for status in (RUNNING, *ENDS):
        assert core.report(stale, status) is SUPERSEDED
    assert everything(core, task_id) == before


def test_a_late_end_before_the_next_claim_is_adopted(core):
    task_id, lease = core.running()
    core.lose()
    assert core.report(lease, TaskStatus.SUCCESS) is CONTINUE
    task = core.task(task_id)
    assert (task.status, task.infra_retries, task.attempt) == (TaskStatus.SUCCESS, 0, 1)


def test_another_agent_cannot_speak_for_a_lease(core):
    core.join("b")
    task_id, lease = core.running()
    before = everything(core, task_id)
    assert core.report(lease, TaskStatus.SUCCESS, agent_id="b") is SUPERSEDED
    assert everything(core, task_id) == before


def test_a_lease_that_was_never_given_is_stale(core):
    task_id = core.create()
    before = everything(core, task_id)
    assert core.report(LeaseRef(task_id, f"{task_id}.0"), TaskStatus.SUCCESS) is SUPERSEDED
    assert core.report(LeaseRef(task_id, "x"), TaskStatus.SUCCESS) is SUPERSEDED
    assert everything(core, task_id) == before


def test_a_task_that_is_gone_is_not_found(core):
    with pytest.raises(NotFound):
        core.report(LeaseRef("gone", "gone.1"), TaskStatus.SUCCESS)


@pytest.mark.parametrize("status", [RUNNING, *ENDS], ids=lambda status: status.name)
def test_a_v1_agent_that_does_not_hold_the_task_is_refused(core, status):
    core.join("old", v1=True)
    task_id, lease = core.running()
    before = everything(core, task_id)
    with pytest.raises(NotLeaseHolder):
        core.report(v1(lease), status, agent_id="old")
    assert everything(core, task_id) == before


def test_a_v1_agents_late_report_of_its_first_run_cannot_end_another_agents_second(core):
    core.join("old", v1=True)
    task_id, lease = core.running("old")
    core.lose("old")
    core.claim("a")
    before = everything(core, task_id)
    with pytest.raises(NotLeaseHolder):
        core.report(v1(lease), TaskStatus.SUCCESS, agent_id="old")
    assert everything(core, task_id) == before


def test_a_v1_agent_is_known_by_its_id_alone(core):
    core.join("old", v1=True)
    task_id, lease = core.running("old")
    core.report(v1(lease), TaskStatus.SUCCESS, agent_id="old")
    assert core.status(task_id) is TaskStatus.SUCCESS


# ---- logs


def test_lines_are_acknowledged_through_the_last_one_stored(core):
    task_id, lease = core.running()
    assert core.append(lease, 1, ["a", "b"]).acked_through == 2
    assert core.append(lease, 3, ["c"]).acked_through == 3
    assert core.lines(task_id) == [(1, 2), (3, 1)]


def test_a_repeated_batch_changes_nothing(core):
    task_id, lease = core.running()
    core.append(lease, 1, ["a", "b"])
    before = everything(core, task_id), core.lines(task_id)
    assert core.append(lease, 1, ["a", "b"]).acked_through == 2
    assert core.append(lease, 2, ["b"]).acked_through == 2
    assert core.append(lease, 1, []).acked_through == 2
    assert (everything(core, task_id), core.lines(task_id)) == before


def test_of_a_batch_that_overlaps_only_the_rest_is_stored(core):
    task_id, lease = core.running()
    core.append(lease, 1, ["a", "b"])
    assert core.append(lease, 2, ["b", "c", "d"]).acked_through == 4
    assert core.lines(task_id) == [(1, 2), (3, 2)]


def test_a_gap_is_refused_naming_the_line_expected(core):
    task_id, lease = core.running()
    core.append(lease, 1, ["a"])
    with pytest.raises(LogGap, match="goes on with line 2, not line 4"):
        core.append(lease, 4, ["d"])
    assert core.lines(task_id) == [(1, 1)]


def test_line_zero_appends(core):
    core.join("old", v1=True)
    task_id, lease = core.running("old")
    for expected in (1, 2):
        assert core.append(v1(lease), 0, ["x"], agent_id="old").acked_through == expected
    assert core.lines(task_id) == [(1, 1), (2, 1)]


def test_the_last_words_of_a_superseded_attempt_are_kept_in_its_own_log(core):
    task_id, lease = core.running()
    core.append(lease, 1, ["a"])
    core.lose()
    core.hold()
    core.claim()
    answer = core.append(lease, 2, ["last words"])
    assert (answer.acked_through, answer.verdict.action) == (2, SUPERSEDED)
    assert core.lines(task_id, attempt=1) == [(1, 1), (2, 1)]
    assert core.lines(task_id, attempt=2) == []


def test_lines_after_the_end_still_join_an_open_log(core):
    task_id, lease = core.running()
    crc = zlib.crc32(b"a\nb\n")
    core.report(lease, TaskStatus.SUCCESS, log=LogSummary(2, 4, crc))
    assert core.attempt(task_id).log_state is LogState.OPEN
    answer = core.append(lease, 1, ["a", "b"])
    assert (answer.acked_through, answer.verdict.action) == (2, CONTINUE)
    assert core.attempt(task_id).log_state is LogState.COMPLETE


def test_a_log_that_is_closed_takes_no_more(core):
    task_id, lease = core.running()
    core.report(lease, TaskStatus.SUCCESS, log=LogSummary(5, 50, 1))
    core.append(lease, 1, ["a"])
    core.pass_time(core.policy.log_incomplete_after)
    assert core.attempt(task_id).log_state is LogState.INCOMPLETE
    assert core.append(lease, 2, ["b"]).acked_through == 1
    assert core.lines(task_id) == [(1, 1)]


def test_a_cancel_is_told_in_the_answer_to_log_lines(core):
    _, lease = core.running()
    core.cancel(lease.task_id, reason="enough")
    verdict = core.append(lease, 1, ["a"]).verdict
    assert (verdict.action, verdict.reason) == (CANCEL, "enough")


@pytest.mark.parametrize("lease_id", ["t.2", "t.0", "t.", "t", "t.x", "t.-1", "t." + "9" * 30])
def test_lines_of_an_attempt_that_never_was_are_not_kept(core, lease_id):
    core.running(task_id="t")
    answer = core.append(LeaseRef("t", lease_id), 1, ["a"])
    assert (answer.acked_through, answer.verdict.action) == (0, SUPERSEDED)
    assert core.lines("t") == []


def test_another_agents_lines_are_not_kept(core):
    core.join("b")
    core.join("old", v1=True)
    task_id, lease = core.running()
    assert core.append(lease, 1, ["a"], agent_id="b").verdict.action is SUPERSEDED
    with pytest.raises(NotLeaseHolder):
        core.append(v1(lease), 0, ["a"], agent_id="old")
    assert core.lines(task_id) == []


@pytest.mark.parametrize("away", [0, 100_000])
def test_a_line_of_a_v1_agent_adopts_its_lost_task_and_is_kept(core, away):
    core.join("old", v1=True)
    task_id, lease = core.running("old")
    core.lose("old")
    core.pass_time(away)
    answer = core.append(v1(lease), 0, ["still here"], agent_id="old")
    assert (answer.acked_through, answer.verdict.action) == (1, CONTINUE)
    assert core.status(task_id) is TaskStatus.RUNNING
    assert core.lines(task_id) == [(1, 1)]


def test_a_line_without_a_time_gets_the_servers(core):
    _, lease = core.running()
    core.append(lease, 1, ["a"])
    (batch,) = core.tables.logs.values()
    assert [line.at for line in lines_of(batch.block)] == [core.clock.now()]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
STREAMS = st.sampled_from(["stdout", "stderr"])
EXACT = st.one_of(TEXTS.map(str.encode), st.binary(max_size=4))


@st.composite
def log_lines(draw):
    """Return a line as a door makes it: `raw` only where text cannot hold the bytes."""
    exact = draw(EXACT)
    text = exact.decode(errors="replace")
    raw = b"" if text.encode() == exact else exact
    level = draw(TEXTS.filter(bool))
    return LogLine(draw(st.integers(1, 9)), draw(STREAMS), level, text, raw, draw(st.booleans()))


LINES = log_lines()


@given(st.lists(st.lists(LINES, max_size=3), max_size=4), st.data())
def test_however_batches_overlap_the_stored_log_is_the_lines_once_and_sums_up(batches, data):
    lines = [line for batch in batches for line in batch]
    core = Core()
    core.join("a")
    task_id, lease = core.running()
    acked = 0
    while acked < len(lines):
        first = data.draw(st.integers(1, acked + 1))
        last = data.draw(st.integers(max(first, acked + 1), len(lines)))
        answer = core.do(AppendLog("a", lease, LooseLines(first, tuple(lines[first - 1 : last]))))
        assert answer.acked_through == last
        acked = last
    stored = [batch for _, batch in sorted(core.tables.logs.items())]
    assert [line for batch in stored for line in lines_of(batch.block)] == lines
    joined = b"".join(line.exact + b"\n" for line in lines)
    summary = LogSummary(len(lines), len(joined), zlib.crc32(joined))
    core.report(lease, TaskStatus.SUCCESS, log=summary)
    assert core.attempt(task_id).log_state is LogState.COMPLETE
    wrong = replace(summary, crc32=summary.crc32 ^ 1)
    _, lease = core.running()
    core.report(lease, TaskStatus.SUCCESS, log=wrong)
    assert core.attempt(lease.task_id).log_state is LogState.OPEN
