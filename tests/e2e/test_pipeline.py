"""Pipelines: stages in order and side by side, and everything that can become of a run."""

import asyncio

import grpc
import pytest

from generated.pipeline.v1 import pipeline_pb2
from generated.stream.v1 import stream_pb2
from tests.e2e.api import Api, refusal

PENDING, QUEUED, RUNNING, SUCCESS, FAILED, CANCELLED, TIMEOUT, SKIPPED = range(1, 9)
RUN_PENDING, RUN_RUNNING, RUN_SUCCESS, RUN_FAILED, RUN_CANCELLED, RUN_PARTIAL = range(1, 7)


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server("--retry-backoff", "0.1")


@pytest.fixture(scope="module", autouse=True)
def _agent(shared, server):
    """Everything here runs on one agent."""
    shared.start_agent(server, slots=4)


def stage(name, *jobs, parallel=False):
    return {"name": name, "jobs": jobs, "parallel": parallel}


def job(name, *commands, **fields):
    return {"name": name, "commands": commands or ["true"], **fields}


def statuses(run):
    return {each.name: each.status for each in run.jobs}


async def finished(api: Api, name, *stages, env=None, **trigger):
    """Define and run a pipeline; return its run."""
    pipeline_id = await api.define(name, stages, env=env or {})
    return await api.run_ended(await api.trigger(pipeline_id, **trigger))


async def test_stages_and_jobs_go_in_order(api: Api, tmp_path):
    told = tmp_path / "told"
    run = await finished(
        api,
        "in order",
        stage("one", job("a", f"sleep 0.2; echo a >> {told}"), job("b", f"echo b >> {told}")),
        stage("two", job("c", f"echo c >> {told}")),
    )
    assert (run.status, run.number, run.total_jobs, run.ended_jobs) == (RUN_SUCCESS, 1, 3, 3)
    assert told.read_text().split() == ["a", "b", "c"]
    assert [(each.stage, each.stage_name) for each in run.jobs] == [
        (1, "one"),
        (1, "one"),
        (2, "two"),
    ]
    assert [list(each.depends_on) for each in run.jobs] == [[], ["a"], ["b"]]
    assert 0 < run.created_at <= run.started_at <= run.finished_at


async def test_jobs_of_a_parallel_stage_run_side_by_side(api: Api, tmp_path):
    def meets(name, other):
        wait = f"while [ ! -e {tmp_path}/{other} ]; do sleep 0.05; done"
        return job(name, f"touch {tmp_path}/{name}", wait, timeout=30)

    run = await finished(
        api,
        "side by side",
        stage("one", meets("a", "b"), meets("b", "a"), parallel=True),
        stage("two", job("after both", f"test -e {tmp_path}/a -a -e {tmp_path}/b")),
    )
    assert run.status == RUN_SUCCESS
    assert sorted(run.jobs[2].depends_on) == ["a", "b"]


async def test_a_job_waits_for_those_it_names(api: Api, tmp_path):
    told = tmp_path / "told"
    run = await finished(
        api,
        "named",
        stage(
            "one",
            job("last", f"echo last >> {told}", depends_on=["middle", "first"]),
            job("middle", f"echo middle >> {told}", depends_on=["first"]),
            job("first", f"sleep 0.1; echo first >> {told}"),
            parallel=True,
        ),
    )
    assert run.status == RUN_SUCCESS
    assert told.read_text().split() == ["first", "middle", "last"]


async def test_variables_come_from_pipeline_job_and_trigger(api: Api):
    run = await finished(
        api,
        "variables",
        stage("one", job("show", 'echo "$A $B $C $MUSTER_COMMIT"', env={"B": "job", "C": "job"})),
        env={"A": "pipeline", "B": "pipeline", "C": "pipeline"},
    )
    assert await api.text(run.jobs[0].task_id) == ["pipeline job job "]
    pipeline_id = run.pipeline_id
    run_id = await api.trigger(pipeline_id, env={"C": "trigger"}, commit_sha="abc123", branch="dev")
    run = await api.run_ended(run_id)
    assert await api.text(run.jobs[0].task_id) == ["pipeline job trigger abc123"]
    assert (run.number, run.branch, run.commit_sha) == (2, "dev", "abc123")


