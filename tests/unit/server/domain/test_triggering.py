import pytest

from server.domain.defining import CreatePipeline, Description
from server.domain.errors import AlreadyExists, Invalid, NotFound
from server.domain.event import EventKind
from server.domain.lease import LeaseRef
from server.domain.pipeline import Definition
from server.domain.run import RunStatus
from server.domain.submitting import Idempotency
from server.domain.task import TaskSpec, TaskStatus
from server.domain.triggering import Trigger, TriggerPipeline
from tests.fakes.core import NAMESPACE, job, needs, parallel, serial

RUN = "00000000-0000-7000-8000-00ff00000000"


def work(core, status=TaskStatus.SUCCESS):
    """Run the next ready task to its end; return its name."""
    (given,) = core.claim()
    core.report(LeaseRef(given.task_id, given.lease_id), status)
    return given.name


def test_a_name_is_given_once_in_a_namespace(core):
    definition = Definition((serial("s", job("a")),))
    core.do(CreatePipeline(NAMESPACE, "p1", Description("build", definition)))
    with pytest.raises(AlreadyExists):
        core.do(CreatePipeline(NAMESPACE, "p2", Description("build", definition)))
    core.do(CreatePipeline("other", "p3", Description("build", definition)))
    assert core.do(CreatePipeline(NAMESPACE, "p1", Description("build", definition))) == "p1"
    assert len(core.events(EventKind.PIPELINE_CREATED)) == 2


def test_a_run_has_a_task_for_each_job_in_order(core):
    pipeline = core.pipeline(serial("one", job("a"), job("b")), parallel("two", job("c")))
    run_id, tasks = core.trigger(pipeline)
    rows = [core.task(task_id) for task_id in tasks]
    assert [(t.name, t.stage, t.position, t.unmet) for t in rows] == [
        ("a", 1, 0, 0),
        ("b", 1, 1, 1),
        ("c", 2, 2, 1),
    ]
    assert {(t.run_id, t.pipeline_id) for t in rows} == {(run_id, pipeline)}
    run = core.run(run_id)
    assert (run.number, run.total, run.stages) == (1, 3, ["one", "two"])


def test_a_run_goes_through_its_stages(core):
    pipeline = core.pipeline(parallel("one", job("a"), job("b")), serial("two", job("c")))
    run_id, _ = core.trigger(pipeline)
    assert core.run(run_id).status is RunStatus.PENDING
    order = [work(core) for _ in range(3)]
    assert (set(order[:2]), order[2]) == ({"a", "b"}, "c")
    run = core.run(run_id)
    assert (run.status, run.ended) == (RunStatus.SUCCESS, 3)
    told = [event.data["status"] for event in core.events(EventKind.RUN_STATUS, run_id)]
    assert told == [RunStatus.PENDING, RunStatus.RUNNING, RunStatus.SUCCESS]


def test_a_failed_job_fails_the_run_and_skips_the_rest(core):
    run_id, tasks = core.trigger(core.pipeline(serial("s", job("a"), job("b"), job("c"))))
    work(core, TaskStatus.FAILED)
    assert [core.status(t) for t in tasks[1:]] == [TaskStatus.SKIPPED] * 2
    run = core.run(run_id)
    assert (run.status, run.failed, run.skipped) == (RunStatus.FAILED, 1, 2)
    assert run.finished_at == core.clock.now()


def test_an_allowed_failure_makes_the_run_partial(core):
    run_id, _ = core.trigger(core.pipeline(serial("s", job("a", allow_failure=True), job("b"))))
    work(core, TaskStatus.FAILED)
    work(core)
    assert core.run(run_id).status is RunStatus.PARTIAL


def test_a_retried_job_does_not_end_the_run(core):
    run_id, _ = core.trigger(core.pipeline(serial("s", job("a", retry=1))))
    work(core, TaskStatus.FAILED)
    assert core.run(run_id).status is RunStatus.RUNNING
    core.pass_time(core.policy.retry_backoff)
    work(core)
    assert core.run(run_id).status is RunStatus.SUCCESS


def test_a_pipeline_shows_the_status_of_its_last_run(core):
    pipeline_id = core.pipeline(serial("s", job("a")))
    core.trigger(pipeline_id)
    core.trigger(pipeline_id)
    work(core, TaskStatus.FAILED)
    (pipeline,) = core.tables.pipelines.values()
    assert (pipeline.runs, pipeline.last_status) == (2, RunStatus.PENDING)
    work(core)
    (pipeline,) = core.tables.pipelines.values()
    assert pipeline.last_status == RunStatus.SUCCESS


