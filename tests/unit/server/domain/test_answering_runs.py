"""People approve, runs are done again, jobs add jobs, pipelines get other definitions."""

import pytest

from server.domain.approving import AnswerApproval
from server.domain.canceling import StopPipeline
from server.domain.defining import CreatePipeline, DeletePipeline, Description, UpdatePipeline
from server.domain.errors import AlreadyExists, Invalid, NotAsked, NotFound, WrongState
from server.domain.event import EventKind
from server.domain.extending import AddJobs
from server.domain.lease import LeaseRef
from server.domain.pipeline import Approval, Definition, Input, Job
from server.domain.retrying import RetryRun, RetryScope
from server.domain.run import RunStatus
from server.domain.submitting import Idempotency
from server.domain.task import TaskSpec, TaskStatus
from server.domain.waiting import WaitingFor
from tests.fakes.core import NAMESPACE, job, parallel, serial
from tests.unit.server.domain.test_moving_runs import end_one, ended, run_to_end

SHIP = Job("ship?", approval=Approval(("olga", "operator"), 3600, "Ship it?"))


def answer(core, run_id, *, approve=True, asked="", by="olga", known_as=("olga",), comment=""):
    known = None if known_as is None else frozenset(known_as)
    return core.do(AnswerApproval(NAMESPACE, run_id, asked, approve, by, known, comment))


# ---- approvals


def test_what_waits_for_an_approval_goes_on_when_it_is_given(core):
    run_id, tasks = core.trigger(core.pipeline(serial("s", job("a"), SHIP, job("b"))))
    with pytest.raises(WrongState, match="asks for none"):
        answer(core, run_id)
    run_to_end(core, tasks)
    assert ended(core, tasks) == ["SUCCESS", "PENDING", "PENDING"]
    explanation = core.explain(tasks[1])
    assert explanation.waiting_for is WaitingFor.APPROVAL
    assert "approval of olga, operator: muster run approve" in explanation.sentence
    assert "Ship it?" in explanation.sentence
    assert answer(core, run_id, comment="go") == tasks[1]
    answer(core, run_id, asked="ship?")  # again is fine
    (told,) = core.events(EventKind.APPROVAL_GIVEN)
    assert (told.data["answered_by"], told.data["comment"]) == ("olga", "go")
    run_to_end(core, tasks)
    assert core.run(run_id).status is RunStatus.SUCCESS


def test_a_rejected_run_fails_and_says_who_and_why(core):
    run_id, tasks = core.trigger(core.pipeline(serial("s", SHIP, job("b"))))
    answer(core, run_id, approve=False, comment="not today")
    assert ended(core, tasks) == ["FAILED", "SKIPPED"]
    assert core.task(tasks[0]).error == "rejected by olga: not today"
    with pytest.raises(WrongState, match="has ended in FAILED"):
        answer(core, run_id, asked="ship?")


def test_only_those_who_are_asked_may_answer_unless_nobody_is_known(core):
    made = core.pipeline(serial("s", SHIP))
    run_id, _ = core.trigger(made)
    with pytest.raises(NotAsked, match="it asks olga, operator"):
        answer(core, run_id, by="max", known_as=("max", "viewer"))
    answer(core, run_id, by="max", known_as=("max", "operator"))
    run_id, _ = core.trigger(made)
    answer(core, run_id, by="anonymous", known_as=None)
    with pytest.raises(NotFound):
        answer(core, run_id, asked="nothing")


def test_an_approval_that_nobody_gives_runs_out_of_time(core):
    run_id, tasks = core.trigger(core.pipeline(serial("s", SHIP, job("b"))))
    core.pass_time(3600 * 1000 - 1)
    assert ended(core, tasks) == ["PENDING", "PENDING"]
    core.pass_time(1)
    assert ended(core, tasks) == ["TIMEOUT", "SKIPPED"]
    assert core.task(tasks[0]).error == "nobody answered in time"
    assert core.run(run_id).status is RunStatus.FAILED


def test_of_several_approvals_one_must_be_named(core):
    other = Job("other?", approval=Approval(("olga",)))
    run_id, tasks = core.trigger(core.pipeline(parallel("s", SHIP, other)))
    with pytest.raises(WrongState, match="'ship\\?', 'other\\?'"):
        answer(core, run_id)
    answer(core, run_id, asked=tasks[1])
    answer(core, run_id)
    assert core.run(run_id).status is RunStatus.SUCCESS


