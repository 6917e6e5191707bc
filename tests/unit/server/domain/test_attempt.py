import pytest

from server.domain.attempt import (
    AttemptStatus,
    LogState,
    log_state,
    missing_lines,
    next_log_due,
)
from server.domain.policy import Policy
from tests.records import attempt

POLICY = Policy(log_settle=2, log_incomplete_after=60)
ENDED = {"status": AttemptStatus.SUCCESS, "ended_at": 100, "log_at": 100, "reported": True}
SUMMED = {**ENDED, "sum_lines": 3, "sum_bytes": 30, "sum_crc": 7}
WHOLE = {"log_lines": 3, "log_bytes": 30, "log_crc": 7}


def state(now, **fields):
    return log_state(attempt(**fields), now, POLICY)


@pytest.mark.parametrize("status", [AttemptStatus.CLAIMED, AttemptStatus.RUNNING])
def test_the_log_of_an_attempt_that_goes_on_is_open(status):
    assert state(10_000, status=status) is LogState.OPEN
    assert next_log_due(attempt(status=status), POLICY) is None


def test_a_log_that_agrees_with_its_summary_is_complete_at_once():
    assert state(100, **SUMMED, **WHOLE) is LogState.COMPLETE


@pytest.mark.parametrize("wrong", WHOLE)
def test_lines_bytes_and_checksum_must_all_agree(wrong):
    fields = {**SUMMED, **WHOLE, wrong: 1}
    assert state(159, **fields) is LogState.OPEN
    assert next_log_due(attempt(**fields), POLICY) == 160
    assert state(160, **fields) is LogState.INCOMPLETE


def test_without_a_summary_a_short_silence_after_the_end_completes_the_log():
    assert state(101, **ENDED) is LogState.OPEN
    assert state(102, **ENDED) is LogState.COMPLETE
    assert next_log_due(attempt(**ENDED), POLICY) == 102


def test_a_late_batch_begins_the_silence_anew():
    late = {**ENDED, "log_at": 150}
    assert state(151, **late) is LogState.OPEN
    assert state(152, **late) is LogState.COMPLETE


def test_an_agents_clock_has_no_say_in_when_a_log_is_given_up():
    """What the agent calls the end may be an hour off, either way."""
    for ended_at in (100 - 3_600_000, 100 + 3_600_000):
        short = {**SUMMED, "ended_at": ended_at}
        assert state(101, **short) is LogState.OPEN
        assert state(160, **short) is LogState.INCOMPLETE


def test_the_log_of_a_lost_attempt_is_given_up_after_its_time():
    lost = {**ENDED, "status": AttemptStatus.LOST, "reported": False}
    assert state(159, **lost) is LogState.OPEN
    assert state(160, **lost) is LogState.INCOMPLETE
    assert next_log_due(attempt(**lost), POLICY) == 160


@pytest.mark.parametrize("closed", [LogState.COMPLETE, LogState.INCOMPLETE])
def test_a_closed_log_stays_closed(closed):
    fields = {**SUMMED, "log_state": closed}
    assert state(0, **fields) is state(10_000, **fields) is closed
    assert next_log_due(attempt(**fields), POLICY) is None


@pytest.mark.parametrize(("stored", "told", "missing"), [(0, None, None), (2, 5, 3), (5, 2, 0)])
def test_missing_lines_are_those_told_of_and_not_stored(stored, told, missing):
    assert missing_lines(attempt(log_lines=stored, sum_lines=told)) == missing


@pytest.mark.parametrize("status", AttemptStatus)
def test_an_attempt_goes_on_while_it_is_claimed_or_running(status):
    assert status.ended is (status not in (AttemptStatus.CLAIMED, AttemptStatus.RUNNING))
