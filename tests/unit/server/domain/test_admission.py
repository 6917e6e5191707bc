import pytest

from server.domain import admission
from server.domain.admission import SettleGroups, SettleSome
from server.domain.errors import Invalid
from server.domain.event import EventKind
from server.domain.group import Membership
from server.domain.lease import LeaseRef, VerdictAction
from server.domain.pruning import PruneRest, PruneTasks
from server.domain.submitting import CreateTask, DeleteTask, NewTask, RetryTask
from server.domain.task import TaskStatus
from tests.fakes.core import NAMESPACE, SPEC

P, Q, R = TaskStatus.PENDING, TaskStatus.QUEUED, TaskStatus.RUNNING
SUCCESS, FAILED, CANCELLED = TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.CANCELLED
ONE = Membership("deploy")
TWO = Membership("deploy", 2)
NEWEST = Membership("deploy", cancels_older=True)


def statuses(core, *task_ids):
    return [core.status(task_id) for task_id in task_ids]


def started(core, task_id):
    """Hand out what is ready, the task among it, and start it; return its lease."""
    (given,) = [given for given in core.claim(slots=9) if given.task_id == task_id]
    lease = LeaseRef(task_id, given.lease_id)
    core.report(lease, R)
    return lease


@pytest.fixture
def core(core):
    core.join("a", slots=9)
    return core


# ---- order


def test_only_as_many_as_the_limit_are_ready_and_the_others_wait(core):
    ids = [core.create(group=TWO) for _ in range(4)]
    assert statuses(core, *ids) == [Q, Q, P, P]
    assert [core.task(i).holds_place for i in ids] == [True, True, False, False]
    assert {given.task_id for given in core.claim(slots=9)} == set(ids[:2])


def test_the_next_is_ready_in_the_transaction_that_frees_the_place(core):
    first, second = core.create(group=ONE), core.create(group=ONE)
    lease = started(core, first)
    core.report(lease, SUCCESS)
    assert core.task(second).ready
    assert core.effects.ready_queues == {core.task(second).queue}
    told = core.events(EventKind.TASK_STATUS, second)
    assert [event.data["status"] for event in told] == [P, Q]


def test_places_go_by_priority_and_submission(core):
    first, plain, other = (core.create(group=ONE) for _ in range(3))
    core.clock.advance(1)
    urgent = core.create(group=ONE, priority=9)
    for task_id in (first, urgent, plain, other):
        assert statuses(core, task_id) == [Q]
        core.report(started(core, task_id), SUCCESS)


def test_a_place_is_asked_for_when_nothing_else_is_waited_for(core):
    need = core.create()
    waits = core.create(group=ONE, depends_on=(need,))
    other = core.create(group=ONE)
    assert statuses(core, waits, other) == [P, Q]
    core.report(started(core, need), SUCCESS)
    assert core.task(waits).awaits_place


@pytest.mark.parametrize("groups", [("a", "b"), ("a", None)])
def test_groups_do_not_hinder_each_other(core, groups):
    ids = [core.create(group=Membership(key) if key else None) for key in groups]
    assert statuses(core, *ids) == [Q, Q]


def test_groups_of_one_key_in_two_namespaces_are_two_groups(core):
    for namespace in ("one", "two"):
        new = NewTask("x", SPEC, group=ONE)
        core.do(CreateTask(namespace, f"in {namespace}", new, ""))
    assert statuses(core, "in one", "in two") == [Q, Q]


# ---- holding


def test_a_lost_member_keeps_its_place_while_it_is_queued_again(core):
    first, second = core.create(group=ONE), core.create(group=ONE)
    lease = started(core, first)
    core.lose()
    assert statuses(core, first, second) == [Q, P]
    assert core.hold(lease) == [VerdictAction.CONTINUE]
    assert statuses(core, first, second) == [R, P]


def test_a_member_that_waits_for_its_next_try_frees_its_place_and_queues_again_in_its_turn(core):
    first = core.create(group=ONE, retry_count=1)
    core.clock.advance(1)
    second, third = core.create(group=ONE), core.create(group=ONE)
    core.report(started(core, first), FAILED)
    assert statuses(core, first, second, third) == [P, Q, P]
    core.pass_time(core.policy.retry_backoff)
    assert core.task(first).awaits_place
    core.report(started(core, second), SUCCESS)
    assert statuses(core, first, third) == [Q, P]