# ---- retries


def retry(core, run_id, scope, from_job="", new_id="00000000-0000-7000-8000-00000000ffff"):
    return core.do(RetryRun(NAMESPACE, run_id, new_id, scope, from_job, "again"))


def test_a_retry_of_what_failed_takes_over_what_succeeded(core):
    stages = (parallel("one", job("a"), job("b")), serial("two", job("c", "a")))
    run_id, tasks = core.trigger(core.pipeline(*stages), env={"X": "1"}, branch="dev")
    run_to_end(core, tasks, fails={"b"})
    assert ended(core, tasks) == ["SUCCESS", "FAILED", "SKIPPED"]
    new_id, *again = retry(core, run_id, RetryScope.FAILED)
    assert ended(core, again) == ["SUCCESS", "QUEUED", "PENDING"]
    assert core.task(again[0]).retry_of == tasks[0]
    assert TaskSpec.from_json(core.task(again[1]).spec).env["X"] == "1"
    run_to_end(core, again)
    run = core.run(new_id)
    assert (run.status, run.ended, run.retry_of, run.branch) == (
        RunStatus.SUCCESS,
        3,
        run_id,
        "dev",
    )


def test_a_retry_goes_by_the_version_of_its_run(core):
    made = core.pipeline(serial("s", job("a"), job("b")))
    run_id, tasks = core.trigger(made)
    run_to_end(core, tasks, fails={"a"})
    wanted = Description("build", Definition((serial("s", job("z")),)))
    assert core.do(UpdatePipeline(NAMESPACE, made, wanted)) == 2
    _, *again = retry(core, run_id, RetryScope.ALL)
    assert [core.task(task).name for task in again] == ["a", "b"]


def test_a_retry_from_a_job_does_it_and_what_waits_for_it_again(core):
    first = [job(f"a{n}") for n in range(9)]
    second = [job(f"b{n}") for n in range(9)]
    run_id, tasks = core.trigger(core.pipeline(parallel("one", *first), parallel("two", *second)))
    run_to_end(core, tasks)
    _, *again = retry(core, run_id, RetryScope.FROM_JOB, "a3")
    assert ended(core, again) == ["SUCCESS"] * 3 + ["QUEUED"] + ["SUCCESS"] * 5 + ["PENDING"] * 9
    run_to_end(core, again)
    assert set(ended(core, again)) == {"SUCCESS"}


def test_a_retry_with_nothing_to_do_or_of_an_active_run_is_refused(core):
    run_id, tasks = core.trigger(core.pipeline(serial("s", job("a"))))
    with pytest.raises(WrongState, match="has not ended"):
        retry(core, run_id, RetryScope.ALL)
    run_to_end(core, tasks)
    with pytest.raises(WrongState, match="nothing to do again"):
        retry(core, run_id, RetryScope.FAILED)
    with pytest.raises(Invalid, match="no job 'x'"):
        retry(core, run_id, RetryScope.FROM_JOB, "x")


# ---- jobs that are added


def adding(run_id, *stages, by="", key=None):
    return AddJobs(NAMESPACE, run_id, Definition(stages), by, key)


def test_added_jobs_come_after_the_job_that_adds_them(core):
    run_id, tasks = core.trigger(core.pipeline(serial("s", job("load"), job("last"))))
    (given,) = core.claim()
    key = Idempotency("task", "r1", "hash")
    command = adding(run_id, parallel("more", job("x"), job("y", "x")), by=tasks[0], key=key)
    new = core.do(command)
    assert core.do(command) == new
    run = core.run(run_id)
    assert (run.total, run.stages) == (4, ["s", "more"])
    assert ended(core, new) == ["PENDING", "PENDING"]
    assert [core.task(task).stage for task in new] == [2, 2]
    core.report(LeaseRef(given.task_id, given.lease_id), TaskStatus.SUCCESS)
    run_to_end(core, [*tasks, *new])
    assert set(ended(core, [*tasks, *new])) == {"SUCCESS"}
    assert core.run(run_id).status is RunStatus.SUCCESS


def test_added_jobs_are_skipped_when_the_job_that_adds_them_fails(core):
    run_id, tasks = core.trigger(core.pipeline(serial("s", job("load"))))
    new = core.do(adding(run_id, serial("more", job("x")), by=tasks[0]))
    end_one(core, fails={"load"})
    assert ended(core, new) == ["SKIPPED"]
    assert core.run(run_id).status is RunStatus.FAILED


