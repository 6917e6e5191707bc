"""kill -9 of the supervisor: what it started is gone, and the task runs again."""

import psutil
import pytest

from tests.e2e.api import Api, soon
from tests.e2e.scripts import Mark

SUCCESS = 4
LOST = 7

# A shell, a child of it, and a grandchild that has left session and process group.
SCRIPT = [
    "setsid sh -c 'while :; do sleep 0.1; done' & sh -c 'while :; do sleep 0.1; done' &",
    "echo attempt $$",
]


@pytest.fixture
def server(kit):
    return kit.start_server()


async def test_the_survivors_are_gone_and_the_task_runs_again_and_ends_once(
    kit, server, api: Api, gate, mark
):
    agent = kit.start_agent(server)
    task_id = await submitted(api, gate, mark)
    first = await three(mark)
    agent.kill9_supervisor()
    await again(api, task_id, mark, first)
    gate.open()
    await ended_as_second(api, task_id)


async def test_so_it_is_when_both_are_killed_at_once(kit, server, api: Api, gate, mark):
    agent = kit.start_agent(server)
    task_id = await submitted(api, gate, mark)
    first = await three(mark)
    supervisor = agent.supervisor
    agent.kill9()
    supervisor.kill()
    supervisor.wait(10)
    assert first <= mark.pids()
    agent.start()
    assert not first & mark.pids()
    await again(api, task_id, mark, first)
    gate.open()
    await ended_as_second(api, task_id)


async def submitted(api: Api, gate, mark: Mark) -> str:
    task_id = await api.create(*SCRIPT, gate.wait, "echo done", env=mark.env)
    await api.runs(task_id)
    return task_id


def is_sleep(process: psutil.Process) -> bool:
    """Whether it is a sleep, or one that has just ended."""
    try:
        return process.name() == "sleep"
    except psutil.NoSuchProcess:
        return True


async def three(mark: Mark) -> set[int]:
    """Return the ids of the three that stay; their sleeps come and go."""

    async def shells() -> set[int]:
        found = {process.pid for process in mark.living() if not is_sleep(process)}
        return found if len(found) == 3 else set()

    return await soon(shells)


async def all_gone(mark: Mark, pids: set[int]) -> None:
    async def gone() -> bool:
        return not pids & mark.pids()

    await soon(gone)


async def again(api: Api, task_id: str, mark: Mark, first: set[int]) -> None:
    await all_gone(mark, first)
    await three(mark)
    task = await api.runs(task_id)
    assert (task.attempt, task.infra_retries) == (2, 1)
    assert [attempt.status for attempt in task.attempts] == [LOST, 2]


async def ended_as_second(api: Api, task_id: str) -> None:
    task = await api.ended(task_id)
    assert (task.status, task.attempt, task.retried_times) == (SUCCESS, 2, 0)
    first, second, *_ = await api.text(task_id, attempt=2)
    assert (first.split()[0], second) == ("attempt", "done")
    ends = [change for change in (await api.history([task_id]))[task_id] if change.status > 3]
    assert len(ends) == 1