def test_its_agent_stops_a_member_before_the_lease_ends(core):
    core.create(group=ONE)
    core.create()
    assert [given.stop_with_lease for given in core.claim(slots=2)] == [True, False]


def test_a_cancel_frees_the_place_only_when_the_agent_must_have_stopped(core):
    core.policy = type(core.policy)(kill_grace=1_000, deadline_slack=1_000, lease=30_000)
    first, second = core.create(group=ONE), core.create(group=ONE)
    started(core, first)
    core.cancel(first)
    core.pass_time(29_999)
    assert statuses(core, first, second) == [R, P]
    core.pass_time(1)
    assert statuses(core, first, second) == [CANCELLED, Q]


# ---- leaving


@pytest.mark.parametrize("leave", ["cancel", "delete", "timeout"])
def test_whoever_leaves_before_it_is_handed_out_frees_its_place(core, leave):
    first = core.create(group=ONE, schedule_to_start=1)
    second = core.create(group=ONE)
    if leave == "cancel":
        core.cancel(first)
    elif leave == "delete":
        core.do(DeleteTask(NAMESPACE, first))
    else:
        core.pass_time(1_000)
    assert statuses(core, second) == [Q]


def test_a_waiting_member_that_leaves_lets_the_others_wait(core):
    first, second, third = (core.create(group=ONE) for _ in range(3))
    core.cancel(second)
    assert statuses(core, first, second, third) == [Q, CANCELLED, P]


def test_a_waiting_member_ends_when_it_does_not_start_in_time(core):
    core.create(group=ONE)
    second = core.create(group=ONE, schedule_to_start=5)
    core.pass_time(5_000)
    assert statuses(core, second) == [TaskStatus.TIMEOUT]


# ---- the limit


def test_the_newest_limit_counts(core):
    ids = [core.create(group=ONE) for _ in range(3)]
    ids.append(core.create(group=Membership("deploy", 3)))
    assert statuses(core, *ids) == [Q, Q, Q, P]


def test_a_smaller_limit_takes_no_place_away(core):
    first, second, third = (core.create(group=TWO) for _ in range(3))
    fourth = core.create(group=ONE)
    assert statuses(core, first, second, third, fourth) == [Q, Q, P, P]
    core.cancel(first)
    assert statuses(core, second, third) == [Q, P]
    core.cancel(second)
    assert statuses(core, third, fourth) == [Q, P]


def test_a_retry_is_in_the_group_and_leaves_its_limit_alone(core):
    first = core.create(group=ONE)
    core.cancel(first)
    core.create(group=TWO)
    core.do(RetryTask(NAMESPACE, first, "again", ""))
    third = core.create(group=TWO)
    assert statuses(core, "again", third) == [Q, P]


# ---- cancelling older ones


def test_a_newcomer_cancels_what_waits_and_what_runs_and_takes_the_place(core):
    running, waiting = core.create(group=ONE), core.create(group=ONE)
    lease = started(core, running)
    newest = core.create(group=NEWEST)
    assert statuses(core, running, waiting, newest) == [R, CANCELLED, P]
    assert newest in core.task(waiting).error
    assert "deploy" in core.task(waiting).error
    assert core.report(lease, R) is VerdictAction.CANCEL
    core.report(lease, CANCELLED)
    assert statuses(core, running, newest) == [CANCELLED, Q]


def test_a_newcomer_that_finds_a_place_cancels_nobody(core):
    first = core.create(group=TWO)
    newest = core.create(group=Membership("deploy", 2, cancels_older=True))
    assert statuses(core, first, newest) == [Q, Q]


def test_of_several_newcomers_the_last_submitted_stays(core):
    running = core.create(group=ONE)
    lease = started(core, running)
    ids = [core.create(group=NEWEST) for _ in range(3)]
    assert statuses(core, *ids) == [CANCELLED, CANCELLED, P]
    core.report(lease, CANCELLED)
    assert statuses(core, ids[2]) == [Q]


def test_a_newcomer_leaves_those_alone_that_came_after_it(core):
    need = core.create()
    early = core.create(group=NEWEST, depends_on=(need,))
    core.clock.advance(1)
    late = core.create(group=ONE)
    core.report(started(core, need), SUCCESS)
    assert statuses(core, early, late) == [P, Q]


def test_a_newcomer_cancels_an_older_one_that_waits_for_its_next_try(core):
    first = core.create(group=ONE, retry_count=1)
    core.report(started(core, first), FAILED)
    blocker = core.create(group=ONE)
    newest = core.create(group=NEWEST)
    assert statuses(core, first, blocker, newest) == [CANCELLED, CANCELLED, Q]