def test_added_jobs_may_wait_for_jobs_that_have_ended(core):
    made = core.pipeline(parallel("s", job("a"), job("b"), job("c")))
    run_id, tasks = core.trigger(made)
    end_one(core)
    end_one(core, fails={"b"})
    new = core.do(adding(run_id, parallel("more", job("x", "a"), job("y", "b"))))
    assert ended(core, new) == ["QUEUED", "SKIPPED"]
    run_to_end(core, [*tasks, *new])
    assert core.run(run_id).status is RunStatus.FAILED
    with pytest.raises(WrongState, match="takes no more jobs"):
        core.do(adding(run_id, serial("late", job("z"))))


def test_malformed_additions_are_refused_whole(core):
    run_id, _ = core.trigger(core.pipeline(serial("s", job("a"))))
    with pytest.raises(Invalid, match="'a' names an earlier job"):
        core.do(adding(run_id, serial("more", job("a"))))
    with pytest.raises(Invalid, match="no job 'nothing'"):
        core.do(adding(run_id, serial("more", job("x", "nothing"))))
    with pytest.raises(NotFound):
        core.do(adding(run_id, serial("more", job("x")), by="t99"))
    assert core.run(run_id).total == 1


def test_a_task_hands_on_only_secrets_that_its_run_names(core):
    made = core.pipeline(serial("s", job("a", secret_refs={"T": "token"})))
    run_id, tasks = core.trigger(made)
    for name, fine in (("token", True), ("other", False)):
        more = Definition((serial(f"more {name}", job(f"x {name}", secret_refs={"V": name})),))
        command = AddJobs(NAMESPACE, run_id, more, tasks[0], confined=True)
        if fine:
            core.do(command)
        else:
            with pytest.raises(Invalid, match="may not have secret 'other'"):
                core.do(command)
    assert core.run(run_id).total == 2


# ---- versions


def test_a_run_goes_by_the_definition_it_was_started_with(core):
    made = core.pipeline(serial("s", job("a")))
    first, _ = core.trigger(made)
    wanted = Description("other", Definition((serial("s", job("b")),)), source="name: other")
    assert core.do(UpdatePipeline(NAMESPACE, made, wanted)) == 2
    assert core.do(UpdatePipeline(NAMESPACE, made, wanted)) == 2  # nothing is different
    second, tasks = core.trigger(made)
    assert [core.run(run).version for run in (first, second)] == [1, 2]
    assert core.task(tasks[0]).name == "b"
    versions = [core.tables.versions[key] for key in sorted(core.tables.versions)]
    assert [version.source for version in versions] == ["", "name: other"]
    other = Description("other", Definition((serial("s", job("c")),)))
    with pytest.raises(WrongState, match="has version 2 now"):
        core.do(UpdatePipeline(NAMESPACE, made, other, expected_version=1))


def test_a_pipeline_cannot_take_anothers_name(core):
    core.pipeline(serial("s", job("a")), name="one")
    two = core.pipeline(serial("s", job("a")), name="two")
    with pytest.raises(AlreadyExists):
        core.do(UpdatePipeline(NAMESPACE, two, Description("one", Definition(()))))


def test_a_pipeline_with_active_runs_is_deleted_only_when_told_to_stop_them(core):
    made = core.pipeline(serial("s", job("a")), name="one")
    run_id, _ = core.trigger(made)
    with pytest.raises(WrongState, match=r"has active runs \(1\); stop them"):
        core.do(DeletePipeline(NAMESPACE, made))
    assert core.do(DeletePipeline(NAMESPACE, made, stop_runs=True)) == 1
    assert core.run(run_id).status is RunStatus.CANCELLED
    for command in (DeletePipeline(NAMESPACE, made), StopPipeline(NAMESPACE, made)):
        with pytest.raises(NotFound):
            core.do(command)
    with pytest.raises(NotFound):
        core.trigger(made)
    wanted = Description("one", Definition((serial("s", job("a")),)))
    assert core.do(CreatePipeline(NAMESPACE, "p9", wanted)) == "p9"


# ---- inputs


