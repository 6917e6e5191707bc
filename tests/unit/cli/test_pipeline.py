import json
import uuid

import pytest

from generated.pipeline.v1 import pipeline_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2
from tests.forge_samples import bitbucket_push, github_push, gitlab_push

ID = str(uuid.UUID(int=7))


def a_run(status, *jobs):
    return pipeline_pb2.GetRunResponse(
        run=pipeline_pb2.RunDetail(
            run_id="run-1",
            number=3,
            status=status,
            jobs=[
                pipeline_pb2.RunJob(task_id=f"task-{name}", name=name, status=4) for name in jobs
            ],
        )
    )


@pytest.fixture
def nightly(control_plane, a_pipeline):
    answers = control_plane.answers
    answers["ListPipelines"] = pipeline_pb2.ListPipelinesResponse(pipelines=[a_pipeline])
    answers["TriggerPipeline"] = pipeline_pb2.TriggerPipelineResponse(run_id="run-1")
    return control_plane


def test_a_name_stands_for_its_pipeline(muster, nightly):
    done = muster(
        "pipeline", "trigger", "nightly", "--env", "A=1", "--branch", "b", "--commit", "c"
    )
    assert (done.code, done.out) == (0, "run-1\n")
    assert nightly.of(pipeline_pb2.ListPipelinesRequest)[0].name == "nightly"
    (request,) = nightly.of(pipeline_pb2.TriggerPipelineRequest)
    assert (request.pipeline_id, dict(request.env)) == (ID, {"A": "1"})
    assert (request.branch, request.commit_sha) == ("b", "c")
    assert request.request_id


def test_an_id_is_taken_as_it_is(muster, nightly):
    muster("pipeline", "trigger", ID)
    assert not nightly.of(pipeline_pb2.ListPipelinesRequest)


def test_an_unknown_name_exits_4(muster, nightly):
    nightly.answers["ListPipelines"] = pipeline_pb2.ListPipelinesResponse()
    done = muster("pipeline", "trigger", "weekly")
    assert done.code == 4
    assert "no pipeline is named 'weekly'" in done.err


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (pipeline_pb2.PIPELINE_STATUS_SUCCESS, 0),
        (pipeline_pb2.PIPELINE_STATUS_PARTIAL, 0),
        (pipeline_pb2.PIPELINE_STATUS_FAILED, 1),
        (pipeline_pb2.PIPELINE_STATUS_CANCELLED, 1),
    ],
)
def test_following_a_run_prints_its_logs_and_exits_as_it_went(muster, nightly, status, code):
    nightly.prints("hello")
    nightly.answers["GetRun"] = a_run(status, "lint", "test-all")
    done = muster("pipeline", "trigger", "nightly", "--follow")
    assert done.code == code
    assert sorted(line for line in done.out.splitlines() if "hello" in line) == [
        "lint     | hello",
        "test-all | hello",
    ]


def test_the_logs_of_a_run_come_in_the_order_of_its_jobs(muster, nightly):
    nightly.prints("1", "2")
    nightly.answers["GetRun"] = a_run(pipeline_pb2.PIPELINE_STATUS_RUNNING, "a", "b")
    assert muster("run", "logs", "run-1").out == "a | 1\na | 2\nb | 1\nb | 2\n"


def test_watching_a_run_tells_each_change_once(muster, nightly):
    running = {"status": task_pb2.TASK_STATUS_RUNNING, "agent_id": "builder-1", "attempt": 2}
    ended = {
        "status": task_pb2.TASK_STATUS_FAILED,
        "duration": 2500,
        "error_message": "exit code 1",
    }
    nightly.changes = [
        stream_pb2.StreamTaskStatusResponse(task_name="a", cursor="7", **running),
        "the connection was cut",
        stream_pb2.StreamTaskStatusResponse(task_name="a", cursor="9", **ended),
    ]
    nightly.answers["GetRun"] = a_run(pipeline_pb2.PIPELINE_STATUS_FAILED, "a")
    done = muster("run", "watch", "run-1")
    assert (done.code, done.out.splitlines()) == (
        1,
        ["a: RUNNING  attempt 2  builder-1", "a: FAILED  2.5s  exit code 1", "run 3: FAILED"],
    )
    asked = nightly.of(stream_pb2.StreamTaskStatusRequest)
    assert [each.after for each in asked] == ["", "7"]


