"""Cancel and timeout end every process of a task, also those that hide or do not listen."""

import time

import psutil
import pytest

from generated.task.v1 import task_pb2
from tests.e2e.api import Api, refusal, soon

RUNNING, SUCCESS, CANCELLED, TIMEOUT = 3, 4, 6, 7
LOOP = "while :; do sleep 0.1; done"

# Three shells: the script itself, a child, and one that left session and group. None listens.
STUBBORN = [
    "trap '' TERM INT HUP",
    f"sh -c \"trap '' TERM; {LOOP}\" & setsid sh -c \"trap '' TERM; {LOOP}\" &",
    "echo started",
    LOOP,
]


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server("--kill-grace", "0.5", "--retry-backoff", "0.1")


@pytest.fixture(scope="module")
def agent(shared, server):
    return shared.start_agent(server, slots=4)


@pytest.fixture(autouse=True)
def _has_agent(agent):
    """Every story here has an agent."""


async def three_shells(mark):
    def is_shell(process):
        try:
            return process.name() != "sleep"
        except psutil.NoSuchProcess:  # a sleep that was over
            return False

    async def shells():
        return len(list(filter(is_shell, mark.living()))) == 3

    await soon(shells)


async def test_cancel_ends_every_process_also_the_stubborn_and_the_runaway(api: Api, mark):
    task_id = await api.create(*STUBBORN, env=mark.env)
    await api.runs(task_id)
    await three_shells(mark)
    assert "told" in await api.cancel(task_id, "enough")
    assert (await api.task(task_id)).status in (RUNNING, CANCELLED)
    task = await api.ended(task_id)
    assert (task.status, task.error_message, task.attempt) == (CANCELLED, "enough", 1)
    assert mark.gone()
    # The shell may have had time to say that its child was killed.
    assert (await api.text(task_id))[0] == "started"


async def test_timeout_ends_every_process_too(api: Api, mark):
    task_id = await api.create(*STUBBORN, env=mark.env, timeout=2)
    await api.runs(task_id)
    await three_shells(mark)
    task = await api.ended(task_id)
    assert (task.status, task.attempt) == (TIMEOUT, 1)
    assert "2 s" in task.error_message
    assert 2000 <= task.duration < 6000
    assert mark.gone()


async def test_a_task_that_listens_may_tidy_up_within_the_grace(kit):
    patient = kit.start_server()
    kit.start_agent(patient)
    async with Api(patient.grpc) as api:
        task_id = await api.create("trap 'echo tidied; exit 0' TERM", "echo up", LOOP)
        async for answer in api.follow(task_id):
            if answer.log_chunk.content == "up":
                break
        await api.cancel(task_id)
        assert (await api.ended(task_id)).status == CANCELLED
        assert "tidied" in await api.text(task_id)


async def test_what_a_task_leaves_behind_is_ended_with_it(api: Api, mark):
    left = f"setsid sh -c '{LOOP}' >/dev/null 2>&1 &"
    task_id = await api.create(left, "echo bye", env=mark.env)
    assert (await api.ended(task_id)).status == SUCCESS
    assert mark.gone()


async def test_a_timeout_is_tried_again_and_a_cancel_is_not(api: Api, mark):
    task_id = await api.create("echo try", "exec sleep 100", env=mark.env, timeout=1, retry_count=1)
    task = await api.ended(task_id)
    assert (task.status, task.attempt, task.retried_times) == (TIMEOUT, 2, 1)
    task_id = await api.create("exec sleep 100", env=mark.env, retry_count=3)
    await api.runs(task_id)
    await api.cancel(task_id)
    task = await api.ended(task_id)
    assert (task.status, task.attempt) == (CANCELLED, 1)
    assert mark.gone()


async def test_a_waiting_task_is_cancelled_at_once(api: Api):
    selector = task_pb2.LabelSelector(match_labels={"nobody": "has"})
    task_id = await api.create("true", label_selector=selector)
    follower = await api.create("true", depends_on=[task_id])
    assert "is cancelled" in await api.cancel(task_id, "changed my mind")
    task = await api.task(task_id)
    assert (task.status, task.attempt) == (CANCELLED, 0)
    assert task.error_message == "changed my mind"
    assert (await api.task(follower)).status == task_pb2.TASK_STATUS_SKIPPED
    [end] = [answer async for answer in api.follow(task_id)]
    assert end.is_complete


async def test_a_cancel_between_two_tries_ends_it(api: Api):
    task_id = await api.create("exit 1", retry_count=100)
    await api.reaches(task_id, task_pb2.TASK_STATUS_PENDING)
    await api.cancel(task_id)
    assert (await api.ended(task_id)).status == CANCELLED


async def test_after_the_end_a_cancel_is_refused_and_a_second_one_is_fine(api: Api):
    task_id = await api.create("true")
    await api.ended(task_id)
    refused = await refusal(api.cancel(task_id))
    assert (refused.code.name, refused.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")
    assert "SUCCESS" in refused.message
    task_id = await api.create("exec sleep 100")
    await api.runs(task_id)
    await api.cancel(task_id)
    await api.cancel(task_id)
    await api.ended(task_id)
    await api.cancel(task_id)
    assert (await api.task(task_id)).status == CANCELLED


async def test_a_stopped_pipeline_ends_what_runs_and_what_waits(api: Api, mark):
    stages = [
        {"name": "one", "parallel": True, "jobs": [job("a", mark), job("b", mark)]},
        {"name": "two", "jobs": [job("c", mark), job("d", mark)]},
    ]
    pipeline_id = await api.define("to be stopped", stages)
    run_id = await api.trigger(pipeline_id)
    started = (await api.run(run_id)).jobs[:2]
    for each in started:
        await api.runs(each.task_id)
    answer = await api.stop(pipeline_id, run_id=run_id, reason="wrong branch")
    assert "1 active run" in answer
    run = await api.run_ended(run_id)
    assert run.status == 5
    assert [each.status for each in run.jobs] == [CANCELLED] * 4
    assert {each.error_message for each in run.jobs} == {"wrong branch"}
    assert mark.gone()
    assert "0 active runs" in await api.stop(pipeline_id)


async def test_a_cancel_reaches_the_agent_at_once(api: Api):
    task_id = await api.create("exec sleep 100")
    await api.runs(task_id)
    began = time.monotonic()
    await api.cancel(task_id)
    await api.ended(task_id)
    assert time.monotonic() - began < 3  # pushed, not picked up by the heartbeat of 10 s


def job(name, mark):
    return {"name": name, "commands": ["exec sleep 100"], "env": mark.env}
