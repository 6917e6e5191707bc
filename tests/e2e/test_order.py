"""Whose turn it is: priorities, limits on the wait, and concurrency groups."""

from itertools import pairwise

import pytest

from generated.task.v1 import task_pb2
from tests.e2e.api import Api

PENDING = task_pb2.TASK_STATUS_PENDING
SUCCESS, TIMEOUT = task_pb2.TASK_STATUS_SUCCESS, task_pb2.TASK_STATUS_TIMEOUT
CANCELLED = task_pb2.TASK_STATUS_CANCELLED


@pytest.fixture
async def server(kit):
    return kit.start_server()


@pytest.fixture
async def api(server):
    async with Api(server.grpc) as api:
        yield api


async def test_the_more_urgent_goes_first(kit, server, api: Api):
    plain = await api.create("true")
    late = await api.create("true", labels={"priority": "low"})
    urgent = await api.create("true", priority=9)
    word = await api.create("true", labels={"priority": "high"})
    kit.start_agent(server, slots=1)
    ended = [await api.ended(task_id) for task_id in (urgent, word, plain, late)]
    assert [task.priority for task in ended] == [9, 8, 5, 2]
    claims = [task.attempts[0].claimed_at for task in ended]
    assert claims == sorted(claims)
    again = await api.tasks.RetryTask(task_pb2.RetryTaskRequest(task_id=urgent), timeout=30)
    assert (await api.task(again.new_task_id)).priority == 9


async def test_a_task_that_nobody_starts_in_time_ends_and_says_so(api: Api):
    task_id = await api.create("true", schedule_to_start=1)
    after = await api.create("true", depends_on=[task_id])
    task = await api.ended(task_id)
    assert (task.status, task.schedule_to_start, task.attempt) == (TIMEOUT, 1, 0)
    assert task.error_message == "it did not start within 1 s of its submission"
    assert (await api.ended(after)).status == task_pb2.TASK_STATUS_SKIPPED


def group(key, **fields):
    return task_pb2.ConcurrencyGroup(key=key, **fields)


async def test_members_of_a_group_run_one_after_another_and_say_who_is_in_the_way(
    kit, server, api: Api, tmp_path
):
    kit.start_agent(server, slots=4)
    door = tmp_path / "door"
    wait = f"while [ ! -e {door} ]; do sleep 0.05; done"
    first = await api.create(wait, name="first", concurrency=group("deploy"))
    await api.runs(first)
    others = [await api.create("true", concurrency=group("deploy")) for _ in range(3)]
    waiting = await api.task(others[0])
    assert (waiting.status, waiting.concurrency.holds_place) == (PENDING, False)
    assert waiting.waiting_reason == (
        f"It waits for a place in concurrency group 'deploy' (limit 1), held by first ({first})."
    )
    assert (await api.task(first)).concurrency.holds_place
    door.touch()
    ended = [await api.ended(task_id) for task_id in (first, *others)]
    assert [task.status for task in ended] == [SUCCESS] * 4
    for before, after in pairwise(ended):
        assert before.attempts[0].ended_at <= after.attempts[0].claimed_at


async def test_a_newcomer_that_cancels_takes_the_place_of_what_runs(kit, server, api: Api):
    kit.start_agent(server, slots=4)
    running = await api.create("sleep 600", concurrency=group("deploy"))
    await api.runs(running)
    waiting = await api.create("true", concurrency=group("deploy"))
    policy = task_pb2.CONCURRENCY_POLICY_CANCEL_RUNNING
    newest = await api.create("true", concurrency=group("deploy", on_conflict=policy))
    assert (await api.ended(newest)).status == SUCCESS
    for task_id in (running, waiting):
        task = await api.ended(task_id)
        assert task.status == CANCELLED
        assert newest in task.error_message


async def test_a_group_outlives_the_server(kit, server, api: Api):
    first = await api.create("true", concurrency=group("deploy"))
    second = await api.create("true", concurrency=group("deploy"))
    server.kill9()
    server.start()
    kit.start_agent(server)
    async with Api(server.grpc) as later:
        assert [(await later.ended(i)).status for i in (first, second)] == [SUCCESS] * 2