async def test_a_failed_job_skips_what_needs_it_and_fails_the_run(api: Api):
    run = await finished(
        api,
        "broken",
        stage("one", job("breaks", "exit 5"), job("other")),
        stage("two", job("late one"), job("late two"), parallel=True),
    )
    assert run.status == RUN_FAILED
    assert statuses(run) == {
        "breaks": FAILED,
        "other": SKIPPED,
        "late one": SKIPPED,
        "late two": SKIPPED,
    }
    assert (run.ended_jobs, run.failed_jobs) == (4, 1)
    assert (run.jobs[0].exit_code, run.jobs[0].error_message) == (5, "exit code 5")
    skipped = await api.task(run.jobs[3].task_id)
    assert (skipped.attempt, skipped.error_message != "") == (0, True)


async def test_side_by_side_the_others_go_on_when_one_fails(api: Api):
    run = await finished(
        api,
        "one of two",
        stage("one", job("breaks", "exit 1"), job("works", "sleep 0.2"), parallel=True),
    )
    assert statuses(run) == {"breaks": FAILED, "works": SUCCESS}
    assert run.status == RUN_FAILED


async def test_a_failure_that_is_allowed_stops_nobody(api: Api):
    run = await finished(
        api,
        "allowed",
        stage("one", job("breaks", "exit 1", allow_failure=True)),
        stage("two", job("goes on")),
    )
    assert statuses(run) == {"breaks": FAILED, "goes on": SUCCESS}
    assert run.status == RUN_PARTIAL


async def test_a_job_is_tried_again_and_may_succeed_then(api: Api, tmp_path):
    flag = tmp_path / "flag"
    run = await finished(
        api,
        "again",
        stage("one", job("second time", f"test -e {flag} || {{ touch {flag}; exit 1; }}", retry=2)),
        stage("two", job("after")),
    )
    assert (run.status, run.failed_jobs) == (RUN_SUCCESS, 0)
    assert (run.jobs[0].status, run.jobs[0].attempt) == (SUCCESS, 2)


async def test_a_job_has_its_own_timeout(api: Api):
    run = await finished(api, "late", stage("one", job("sleeps", "exec sleep 100", timeout=1)))
    assert statuses(run) == {"sleeps": TIMEOUT}
    assert (run.status, run.failed_jobs) == (RUN_FAILED, 1)


async def test_a_run_stands_as_its_jobs_do(api: Api, gate):
    stages = [stage("one", job("waits", gate.wait)), stage("two", job("after"))]
    pipeline_id = await api.define("standing", stages)
    assert (await api.pipeline(pipeline_id)).status == RUN_PENDING
    run_id = await api.trigger(pipeline_id)
    first, second = (await api.run(run_id)).jobs
    await api.runs(first.task_id)
    run = await api.run(run_id)
    assert (run.status, run.ended_jobs, run.finished_at) == (RUN_RUNNING, 0, 0)
    assert statuses(run) == {"waits": RUNNING, "after": PENDING}
    assert (await api.task(second.task_id)).waiting_reason == "It waits for waits (RUNNING)."
    assert (await api.pipeline(pipeline_id)).status == RUN_RUNNING
    gate.open()
    await api.run_ended(run_id)
    detail = await api.pipeline(pipeline_id)
    assert (detail.status, detail.total_runs, detail.success_runs) == (RUN_SUCCESS, 1, 1)


async def test_runs_are_counted_by_how_they_ended(api: Api, tmp_path):
    switch = tmp_path / "switch"
    pipeline_id = await api.define("counted", [stage("one", job("a", f"test -e {switch}"))])
    await api.run_ended(await api.trigger(pipeline_id))
    switch.touch()
    await api.run_ended(await api.trigger(pipeline_id))
    await api.run_ended(await api.trigger(pipeline_id))
    detail = await api.pipeline(pipeline_id)
    assert (detail.total_runs, detail.success_runs, detail.failed_runs) == (3, 2, 1)
    assert detail.status == RUN_SUCCESS
    listed = await api.pipelines.ListRuns(
        pipeline_pb2.ListRunsRequest(pipeline_id=pipeline_id, page_size=2)
    )
    assert [run.number for run in listed.runs] == [3, 2]
    rest = await api.pipelines.ListRuns(
        pipeline_pb2.ListRunsRequest(
            pipeline_id=pipeline_id, page_size=2, page_token=listed.next_page_token
        )
    )
    assert ([run.number for run in rest.runs], rest.next_page_token) == ([1], "")
    failed = await api.pipelines.ListRuns(
        pipeline_pb2.ListRunsRequest(pipeline_id=pipeline_id, status=RUN_FAILED)
    )
    assert [run.number for run in failed.runs] == [1]


