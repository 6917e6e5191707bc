import pytest

from server.domain.labels import Operator, Requirement, Selector
from server.domain.task import TaskStatus
from server.domain.waiting import Fleet, waiting_reason
from tests.records import task

GPU = Selector.of({}, Requirement("gpu", Operator.EXISTS))
NOBODY = Fleet(0, 0, 0)
P, R, S = TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.SUCCESS


def why(row, *, image="", needs=(), fleet=NOBODY, now=0):
    return waiting_reason(row, image, needs, GPU, fleet, now)


@pytest.mark.parametrize("status", [R, *(s for s in TaskStatus if s.ended)])
def test_a_task_that_runs_or_has_ended_waits_for_nothing(status):
    assert why(task(status=status)) == ""


def test_a_claimed_task_is_about_to_start():
    row = task(lease_agent=1, last_agent_id="a-1")
    assert why(row) == "Agent a-1 has it and is about to start it."


def test_it_names_what_it_waits_for_and_how_that_stands():
    needs = [("1", "lint", P), ("2", "build", R), ("3", "fetch", S)]
    row = task(status=P, unmet=2)
    assert why(row, needs=needs) == "It waits for lint (PENDING), build (RUNNING)."


def test_it_names_at_most_five_and_counts_the_rest():
    needs = [(str(n), f"job {n}", P) for n in range(7)]
    assert why(task(status=P, unmet=7), needs=needs).endswith("job 4 (PENDING) and 2 more.")


def test_a_second_try_says_when_and_why():
    row = task(status=P, not_before=4_000, error="exit code 2")
    assert why(row, now=1_000) == (
        "Its next try is in 3 seconds; the last one failed: exit code 2."
    )
    assert "in 0 seconds" in why(row, now=9_000)


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        (NOBODY, "No agent is connected; start one with: muster-agent --server HOST:PORT"),
        (
            Fleet(1, 0, 0, "It needs gpu."),
            "The one connected agent does not fit gpu exists. It needs gpu.",
        ),
        (Fleet(3, 0, 0), "None of the 3 connected agents fits gpu exists."),
        (Fleet(3, 1, 1), "1 fitting agent is full; it is next when a slot gets free."),
        (Fleet(3, 2, 2), "2 fitting agents are full; it is next when a slot gets free."),
        (Fleet(3, 2, 1), "A fitting agent has a free slot; it starts in a moment."),
    ],
)
def test_a_ready_task_says_what_the_agents_lack(fleet, expected):
    assert why(task(), fleet=fleet) == expected


def test_a_task_with_an_image_says_that_no_agent_runs_images():
    assert why(task(), image="debian:13", fleet=Fleet(2, 0, 0)) == (
        "It needs the image debian:13, and no connected agent can run images yet."
    )