def test_the_triggers_environment_wins_over_the_jobs_and_that_over_the_pipelines(core):
    stages = serial("s", job("a", env={"B": "job", "C": "job"}))
    pipeline = core.pipeline(stages, env={"A": "all", "B": "all", "C": "all"})
    _, (task_id,) = core.trigger(pipeline, env={"C": "trigger"})
    env = TaskSpec.from_json(core.task(task_id).spec).env
    assert {name: env[name] for name in "ABC"} == {"A": "all", "B": "job", "C": "trigger"}


def test_jobs_are_told_about_their_run(core):
    stage = serial("s", job("a"))
    pipeline = core.pipeline(stage, repo_url="https://example.com/r.git", branch="dev")
    _, (task_id,) = core.trigger(pipeline, commit_sha="abc")
    env = TaskSpec.from_json(core.task(task_id).spec).env
    assert env == {
        "MUSTER_PIPELINE_ID": pipeline,
        "MUSTER_RUN_NUMBER": "1",
        "MUSTER_BRANCH": "dev",
        "MUSTER_COMMIT": "abc",
        "MUSTER_REPO_URL": "https://example.com/r.git",
    }
    assert TaskSpec.from_json(core.task(task_id).spec).checkout


def test_a_repository_is_checked_out_where_there_is_one_and_the_job_wants_it(core):
    for repo_url, wanted, checked_out in (("", True, False), ("file:///r", False, False)):
        stage = serial("s", job("a", checkout=wanted))
        pipeline = core.pipeline(stage, name=f"p{repo_url}", repo_url=repo_url)
        _, (task_id,) = core.trigger(pipeline)
        assert TaskSpec.from_json(core.task(task_id).spec).checkout is checked_out


def test_a_job_carries_its_settings_over_to_its_task(core):
    limits = {"timeout": 9, "retry": 2, "priority": 7}
    stage = serial("s", job("a", allow_failure=True, selector=needs(os="x"), **limits))
    _, (task_id,) = core.trigger(core.pipeline(stage))
    task = core.task(task_id)
    assert (task.timeout, task.retry_limit, task.allow_failure) == (9000, 2, True)
    assert task.priority == 7
    assert "os" in core.tables.classes[task.class_key]


def test_a_repeated_trigger_gets_the_first_answer(core):
    pipeline = core.pipeline(serial("s", job("a")))
    key = Idempotency("me", "r", "b")
    first = core.do(TriggerPipeline(NAMESPACE, pipeline, RUN, Trigger(), key))
    other = RUN.replace("ff", "fe")
    assert core.do(TriggerPipeline(NAMESPACE, pipeline, other, Trigger(), key)) == first
    assert len(core.tables.runs) == 1


def test_a_pipeline_of_another_namespace_is_not_found(core):
    pipeline = core.pipeline(serial("s", job("a")))
    with pytest.raises(NotFound):
        core.do(TriggerPipeline("other", pipeline, RUN, Trigger()))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"name": ""}, ["name"]),
        ({"description": "x" * 16_385}, ["description"]),
        ({"cron": "a\n"}, ["cron"]),
        ({"definition": Definition((), branch="")}, ["branch", "stages"]),
        ({"definition": Definition((serial("s", job("a")),), repo_url="\0")}, ["repo_url"]),
    ],
)
def test_each_bad_field_of_a_pipeline_is_named_by_its_path(fields, expected):
    good = {"name": "n", "definition": Definition((serial("s", job("a")),))}
    found = []
    try:
        created_by = fields.pop("created_by", "")
        CreatePipeline(NAMESPACE, "p", Description(**{**good, **fields}), created_by).check()
    except Invalid as error:
        found = [violation.field for violation in error.violations]
    assert found == expected


@pytest.mark.parametrize(
    ("fields", "bad"),
    [({"branch": "\n"}, "branch"), ({"env": {"MUSTER_X": ""}}, "MUSTER_X")],
)
def test_a_malformed_trigger_is_refused(fields, bad):
    Trigger().check()
    with pytest.raises(Invalid, match=bad):
        Trigger(**fields).check()