async def test_one_run_is_stopped_and_the_other_goes_on(api: Api, gate):
    pipeline_id = await api.define("two runs", [stage("one", job("a", gate.wait), job("b"))])
    first, second = await api.trigger(pipeline_id), await api.trigger(pipeline_id)
    for run_id in (first, second):
        await api.runs((await api.run(run_id)).jobs[0].task_id)
    assert "1 active run" in await api.stop(pipeline_id, run_id=first)
    stopped = await api.run_ended(first)
    assert (stopped.status, set(statuses(stopped).values())) == (RUN_CANCELLED, {CANCELLED})
    gate.open()
    assert (await api.run_ended(second)).status == RUN_SUCCESS
    refused = await refusal(api.stop(pipeline_id, run_id=second))
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_trigger_with_the_same_request_id_starts_one_run(api: Api):
    pipeline_id = await api.define("once", [stage("one", job("a"))])
    run_id = await api.trigger(pipeline_id, request_id="r-1")
    assert await api.trigger(pipeline_id, request_id="r-1") == run_id
    refused = await refusal(api.trigger(pipeline_id, request_id="r-1", branch="other"))
    assert (refused.code.name, refused.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert await api.trigger(pipeline_id, request_id="r-2") != run_id
    assert (await api.pipeline(pipeline_id)).total_runs == 2


async def test_a_pipeline_comes_back_as_it_was_defined(api: Api):
    selector = {"match_labels": {"os": "linux"}}
    first = job("a", "echo 1", "echo 2", env={"K": "v"}, timeout=5, retry=1, label_selector={})
    stages = [
        stage("one", first),
        stage("two", job("b", depends_on=["a"], label_selector=selector), parallel=True),
    ]
    pipeline_id = await api.define("as it was", stages, description="why", env={"E": "1"})
    detail = await api.pipeline(pipeline_id)
    assert list(detail.stages) == [pipeline_pb2.Stage(**each) for each in stages]
    assert (detail.description, detail.branch, dict(detail.env)) == ("why", "main", {"E": "1"})
    refused = await refusal(api.define("as it was", stages))
    assert refused.code is grpc.StatusCode.ALREADY_EXISTS
    listed = await api.pipelines.ListPipelines(pipeline_pb2.ListPipelinesRequest(name="as it was"))
    assert [each.pipeline_id for each in listed.pipelines] == [pipeline_id]


async def test_a_follower_of_a_run_hears_every_change_and_then_the_end(api: Api):
    pipeline_id = await api.define("heard", [stage("one", job("a"), job("b", "exit 1"))])
    run_id = await api.trigger(pipeline_id)
    request = stream_pb2.StreamTaskStatusRequest(run_id=run_id, after="0")
    heard = [
        (change.task_name, change.status)
        async for change in api.streams.StreamTaskStatus(request, timeout=30)
    ]
    assert [status for name, status in heard if name == "a"] == [QUEUED, RUNNING, SUCCESS]
    assert [status for name, status in heard if name == "b"] == [PENDING, QUEUED, RUNNING, FAILED]


async def test_the_server_answers_while_it_reads_a_large_file(api: Api):
    large = "name: n\nx: [" + "a," * 90_000 + "]"
    request = pipeline_pb2.CreatePipelineRequest(file=large)
    created = asyncio.ensure_future(refusal(api.pipelines.CreatePipeline(request)))
    for _ in range(5):
        await api.pipelines.Ping(pipeline_pb2.PingRequest())
        assert not created.done()
    assert (await created).code == grpc.StatusCode.INVALID_ARGUMENT
