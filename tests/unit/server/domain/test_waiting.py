import pytest

from server.domain.agent import Scheduling
from server.domain.labels import Operator, Requirement, Selector
from server.domain.task import TaskStatus
from server.domain.waiting import (
    AHEAD_LIMIT,
    Candidate,
    Crowd,
    Fit,
    Need,
    Situation,
    WaitingFor,
    explain,
    judge,
    why_it_waits,
)
from tests.records import agent, task

GPU = Selector.of({}, Requirement("gpu", Operator.EXISTS))
ANY = Selector.of({})
P, R, S = TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.SUCCESS
ENDS = [status for status in TaskStatus if status.ended]


def ask(row, *, selector=GPU, now=0, **known):
    return explain(Situation(row, selector, now, **known))


def why(row, **known):
    return why_it_waits(row, ask(row, **known))


def candidate(number=1, *, held=0, gpu=True, takes_work=True, **chosen):
    labels = {"gpu": "a100"} if gpu else {}
    row = agent(number, public_id=f"a-{number}", labels=labels, **{"slots": 2, **chosen})
    return Candidate(row, held, takes_work)


@pytest.mark.parametrize("status", [R, *ENDS])
def test_a_task_that_runs_or_has_ended_waits_for_nothing(status):
    assert why(task(status=status, lease_agent=1 if status is R else None)) == ""


@pytest.mark.parametrize("status", ENDS)
def test_an_end_says_which_and_why(status):
    found = ask(task(status=status, error="exit code 2"))
    assert found.waiting_for is WaitingFor.NOTHING
    assert found.sentence == f"It ended in {status.name}: exit code 2."


def test_what_its_agent_does_with_it_is_told():
    at = {"lease_agent": 1, "last_agent_id": "a-1"}
    assert why(task(**at)) == "Agent a-1 has it and is about to start it."
    running = ask(task(status=R, **at))
    assert (running.waiting_for, running.sentence) == (WaitingFor.END, "It runs on agent a-1.")
    cancelled = ask(task(status=R, cancel_requested_at=1, cancel_reason="enough", **at))
    assert cancelled.waiting_for is WaitingFor.STOP
    assert cancelled.sentence == "Agent a-1 was asked to cancel it: enough."
    drained = ask(task(release_requested_at=1, **at))
    assert drained.waiting_for is WaitingFor.STOP
    assert drained.sentence == (
        "Agent a-1 is drained and was asked to stop it; then it is queued again."
    )


def test_it_names_what_it_waits_for_and_how_that_stands():
    needs = [Need("1", "lint", P), Need("2", "build", R), Need("3", "fetch", S)]
    row = task(status=P, unmet=2)
    assert why(row, needs=needs) == "It waits for lint (PENDING), build (RUNNING)."
    assert ask(row, needs=needs).unmet == needs[:2]


def test_it_names_at_most_five_and_counts_the_rest():
    needs = [Need(str(n), f"job {n}", P) for n in range(7)]
    assert why(task(status=P, unmet=7), needs=needs).endswith("job 4 (PENDING) and 2 more.")


def test_a_second_try_says_when_and_why():
    row = task(status=P, not_before=4_000, error="exit code 2")
    assert why(row, now=1_000) == (
        "Its next try is in 3 seconds; the last one failed: exit code 2."
    )
    assert "in 0 seconds" in why(row, now=9_000)


PAUSED = {"scheduling": Scheduling.PAUSED, "note": "disk swap."}


@pytest.mark.parametrize(
    ("fleet", "ahead", "waiting_for", "expected"),
    [
        (
            [],
            0,
            WaitingFor.AGENT,
            "No agent is connected; start one with: muster-agent --server HOST:PORT",
        ),
        (
            [candidate(gpu=False)],
            0,
            WaitingFor.AGENT,
            "The one connected agent does not fit gpu exists. "
            "It needs gpu exists, and there is no label gpu.",
        ),
        (
            [candidate(1, gpu=False), candidate(2, gpu=False)],
            0,
            WaitingFor.AGENT,
            "None of the 2 connected agents fits gpu exists. "
            "It needs gpu exists, and there is no label gpu.",
        ),
        (
            [candidate(1, **PAUSED), candidate(2, gpu=False)],
            0,
            WaitingFor.OPEN_AGENT,
            "The one fitting agent is given no work now: a-1 is paused: disk swap.",
        ),
        (
            [candidate(1, scheduling=Scheduling.DRAINING), candidate(2, takes_work=False)],
            0,
            WaitingFor.OPEN_AGENT,
            "None of the 2 fitting agents is given work: a-2 takes no work now: it is stopping, or "
            "its host cannot start tasks, a-1 is kept empty by a drain.",
        ),
        (
            [candidate(1, held=2), candidate(2, **PAUSED)],
            0,
            WaitingFor.SLOT,
            "1 fitting agent is full; it is next when a slot gets free.",
        ),
        (
            [candidate(1, held=2), candidate(2, held=3)],
            1,
            WaitingFor.SLOT,
            "2 fitting agents are full, and 1 ready task stands before it.",
        ),
        (
            [candidate(1, held=1), candidate(2, held=2)],
            1,
            WaitingFor.TURN,
            "1 ready task stands before it, and fitting agents have 1 free slot.",
        ),
        (
            [candidate(1)],
            AHEAD_LIMIT + 1,
            WaitingFor.TURN,
            "More than 10000 ready tasks stand before it, and fitting agents have 2 free slots.",
        ),
        (
            [candidate(1)],
            1,
            WaitingFor.HANDOUT,
            "A fitting agent has a free slot; it starts in a moment.",
        ),
    ],
)
def test_a_ready_task_says_what_it_lacks(fleet, ahead, waiting_for, expected):
    found = ask(task(), fleet=fleet, ahead=ahead)
    assert (found.waiting_for, found.sentence) == (waiting_for, expected)
    assert found.counts.total() == len(found.agents) == len(fleet)


