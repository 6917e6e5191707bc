"""A thousand tasks over two agents: each ends once, and no line is lost or told twice."""

import asyncio
from collections import Counter

import pytest

from tests.e2e.api import Api

NUMBER = 1000
SHELL_EVERY = 5  # one in five runs a shell, the others nothing
LINES = 20
SUCCESS, RELEASED = 3, 8  # of attempts
SUBMITTERS = 16


@pytest.fixture
def server(kit):
    return kit.start_server()


async def submit(api: Api, numbers: list[int], task_ids: dict[str, int]) -> None:
    while numbers:
        number = numbers.pop()
        script = f"for i in $(seq {LINES}); do echo task {number} line $i; done"
        executor = "noop" if number % SHELL_EVERY else ""
        task_ids[await api.create(script, executor=executor)] = number


async def read(api: Api, task_ids: list[str], tasks: dict, logs: dict) -> None:
    while task_ids:
        task_id = task_ids.pop()
        tasks[task_id] = await api.task(task_id)
        logs[task_id] = await api.text(task_id)


async def test_each_of_a_thousand_tasks_ends_once_with_its_whole_log(kit, server, api: Api):
    for _ in range(2):
        kit.start_agent(server, slots=8)
    task_ids: dict[str, int] = {}
    numbers = list(range(NUMBER))
    async with asyncio.TaskGroup() as group:
        for _ in range(SUBMITTERS):
            group.create_task(submit(api, numbers, task_ids))
    assert len(task_ids) == NUMBER
    for task_id, changes in (await api.history(task_ids)).items():
        # Submitted, started, succeeded: once each.
        assert [change.status for change in changes] == [2, 3, 4], (task_id, changes)
    tasks, logs, left = {}, {}, list(task_ids)
    async with asyncio.TaskGroup() as group:
        for _ in range(SUBMITTERS):
            group.create_task(read(api, left, tasks, logs))
    for task_id, number in task_ids.items():
        task = tasks[task_id]
        assert (task.status, task.attempt, task.infra_retries) == (4, len(task.attempts), 0)
        # An agent may give a task back that waited too long for a slot, and only before its start.
        *given_back, last = (attempt.status for attempt in task.attempts)
        assert (set(given_back) <= {RELEASED}, last) == (True, SUCCESS)
        shell = not number % SHELL_EVERY
        expected = [f"task {number} line {i}" for i in range(1, LINES + 1)] if shell else []
        assert logs[task_id] == expected
    shares = Counter(task.agent_id for task in tasks.values())
    assert len(shares) == 2
    assert min(shares.values()) > NUMBER / 10
