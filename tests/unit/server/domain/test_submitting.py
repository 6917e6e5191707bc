import pytest

from server.domain.canceling import CancelTask
from server.domain.errors import Invalid, NotFound, RequestIdReused, WrongState
from server.domain.event import EventKind
from server.domain.labels import Operator, Requirement, Selector
from server.domain.lease import LeaseRef
from server.domain.submitting import (
    CONTAINER_LABEL,
    CreateTask,
    DeleteTask,
    Idempotency,
    NewTask,
    RetryTask,
    UpdateTask,
    task_class,
)
from server.domain.task import ArtifactSpec, TaskSpec, TaskStatus
from tests.fakes.core import NAMESPACE, SPEC, job, parallel

P, Q = TaskStatus.PENDING, TaskStatus.QUEUED


def end(core, task_id, status):
    """Run a ready task to its end."""
    (given,) = core.claim()
    assert given.task_id == task_id
    core.report(LeaseRef(task_id, given.lease_id), status)


# ---- dependencies


def test_a_task_without_needs_is_ready_at_once(core):
    task_id = core.create()
    assert core.task(task_id).ready
    assert core.effects.ready_queues == {core.task(task_id).queue}


def test_a_task_waits_until_all_it_needs_has_gone_well(core):
    first, second = core.create(), core.create()
    third = core.create(depends_on=(first, second, first))
    assert (core.status(third), core.task(third).unmet) == (P, 2)
    end(core, first, TaskStatus.SUCCESS)
    assert (core.status(third), core.task(third).unmet) == (P, 1)
    end(core, second, TaskStatus.SUCCESS)
    assert core.task(third).ready


def test_needs_that_have_ended_well_are_met_already(core):
    first = core.create()
    end(core, first, TaskStatus.SUCCESS)
    assert core.task(core.create(depends_on=(first,))).ready


@pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.TIMEOUT])
def test_a_failure_skips_what_depends_on_it_transitively(core, status):
    first = core.create()
    second = core.create(depends_on=(first,))
    third = core.create(depends_on=(second,))
    end(core, first, status)
    assert core.status(second) is core.status(third) is TaskStatus.SKIPPED
    assert core.task(second).error == f"{first} ended in {status.name}"
    late = core.create(depends_on=(third,))
    assert core.status(late) is TaskStatus.SKIPPED


def test_a_failure_that_is_allowed_lets_others_go_on(core):
    first = core.create(allow_failure=True)
    second = core.create(depends_on=(first,))
    end(core, first, TaskStatus.FAILED)
    assert core.task(second).ready
    assert core.task(core.create(depends_on=(first,))).ready


def test_a_deep_chain_of_skips_is_one_sweep(core):
    """Deeper than Python would recurse."""
    links = [("0", ()), *((str(n), (str(n - 1),)) for n in range(1, 1200))]
    core.batch(*(CreateTask(NAMESPACE, n, NewTask(n, SPEC, depends_on=on), "") for n, on in links))
    core.cancel("0")
    ends = [task.status for task in core.tables.tasks.values()]
    assert ends == [TaskStatus.CANCELLED] + [TaskStatus.SKIPPED] * 1199


def test_a_need_that_does_not_exist_is_refused_by_its_path(core):
    first = core.create()
    with pytest.raises(Invalid) as caught:
        core.create(depends_on=(first, "nobody", "nothing"))
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["depends_on[1]", "depends_on[2]"]
    assert len(core.tables.tasks) == 1


def test_a_need_of_another_namespace_does_not_exist(core):
    first = core.create()
    command = CreateTask("other", "x", NewTask("x", SPEC, depends_on=(first,)), "")
    with pytest.raises(Invalid, match=r"depends_on\[0\]"):
        core.do(command)


def test_tasks_of_one_batch_may_depend_on_each_other(core):
    first = CreateTask(NAMESPACE, "x", NewTask("x", SPEC), "")
    second = CreateTask(NAMESPACE, "y", NewTask("y", SPEC, depends_on=("x",)), "")
    assert core.batch(first, second, CancelTask(NAMESPACE, "x")) == ["x", "y", True]
    assert core.status("y") is TaskStatus.SKIPPED


def test_a_pipeline_that_does_not_exist_is_refused(core):
    with pytest.raises(Invalid, match="pipeline_id"):
        core.create(pipeline_id="nobody")


# ---- names and classes


@pytest.mark.parametrize(
    ("name", "commands", "expected"),
    [
        ("given", ("make",), "given"),
        ("", ("  make all\nmake test",), "make all"),
        ("", ("x" * 99,), "x" * 80),
    ],
)
def test_a_task_without_a_name_is_called_by_its_first_command(core, name, commands, expected):
    task_id = core.create("t", name=name, spec=TaskSpec(commands))
    assert core.task(task_id).name == expected