def test_a_file_becomes_a_pipeline(muster, nightly, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text('{"name": "n", "stages": [{"name": "s", "jobs": [{"name": "j"}]}]}')
    nightly.answers["CreatePipeline"] = pipeline_pb2.CreatePipelineResponse(pipeline_id=ID)
    assert muster("pipeline", "create", "-f", str(file)).out == f"{ID}\n"
    assert nightly.of(pipeline_pb2.CreatePipelineRequest)[0].stages[0].jobs[0].name == "j"


FINE = "name: n\nstages:\n- name: s\n  jobs:\n  - {name: j, commands: x}\n"


def test_fields_the_server_refuses_are_placed_in_the_file(muster, nightly, tmp_path, bad_request):
    file = tmp_path / "p.yaml"
    file.write_text("name: n\nstages:\n- name: s\n  jobs: [{name: j, depends_on: [x]}]\n")
    code, details = bad_request("stages[0].jobs", "needs a job")
    nightly.refuse("CreatePipeline", code, "the pipeline is malformed", details)
    done = muster("pipeline", "create", "-f", str(file))
    assert (done.code, done.err.splitlines()[1]) == (1, f"  {file}:4: stages[0].jobs: needs a job")


def test_a_pipeline_file_goes_to_the_server_as_it_is(muster, nightly, tmp_path, bad_request):
    file = tmp_path / "p.yaml"
    file.write_text(FINE)
    nightly.answers["CreatePipeline"] = pipeline_pb2.CreatePipelineResponse(pipeline_id=ID)
    assert muster("pipeline", "create", "-f", str(file)).out == f"{ID}\n"
    assert nightly.of(pipeline_pb2.CreatePipelineRequest)[-1].file == FINE
    code, details = bad_request("file", "file:5:4: stages[0].jobs[0].name: bad")
    nightly.refuse("CreatePipeline", code, "the pipeline is malformed", details)
    done = muster("pipeline", "create", "-f", str(file))
    assert f"{file}:5:4: stages[0].jobs[0].name: bad" in done.err


def test_a_malformed_pipeline_file_does_not_reach_the_server(muster, nightly, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(FINE.replace("commands", "comands"))
    done = muster("pipeline", "create", "-f", str(file))
    assert done.code == 1
    assert f"{file}:5:15: stages[0].jobs[0].comands: is not known here" in done.err
    assert not nightly.of(pipeline_pb2.CreatePipelineRequest)


def test_applying_a_file_updates_the_pipeline_of_its_name(muster, nightly, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(FINE)
    nightly.answers["UpdatePipeline"] = pipeline_pb2.UpdatePipelineResponse(message="version 2")
    assert muster("pipeline", "apply", "-f", str(file)).out == "version 2\n"
    assert nightly.of(pipeline_pb2.ListPipelinesRequest)[0].name == "n"
    (request,) = nightly.of(pipeline_pb2.UpdatePipelineRequest)
    assert (request.pipeline_id, request.pipeline.file) == (ID, FINE)


def test_linting_needs_no_server_and_tells_every_problem(muster, tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(FINE)
    bad.write_text(FINE.replace("commands", "comands") + "nme: x\n")
    done = muster("pipeline", "lint", str(good), str(bad))
    assert done.code == 1
    assert done.out == f"{good}: n is fine (1 job)\n"
    assert [line.count("is not known here") for line in done.err.splitlines()] == [1, 1]


def test_a_plan_tells_what_would_run_and_why_the_rest_would_not(muster, tmp_path):
    file, event = tmp_path / "p.yaml", tmp_path / "push.json"
    file.write_text(
        FINE + "  - {name: k, commands: x, if: branch == 'main'}\non: {push: {branches: main}}\n"
    )
    event.write_text('{"kind": "push", "branch": "dev"}')
    done = muster("pipeline", "plan", str(file), "--event", str(event))
    assert done.code == 1
    assert "No run is started: branch 'dev' is none of main." in done.out
    assert "left out  j      branch == 'main' does not hold" in done.out
    event.write_text('{"kind": "push", "branch": "main"}')
    assert muster("pipeline", "plan", str(file), "--event", str(event)).code == 0
    event.write_text('{"kind": "push", "brnch": "main"}')
    assert "brnch: is not known" in muster("pipeline", "plan", str(file), "--event", str(event)).err
    assert "no such input" in muster("pipeline", "plan", str(file), "-i", "x=1").err


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (github_push(), "runs"),
        (github_push("refs/heads/dev"), "No run is started: branch 'dev'"),
        (gitlab_push(), "runs"),
        (bitbucket_push(), "runs"),
        (github_push(deleted=True), "a delivery that starts nothing: main was deleted"),
    ],
)
def test_a_plan_understands_what_forges_deliver(muster, tmp_path, payload, told):
    file, event = tmp_path / "p.yaml", tmp_path / "push.json"
    file.write_text(FINE + "on: {push: {branches: main}}\n")
    event.write_text(json.dumps(payload))
    done = muster("pipeline", "plan", str(file), "--event", str(event))
    assert told in done.out + done.err


def test_answers_to_runs_reach_the_server(muster, nightly):
    nightly.answers["RetryRun"] = pipeline_pb2.RetryRunResponse(run_id="run-2")
    nightly.answers["ApproveRun"] = pipeline_pb2.ApproveRunResponse(message="Approved.")
    nightly.answers["RejectRun"] = pipeline_pb2.RejectRunResponse(message="Rejected.")
    assert muster("run", "retry", "run-1", "--from", "a").out == "run-2\n"
    (request,) = nightly.of(pipeline_pb2.RetryRunRequest)
    assert (request.scope, request.from_job) == (pipeline_pb2.RETRY_SCOPE_FROM_JOB, "a")
    assert muster("run", "approve", "run-1", "ship?", "--comment", "go").out == "Approved.\n"
    assert muster("run", "reject", "run-1").out == "Rejected.\n"
    assert muster("run", "retry", "run-1", "--failed", "--from", "a").code == 2


def test_a_run_is_drawn_in_mermaid(muster, nightly):
    run = a_run(pipeline_pb2.PIPELINE_STATUS_SUCCESS, "a", 'b "x"')
    run.run.jobs[1].depends_on.append("a")
    for job in run.run.jobs:
        job.stage, job.stage_name = 1, "s"
    nightly.answers["GetRun"] = run
    assert muster("run", "get", "run-1", "--graph").out.splitlines() == [
        "flowchart LR",
        '  subgraph s1["s"]',
        '    j0["a<br/>SUCCESS"]',
        '    j1["b &quot;x&quot;<br/>SUCCESS"]',
        "  end",
        "  j0 --> j1",
        "  classDef success fill:#d8f5d8,stroke:#2e8b57",
        "  class j0,j1 success",
    ]


@pytest.mark.parametrize("silent", [False, True])
def test_following_a_run_tells_of_a_further_try(muster, nightly, silent):
    nightly.prints("one")
    if not silent:
        nightly.prints("two", attempt=2)
    nightly.ends(task_pb2.TASK_STATUS_SUCCESS, attempt=2)
    nightly.answers["GetRun"] = a_run(pipeline_pb2.PIPELINE_STATUS_SUCCESS, "a")
    lines = muster("pipeline", "trigger", "nightly", "--follow").out.splitlines()
    told = "a | attempt 1 failed; tried again: attempt 2"
    two = [] if silent else ["a | two"]
    assert lines == ["a | one", told, *two, "a | SUCCESS"]


def test_a_run_is_drawn_as_a_tree():
    from rich.console import Console

    from cli.run_picture import picture

    jobs = [
        {"name": "a", "status": 4, "stage_name": "one", "started_at": 1000, "finished_at": 3500},
        {"name": "bb", "status": 3, "stage_name": "two", "started_at": 4000, "agent_id": "host"},
        {"name": "c", "status": 1, "stage_name": "two", "depends_on": ["bb"]},
        {"name": "d", "status": 8, "stage_name": "two", "left_out": True, "error_message": "no\n"},
    ]
    run = pipeline_pb2.RunDetail(
        pipeline_name="p",
        number=3,
        status=2,
        total_jobs=4,
        ended_jobs=1,
        started_at=1000,
        jobs=[pipeline_pb2.RunJob(**job) for job in jobs],
    )
    console = Console(width=80, record=True, color_system=None)
    with console.capture() as captured:
        console.print(picture(run, now=10))
    assert [line.rstrip() for line in captured.get().splitlines()] == [
        "p 3  RUNNING  1/4 jobs  9.0s",
        "├── one",
        "│   └── ✓ a  SUCCESS  2.5s",
        "└── two",
        "    ├── ● bb  RUNNING  6.0s  host",
        "    ├── · c   PENDING  after bb",
        "    └── - d   LEFT OUT no",
    ]
    many = [pipeline_pb2.RunJob(name=f"j{n}", status=4, stage_name="s") for n in range(50)]
    many[7].status = 5
    run = pipeline_pb2.RunDetail(status=2, jobs=many)
    with console.capture() as captured:
        console.print(picture(run, now=10))
    assert "and 49 that are over" in captured.get()
