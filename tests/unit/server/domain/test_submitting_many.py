import pytest

from server.domain.errors import Invalid, RequestIdReused
from server.domain.submitting import Idempotency, NewTask
from server.domain.submitting_many import CreateTasks, check_batch
from server.domain.task import TaskStatus
from tests.fakes.core import NAMESPACE, SPEC


def task(name, *depends_on, key=None, **chosen):
    return NewTask(name, SPEC, depends_on=depends_on, key=name if key is None else key, **chosen)


def many(*tasks, prefix="t", idempotency=None):
    ids = tuple(f"{prefix}-{each.name}" for each in tasks)
    return CreateTasks(NAMESPACE, ids, tasks, "tester", idempotency)


def test_tasks_are_handed_out_in_the_order_given(core):
    core.join("a", slots=5)
    ids = core.do(many(*(task(name) for name in "edcba")))
    assert [given.task_id for given in core.claim(slots=5)] == ids


def test_tasks_wait_for_each_other_by_key_whatever_their_order(core):
    core.do(many(task("last", "middle", "first"), task("middle", "first"), task("first")))
    assert core.task("t-first").ready
    assert core.task("t-middle").unmet == 1
    assert core.task("t-last").unmet == 2


def test_tasks_wait_for_tasks_of_earlier_calls(core):
    early = core.create()
    core.do(many(task("a", early), task("b", "a")))
    core.cancel(early)
    assert core.status("t-a") is core.status("t-b") is TaskStatus.SKIPPED


def test_what_waits_for_a_spoiled_task_is_skipped_at_once(core):
    early = core.create()
    core.cancel(early)
    core.do(many(task("b", "a"), task("a", early)))
    assert core.status("t-a") is core.status("t-b") is TaskStatus.SKIPPED


def test_a_key_counts_before_an_id(core):
    core.create("a")
    core.do(many(task("a"), task("b", "a")))
    assert core.tables.dependencies == {(core.task("t-b").key, core.task("t-a").key)}


def test_none_is_submitted_when_one_names_what_nobody_knows(core):
    with pytest.raises(Invalid) as refused:
        core.do(many(task("a"), task("b", "a", "nobody"), task("c", pipeline_id="none")))
    fields = [violation.field for violation in refused.value.violations]
    assert fields == ["tasks[1].depends_on[1]", "tasks[2].pipeline_id"]
    assert not core.tables.tasks


def test_tasks_of_another_namespace_are_unknown(core):
    early = core.create()
    command = CreateTasks("elsewhere", ("x",), (task("a", early),), "tester")
    with pytest.raises(Invalid):
        core.do(command)


def test_the_same_request_id_returns_the_first_answer(core):
    first = core.do(many(task("a"), task("b"), idempotency=Idempotency("me", "r", "body")))
    again = many(task("a"), task("b"), prefix="u", idempotency=Idempotency("me", "r", "body"))
    assert core.do(again) == first
    assert len(core.tables.tasks) == 2
    with pytest.raises(RequestIdReused):
        core.do(many(task("a"), prefix="v", idempotency=Idempotency("me", "r", "other")))


@pytest.mark.parametrize(
    ("tasks", "field"),
    [
        ([task("a", "b"), task("b", "a")], "tasks"),
        ([task("a", "a")], "tasks"),
        ([task("a"), task("b", key="a")], "tasks[1].key"),
        ([task("a", key="k" * 129)], "tasks[0].key"),
        ([task("a", key="k" * 300)], "tasks[0].key"),
        ([task("a", key="\n")], "tasks[0].key"),
    ],
)
def test_keys_are_checked(tasks, field):
    with pytest.raises(Invalid) as refused:
        check_batch(tasks)
    assert [violation.field for violation in refused.value.violations] == [field]