def test_selectors_that_differ_only_in_order_are_one_class():
    one = Requirement("a", Operator.IN, ("1", "2"))
    two = Requirement("b", Operator.EXISTS)
    other = Requirement("a", Operator.IN, ("2", "1", "2"))
    first = task_class(Selector.of({"x": "1", "y": "2"}, one, two), "")
    again = task_class(Selector.of({"y": "2", "x": "1"}, two, other), "")
    assert first == again
    assert first.key != task_class(Selector.of({}), "").key


def test_an_image_waits_for_an_agent_that_runs_images():
    needs = task_class(Selector.of({"x": "1"}), "debian:13")
    selector = Selector.from_canonical(needs.canonical)
    assert not selector.matches({"x": "1"})
    assert selector.matches({"x": "1", CONTAINER_LABEL: "true"})


# ---- the same request again


def submit(core, task_id, *, caller="me", request_id="r", body="b"):
    key = Idempotency(caller, request_id, body)
    return core.do(CreateTask(NAMESPACE, task_id, NewTask("x", SPEC), "", key))


def test_a_repeated_request_gets_the_first_answer(core):
    assert submit(core, "one") == "one"
    assert submit(core, "two") == "one"
    assert len(core.tables.tasks) == 1


def test_a_repeated_request_in_the_same_batch_too(core):
    key = Idempotency("me", "r", "b")
    commands = [CreateTask(NAMESPACE, n, NewTask("x", SPEC), "", key) for n in ("one", "two")]
    assert core.batch(*commands) == ["one", "one"]


def test_another_request_under_the_same_id_is_refused(core):
    submit(core, "one")
    with pytest.raises(RequestIdReused):
        submit(core, "two", body="other")


def test_request_ids_are_each_callers_own_and_forgotten_after_a_day(core):
    submit(core, "one")
    assert submit(core, "two", caller="you") == "two"
    core.clock.advance(core.policy.request_memory)
    assert submit(core, "three", body="other") == "three"


def test_a_command_decided_again_after_a_lost_answer_makes_nothing_twice(core):
    command = CreateTask(NAMESPACE, "one", NewTask("x", SPEC), "")
    assert [core.do(command), core.do(command)] == ["one", "one"]
    core.cancel("one")
    again = RetryTask(NAMESPACE, "one", "two", "")
    assert [core.do(again), core.do(again)] == ["two", "two"]
    assert len(core.tables.tasks) == 2


# ---- changing


def test_a_waiting_task_can_be_changed_field_by_field(core):
    spec = TaskSpec(("a",), env={"A": "1"}, image="", workspace="w")
    task_id = core.create(spec=spec)
    core.do(UpdateTask(NAMESPACE, task_id, commands=("b",)))
    core.do(UpdateTask(NAMESPACE, task_id, name="n", env={}, timeout=7))
    task = core.task(task_id)
    assert TaskSpec.from_json(task.spec) == TaskSpec(("b",), env={}, workspace="w")
    assert (task.name, task.timeout) == ("n", 7000)


def test_a_change_back_to_the_defaults(core):
    task_id = core.create(name="n", timeout=7)
    core.do(UpdateTask(NAMESPACE, task_id, name="", timeout=0))
    assert (core.task(task_id).name, core.task(task_id).timeout) == ("true", 3_600_000)


@pytest.mark.parametrize("state", ["leased", "running", "ended"])
def test_a_task_that_was_handed_out_or_has_ended_cannot_be_changed(core, state):
    task_id, lease = core.leased()
    if state != "leased":
        core.report(lease, TaskStatus.RUNNING)
    if state == "ended":
        core.report(lease, TaskStatus.SUCCESS)
    with pytest.raises(WrongState):
        core.do(UpdateTask(NAMESPACE, task_id, name="n"))


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"name": "a\n"}, "name"),
        ({"commands": ()}, "commands"),
        ({"env": {"9": ""}}, r"env\[9\]"),
        ({"timeout": -1}, "timeout"),
    ],
)
def test_a_malformed_change_is_refused_by_its_path(fields, bad):
    with pytest.raises(Invalid, match=bad):
        UpdateTask(NAMESPACE, "t", **fields).check()


# ---- deleting


def test_a_waiting_or_ended_task_is_deleted_with_all_of_its_own(core):
    waiting = core.create()
    core.do(DeleteTask(NAMESPACE, waiting))
    ended, lease = core.running()
    core.append(lease, 1, ["line"])
    core.report(lease, TaskStatus.SUCCESS)
    core.do(DeleteTask(NAMESPACE, ended))
    tables = core.tables
    assert (tables.tasks, tables.attempts, tables.logs) == ({}, {}, {})
    assert len(core.events(EventKind.TASK_DELETED)) == 2