@pytest.mark.parametrize(
    ("held", "ahead", "waiting_for", "expected"),
    [
        (
            2,
            1,
            WaitingFor.SLOT,
            "1 fitting agent is full, and 1 ready task stands before it, "
            "3 ready tasks take turns with it for other namespaces.",
        ),
        (
            0,
            0,
            WaitingFor.TURN,
            "3 ready tasks take turns with it for other namespaces, and fitting agents have "
            "2 free slots.",
        ),
    ],
)
def test_other_namespaces_take_turns_with_it(held, ahead, waiting_for, expected):
    found = ask(task(), fleet=[candidate(held=held)], ahead=ahead, others=3)
    assert (found.waiting_for, found.sentence) == (waiting_for, expected)


def test_a_task_with_an_image_says_that_no_agent_runs_images():
    found = ask(task(), image="debian:13", fleet=[candidate(gpu=False)])
    assert found.waiting_for is WaitingFor.IMAGE
    assert found.sentence == (
        "It needs the image debian:13, and no connected agent can run images: install podman, "
        "docker or nerdctl where one runs."
    )


@pytest.mark.parametrize(
    ("given", "fit", "reason"),
    [
        (candidate(held=1), Fit.ELIGIBLE, "has 1 of 2 slots free"),
        (candidate(held=2), Fit.FULL, "has no free slot of 2"),
        (candidate(held=3), Fit.FULL, "has no free slot of 2"),
        (candidate(held=2, **PAUSED), Fit.PAUSED, "is paused: disk swap"),
        (candidate(held=1, scheduling=Scheduling.STOPPING), Fit.DRAINING, "is draining"),
        (
            candidate(scheduling=Scheduling.STOPPING, note="x"),
            Fit.DRAINING,
            "is kept empty by a drain: x",
        ),
        (
            candidate(quarantined_until=2_001, fault="no disk"),
            Fit.QUARANTINED,
            "is quarantined for 2 s: no disk",
        ),
        (candidate(quarantined_until=5), Fit.QUARANTINED, "is quarantined for 0 s"),
        (candidate(7, v1=True), Fit.BARRED, "may still run an earlier attempt"),
        (candidate(7), Fit.ELIGIBLE, "has 2 of 2 slots free"),
        (
            candidate(gpu=False, **PAUSED),
            Fit.UNFIT,
            "It needs gpu exists, and there is no label gpu.",
        ),
    ],
)
def test_each_agent_says_why(given, fit, reason):
    found = judge(given, GPU, {7}, 1_000)
    assert (found.fit, found.reason) == (fit, reason)


def test_those_come_first_that_are_nearest_to_taking_it():
    fleet = [
        candidate(1, gpu=False),
        candidate(2, **PAUSED),
        candidate(4),
        candidate(3),
        candidate(5, held=2),
    ]
    found = ask(task(), fleet=fleet)
    assert [each.agent_id for each in found.agents] == ["a-3", "a-4", "a-5", "a-2", "a-1"]
    assert found.free_slots == 4


def test_a_member_of_a_full_group_says_which_and_who_is_in_the_way():
    row = task(status=P, group_key="deploy")
    crowd = Crowd("deploy", 2, [("1", "build"), ("2", "ship")], 2)
    found = ask(row, crowd=crowd)
    assert (found.waiting_for, found.crowd) == (WaitingFor.PLACE, crowd)
    assert found.sentence == (
        "It waits for a place in concurrency group 'deploy' (limit 2), held by build (1), ship (2)."
    )
    many = Crowd("deploy", 9, [(str(n), "x") for n in range(5)], 9)
    assert why(row, crowd=many).endswith("x (4) and 4 more.")
    nobody = Crowd("deploy", 9, [], 0)
    assert why(row, crowd=nobody).endswith("held by nobody any more.")


def test_a_member_that_waits_for_something_else_says_so_first():
    crowd = Crowd("deploy", 1, [("1", "build")], 1)
    row = task(status=P, group_key="deploy", unmet=1)
    assert ask(row, crowd=crowd).waiting_for is WaitingFor.DEPENDENCIES
    assert ask(task(group_key="deploy"), crowd=crowd).waiting_for is WaitingFor.AGENT