def test_submitted_together_the_last_cancels_the_others(core):
    ids = [f"n{n}" for n in range(3)]
    new = NewTask("x", SPEC, group=NEWEST)
    core.batch(*(CreateTask(NAMESPACE, i, new, "") for i in ids))
    assert statuses(core, *ids) == [CANCELLED, CANCELLED, Q]


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(admission, "CANCEL_STEP", 3)


def worked_off(core):
    """Do what transactions leave for later; return how many transactions that took."""
    steps = 0
    while core.effects.unsettled:
        core.do(SettleSome(tuple(sorted(core.effects.unsettled))))
        steps += 1
    return steps


def test_many_older_ones_are_cancelled_in_steps_and_what_runs_first(core, small_steps):
    waiting = [core.create(group=ONE) for _ in range(8)]
    lease = started(core, waiting[0])
    newest = core.create(group=NEWEST)
    assert statuses(core, *waiting) == [R, CANCELLED, CANCELLED, P, P, P, P, P]
    assert core.report(lease, R) is VerdictAction.CANCEL
    core.effects.unsettled.add((NAMESPACE, "deploy"))
    assert worked_off(core) == 2
    assert statuses(core, *waiting, newest) == [R, *[CANCELLED] * 7, P]
    core.report(lease, CANCELLED)
    assert statuses(core, newest) == [Q]


def test_a_place_that_is_free_meanwhile_goes_to_nobody_who_is_to_be_cancelled(core, small_steps):
    waiting = [core.create(group=ONE) for _ in range(8)]
    lease = started(core, waiting[0])
    newest = core.create(group=NEWEST)
    core.report(lease, CANCELLED)  # frees the place, and takes another step
    assert statuses(core, *waiting, newest) == [*[CANCELLED] * 6, P, P, P]
    assert worked_off(core) == 1
    assert statuses(core, *waiting, newest) == [*[CANCELLED] * 8, Q]


def test_the_steps_of_all_groups_in_a_transaction_count_together(core, small_steps):
    for key in "ab":
        for _ in range(3):
            core.create(group=Membership(key))
    newest = Membership("a", cancels_older=True), Membership("b", cancels_older=True)
    new = [NewTask("x", SPEC, group=group) for group in newest]
    core.batch(*(CreateTask(NAMESPACE, f"n{n}", each, "") for n, each in enumerate(new)))
    ended = [task for task in core.tables.tasks.values() if task.status is CANCELLED]
    assert len(ended) == 3
    assert worked_off(core) == 1
    assert statuses(core, "n0", "n1") == [Q, Q]


# ---- left over


def test_a_sweep_finds_whoever_was_left_waiting(core):
    first, second = core.create(group=ONE), core.create(group=ONE)
    row = core.tables.tasks[core.task(first).key]
    row.status, row.finished_at = SUCCESS, 1
    assert core.do(SettleGroups()) is None
    assert statuses(core, second) == [Q]


def test_a_sweep_goes_on_in_steps(core):
    for n in range(150):
        for _ in range(2):
            core.create(group=Membership(f"g{n:03}"))
    assert core.do(SettleGroups()) == (NAMESPACE, "g099")
    assert core.do(SettleGroups((NAMESPACE, "g099"))) is None


def test_a_group_goes_with_its_last_task(core):
    first = core.create(group=ONE)
    prune = PruneRest(0, 0, 0)
    core.do(prune)
    assert core.tables.groups == {(NAMESPACE, "deploy"): 1}
    core.cancel(first)
    core.do(PruneTasks(core.clock.now() + 1))
    core.do(prune)
    assert core.tables.groups == {}


# ---- malformed


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (Membership("a b:c"), []),
        (Membership(""), ["concurrency.key"]),
        (Membership("x" * 129), ["concurrency.key"]),
        (Membership("x" * 300), ["concurrency.key"]),
        (Membership("a\0"), ["concurrency.key"]),
        (Membership("a\n", 0), ["concurrency.key", "concurrency.limit"]),
        (Membership("a", 10_001), ["concurrency.limit"]),
    ],
)
def test_each_bad_field_of_a_group_is_named_by_its_path(group, expected):
    found = []
    try:
        NewTask("n", SPEC, group=group).check()
    except Invalid as error:
        found = [violation.field for violation in error.violations]
    assert found == expected
