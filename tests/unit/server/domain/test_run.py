import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.run import RunStatus, count_end, status_of
from server.domain.task import TaskStatus
from tests.records import run, task

ENDS = st.sampled_from([status for status in TaskStatus if status.ended])
S, F, C, T, K = (
    TaskStatus.SUCCESS,
    TaskStatus.FAILED,
    TaskStatus.CANCELLED,
    TaskStatus.TIMEOUT,
    TaskStatus.SKIPPED,
)


def tallied(*ends, excused=(), **fields):
    row = run(total=len(ends) + len(excused), started_at=1, **fields)
    for end in ends:
        count_end(row, task(status=end))
    for end in excused:
        count_end(row, task(status=end, allow_failure=True))
    return row


def test_a_run_is_pending_until_something_starts_and_running_until_all_have_ended():
    assert status_of(run(total=2)) is RunStatus.PENDING
    assert status_of(run(total=2, ended=1)) is RunStatus.PENDING
    assert status_of(run(total=2, started_at=1)) is RunStatus.RUNNING
    assert status_of(run(total=2, started_at=1, ended=1, failed=1)) is RunStatus.RUNNING


@pytest.mark.parametrize(
    ("ends", "excused", "expected"),
    [
        ([S, S], [], RunStatus.SUCCESS),
        ([S], [S], RunStatus.SUCCESS),
        ([S], [F], RunStatus.PARTIAL),
        ([S], [T], RunStatus.PARTIAL),
        ([S, F], [], RunStatus.FAILED),
        ([S, T], [F], RunStatus.FAILED),
        ([F, K, K], [], RunStatus.FAILED),
        ([S, C], [], RunStatus.CANCELLED),
        ([F, C], [], RunStatus.FAILED),
        ([S, K], [], RunStatus.FAILED),
        ([S], [C], RunStatus.CANCELLED),
    ],
)
def test_the_ends_of_its_jobs_amount_to_the_runs_end(ends, excused, expected):
    assert status_of(tallied(*ends, excused=excused)) is expected


def test_a_stopped_run_is_cancelled_even_when_a_job_has_failed():
    assert status_of(tallied(F, C, stop_requested_at=1)) is RunStatus.CANCELLED


def test_a_run_stopped_too_late_to_cancel_anything_ends_as_it_would_have():
    assert status_of(tallied(S, S, stop_requested_at=1)) is RunStatus.SUCCESS


@given(st.lists(ENDS), st.lists(ENDS))
def test_every_end_is_counted_once(ends, excused):
    row = tallied(*ends, excused=excused)
    good = [*ends, *excused].count(TaskStatus.SUCCESS)
    assert row.ended == len(ends) + len(excused)
    assert row.ended == good + row.failed + row.excused + row.cancelled + row.skipped
    assert status_of(row).ended