def test_a_leased_task_is_not_deleted(core):
    task_id, _ = core.leased()
    with pytest.raises(WrongState, match="cancel it first"):
        core.do(DeleteTask(NAMESPACE, task_id))


def test_a_task_others_wait_for_is_not_deleted(core):
    first = core.create()
    second = core.create(depends_on=(first,))
    with pytest.raises(WrongState, match=second):
        core.do(DeleteTask(NAMESPACE, first))
    core.cancel(second)
    core.do(DeleteTask(NAMESPACE, first))


def test_a_task_of_an_active_run_is_not_deleted(core):
    run_id, (task_id,) = core.trigger(core.pipeline(parallel("p", job("a"))))
    with pytest.raises(WrongState, match=run_id):
        core.do(DeleteTask(NAMESPACE, task_id))
    core.cancel(task_id)
    core.do(DeleteTask(NAMESPACE, task_id))


def test_what_was_deleted_is_gone_for_the_rest_of_its_batch(core):
    """A row read again before it is really deleted would come back to life."""
    task_id = core.create()
    gone = DeleteTask(NAMESPACE, task_id)
    after = NewTask("x", SPEC, depends_on=(task_id,))
    answers = core.batch(
        gone,
        gone,
        CancelTask(NAMESPACE, task_id),
        RetryTask(NAMESPACE, task_id, "again", ""),
        CreateTask(NAMESPACE, "after", after, ""),
    )
    assert [type(answer) for answer in answers] == [
        type(None),
        NotFound,
        NotFound,
        NotFound,
        Invalid,
    ]
    assert core.tables.tasks == {}
    assert len(core.events(EventKind.TASK_STATUS)) == 1


# ---- again


def test_a_retry_is_a_new_task_equal_to_the_ended_one(core):
    chosen = {"priority": 7, "schedule_to_start": 30, "retry_on_lost": False}
    old = core.create(retry_count=2, allow_failure=True, stage=3, timeout=9, **chosen)
    core.clock.advance(1_000)
    core.cancel(old)
    core.do(RetryTask(NAMESPACE, old, "new", "somebody"))
    before, after = core.task(old), core.task("new")
    same = ("spec", "class_key", "timeout", "stage", "retry_limit", "allow_failure", "name")
    assert [getattr(before, n) for n in same] == [getattr(after, n) for n in same]
    assert (after.retry_of, after.created_by, after.retry_on_lost) == (old, "somebody", False)
    assert after.ready
    assert (after.priority, after.sort_key) == (7, core.clock.now() - 7 * 600_000)
    assert after.start_by == core.clock.now() + 30_000
    assert (after.run_key, after.attempt) == (None, 0)


def test_a_task_that_has_not_ended_is_not_retried(core):
    task_id = core.create()
    with pytest.raises(WrongState, match="not ended"):
        core.do(RetryTask(NAMESPACE, task_id, "new", ""))


# ---- malformed tasks


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"name": ""}, []),
        ({"name": "a\0"}, ["name"]),
        ({"stage": -1, "timeout": 2**63, "retry_count": 101}, ["stage", "timeout", "retry_count"]),
        ({"timeout": -1}, ["timeout"]),
        ({"priority": 10, "schedule_to_start": -1}, ["priority", "schedule_to_start"]),
        ({"priority": -1, "schedule_to_start": 2**31}, ["priority", "schedule_to_start"]),
        ({"spec": TaskSpec(())}, ["commands"]),
        ({"spec": TaskSpec(("a", " "), executor="bash")}, ["commands[1]", "executor"]),
        (
            {"spec": TaskSpec(("a",), workspace="../x", labels={"-": ""})},
            ["workspace", "labels[-]"],
        ),
        (
            {"spec": TaskSpec(("a",), artifacts=(ArtifactSpec("", "", "/x", expire_days=-1),))},
            [f"artifacts[0].{name}" for name in ("name", "path", "destination", "expire_days")],
        ),
        ({"depends_on": ("a", "", "b\n")}, ["depends_on[1]", "depends_on[2]"]),
        ({"depends_on": tuple(map(str, range(1001)))}, ["depends_on"]),
        (
            {"selector": Selector.of({}, Requirement("a", Operator.GT, ("x",)))},
            ["label_selector.match_expressions[0].values"],
        ),
    ],
)
def test_each_bad_field_of_a_task_is_named_by_its_path(fields, expected):
    new = NewTask(**{"name": "n", "spec": SPEC, **fields})
    found = []
    try:
        new.check()
    except Invalid as error:
        found = [violation.field for violation in error.violations]
    assert found == expected