def test_inputs_are_of_their_types_and_reach_jobs(core):
    inputs = (
        Input("level", "choice", default="low", options=("low", "high")),
        Input("count", "integer", required=True),
        Input("dry", "boolean"),
        Input("ratio", "number", default=0.5),
    )
    made = core.pipeline(serial("s", job("a", condition="inputs['count'] == 3")), inputs=inputs)
    _, (task,) = core.trigger(made, inputs={"count": "3", "dry": "true"})
    env = TaskSpec.from_json(core.task(task).spec).env
    assert core.status(task) is TaskStatus.QUEUED
    assert {name: env[f"MUSTER_INPUT_{name}"] for name in ("LEVEL", "COUNT", "DRY", "RATIO")} == {
        "LEVEL": "low",
        "COUNT": "3",
        "DRY": "true",
        "RATIO": "0.5",
    }


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, r"inputs\[count\]: must be given"),
        ({"count": "x"}, r"inputs\[count\]: must be a whole number"),
        ({"count": "9" * 30}, r"inputs\[count\]: must be a whole number"),
        ({"count": True}, r"inputs\[count\]: must be a whole number"),
        ({"count": 1, "level": "loud"}, r"inputs\[level\]: must be one of low, high"),
        ({"count": 1, "dry": "yes"}, r"inputs\[dry\]: must be true or false"),
        ({"count": 1, "ratio": "nan"}, r"inputs\[ratio\]: must be a number"),
        ({"count": 1, "lvl": "x"}, r"inputs\[lvl\]: the pipeline has no such input; it has: count"),
    ],
)
def test_a_wrong_input_is_named(core, given, text):
    inputs = (
        Input("level", "choice", options=("low", "high")),
        Input("count", "integer", required=True),
        Input("dry", "boolean"),
        Input("ratio", "number"),
    )
    made = core.pipeline(serial("s", job("a")), inputs=inputs)
    with pytest.raises(Invalid, match=text):
        core.trigger(made, inputs=given)
    assert not core.tables.runs


# ---- pipelines that follow others


def follows(core, name, *others, **chosen):
    """Store a pipeline that starts when another's run has ended."""
    after = [{"name": other, **chosen} for other in others]
    return core.pipeline(serial("s", job("j")), name=name, triggers={"pipeline": after})


def runs_of(core, pipeline):
    return [run for run in core.tables.runs.values() if run.pipeline_id == pipeline]


def test_a_pipeline_starts_when_another_has_ended_well(core):
    build = core.pipeline(serial("s", job("j")), name="build")
    ship = follows(core, "ship", "build", statuses=["success"], branches=["main"])
    tell = follows(core, "tell", "build", statuses=["failed", "cancelled"])
    last = follows(core, "last", "ship")
    _, tasks = core.trigger(build)
    run_to_end(core, tasks)
    (run,) = runs_of(core, ship)
    assert (run.triggered_by, run.branch) == ("pipeline:build", "main")
    assert not runs_of(core, tell)
    run_to_end(core, [task.public_id for task in core.tables.tasks.values()])
    assert len(runs_of(core, last)) == 1
    _, tasks = core.trigger(build)
    run_to_end(core, tasks, fails={"j"})
    assert len(runs_of(core, tell)) == 1
    _, tasks = core.trigger(build, branch="dev")
    run_to_end(core, tasks)
    assert len(runs_of(core, ship)) == 1
    core.do(DeletePipeline(NAMESPACE, ship, stop_runs=True))
    _, tasks = core.trigger(build)
    run_to_end(core, tasks)
    assert len(runs_of(core, ship)) == 1


def test_pipelines_that_would_start_each_other_are_refused(core):
    follows(core, "a", "b")
    follows(core, "b", "c")
    with pytest.raises(Invalid, match=r"on\.pipeline: pipelines would start each other for ever"):
        follows(core, "c", "a")
    assert len(core.tables.pipelines) == 2


def test_a_follower_that_refuses_is_told_of(core):
    build = core.pipeline(serial("s", job("j")), name="build")
    core.pipeline(
        serial("s", job("j")),
        name="picky",
        inputs=(Input("x", required=True),),
        triggers={"pipeline": [{"name": "build"}]},
    )
    run_id, tasks = core.trigger(build)
    run_to_end(core, tasks)
    (told,) = core.events(EventKind.RUN_REMARK, run_id)
    assert "picky does not follow: inputs[x]: must be given" in told.data["text"]
