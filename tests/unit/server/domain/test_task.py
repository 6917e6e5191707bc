import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.policy import Policy
from server.domain.task import (
    MOVES,
    ArtifactSpec,
    ForbiddenMoveError,
    TaskSpec,
    TaskStatus,
    lease_id,
    move,
    next_due,
)
from tests.records import task

PAIRS = [(start, to) for start in TaskStatus for to in TaskStatus]
POLICY = Policy(kill_grace=10, deadline_slack=20, claim_to_start=60)

# The table of dispatch.md, "Task states", word for word.
ALLOWED = {
    "PENDING": "QUEUED SKIPPED CANCELLED TIMEOUT SUCCESS FAILED",
    "QUEUED": "RUNNING SKIPPED CANCELLED TIMEOUT FAILED",
    "RUNNING": "QUEUED PENDING SUCCESS FAILED CANCELLED TIMEOUT",
}


@pytest.mark.parametrize(("start", "to"), PAIRS, ids=lambda status: status.name)
def test_a_task_moves_only_as_the_table_says(start, to):
    row = task(status=start)
    if to.name in ALLOWED.get(start.name, "").split():
        assert move(row, to) is start
        assert row.status is to
    else:
        with pytest.raises(ForbiddenMoveError, match=f"{start.name} → {to.name}"):
            move(row, to)
        assert row.status is start


@pytest.mark.parametrize("status", TaskStatus, ids=lambda status: status.name)
def test_nothing_leaves_an_ended_state_and_every_other_can_be_left(status):
    assert bool(MOVES[status]) is not status.ended


def test_the_lease_id_carries_the_epoch():
    assert task(public_id="t", lease_epoch=3).lease_id == lease_id("t", 3) == "t.3"


def test_a_task_is_ready_when_it_is_queued_and_nobody_holds_it():
    assert task(status=TaskStatus.QUEUED).ready
    assert not task(status=TaskStatus.QUEUED, lease_agent=1).ready
    assert not task(status=TaskStatus.PENDING).ready


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": TaskStatus.QUEUED}, None),
        ({"status": TaskStatus.PENDING, "unmet": 1, "not_before": 5}, None),
        ({"status": TaskStatus.PENDING, "not_before": 5}, 5),
        ({"status": TaskStatus.QUEUED, "start_by": 5}, 5),
        ({"status": TaskStatus.PENDING, "unmet": 1, "start_by": 5}, 5),
        ({"lease_agent": 1, "claimed_at": 100, "start_by": 5}, 160),
        ({"status": TaskStatus.SUCCESS, "deadline": 5, "lease_agent": 1}, None),
        ({"lease_agent": 1, "claimed_at": 100}, 160),
        ({"lease_agent": 1, "claimed_at": 100, "confirm_by": 90}, 90),
        ({"lease_agent": 1, "claimed_at": 100, "cancel_requested_at": 100}, 130),
        ({"status": TaskStatus.RUNNING, "lease_agent": 1, "claimed_at": 1, "deadline": 7}, 7),
        (
            {
                "status": TaskStatus.RUNNING,
                "lease_agent": 1,
                "deadline": 700,
                "confirm_by": 600,
                "cancel_requested_at": 500,
            },
            530,
        ),
    ],
)
def test_the_timers_look_at_the_earliest_of_its_limits(fields, expected):
    assert next_due(task(**fields), POLICY) == expected


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.lists(TEXT).map(tuple), st.dictionaries(TEXT, TEXT), TEXT, st.booleans())
def test_a_spec_comes_back_from_json(commands, env, text, expire):
    spec = TaskSpec(
        commands=commands,
        env=env,
        workspace=text,
        image=text,
        artifacts=(ArtifactSpec(text, text, text, expire=expire, expire_days=3),),
        labels=env,
        executor=text,
    )
    assert TaskSpec.from_json(spec.to_json()) == spec
