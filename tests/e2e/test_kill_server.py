"""kill -9 of the server: nothing acknowledged is lost, and what runs goes on."""

import asyncio

import grpc
import pytest

from tests.e2e.api import Api, soon
from tests.e2e.kit import eventually
from tests.e2e.scripts import is_alive

SUCCESS = 4


@pytest.fixture
def server(kit):
    return kit.start_server()


async def submit_for_ever(api: Api, acknowledged: list[str]) -> None:
    """Submit tasks one after another, and note each one that the server has answered."""
    while True:
        executor = "noop" if len(acknowledged) % 4 else ""
        acknowledged.append(await api.create("echo $((6 * 7))", executor=executor))


async def submit_until_it_breaks(api: Api, acknowledged: list[str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as broken:
        await submit_for_ever(api, acknowledged)
    assert broken.value.code() is grpc.StatusCode.UNAVAILABLE


async def kill_when(server, acknowledged: list[str], number: int) -> None:
    """Kill the server as soon as so many tasks are acknowledged."""

    async def enough() -> bool:
        return len(acknowledged) >= number

    await soon(enough, every=0.001)
    server.kill9()


async def test_whatever_was_acknowledged_is_there_and_ends_once(kit, server):
    kit.start_agent(server, slots=4)
    acknowledged: list[str] = []
    for number in (60, 160, 260):
        async with Api(server.grpc) as api, asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(submit_until_it_breaks(api, acknowledged))
            tasks.create_task(kill_when(server, acknowledged, number))
        server.start()
    assert len(set(acknowledged)) == len(acknowledged) >= 260
    async with Api(server.grpc) as api:
        await everything_ends_once(api, acknowledged)


async def everything_ends_once(api: Api, task_ids: list[str]) -> None:
    for task_id, changes in (await api.history(task_ids)).items():
        ends = [change.status for change in changes if change.status > 3]
        assert ends == [SUCCESS], f"{task_id}: {changes}"
    for task_id in task_ids:
        task = await api.task(task_id)
        assert task.status == SUCCESS
        # An assignment that the crash swallowed is handed back; nothing was run twice.
        ran = [attempt.status for attempt in task.attempts if attempt.started_at]
        assert ran == [3], task.attempts
        if not task.executor:
            assert await api.text(task_id) == ["42"]


async def test_a_running_task_goes_on_undisturbed(kit, server, gate, tmp_path):
    agent = kit.start_agent(server)
    told = tmp_path / "told"
    told.touch()
    async with Api(server.grpc) as api:
        task_id = await api.create(
            "i=0",
            f"while [ ! -e {gate.path} ]; do i=$((i+1)); echo tick $i of $$ | tee -a {told};"
            " sleep 0.02; done",
        )
        await api.runs(task_id)
    eventually(lambda: lines(told) > 5)
    server.kill9()
    pid = int(told.read_text().split()[3])
    before = lines(told)
    eventually(lambda: lines(told) > before + 20)
    server.start()
    async with Api(server.grpc) as api:
        await follows_on(api, task_id, before + 20)
        assert (agent.program.exit_code, is_alive(pid)) == (None, True)
        gate.open()
        task = await api.ended(task_id)
        assert (task.status, task.attempt, task.infra_retries) == (SUCCESS, 1, 0)
        ticks = [f"tick {i} of {pid}" for i in range(1, lines(told) + 1)]
        assert await api.text(task_id) == ticks
        changes = (await api.history([task_id]))[task_id]
        assert [change.status for change in changes] == [2, 3, SUCCESS]


async def test_what_ended_while_the_server_was_away_is_reported_when_it_is_back(
    kit, server, gate, tmp_path
):
    kit.start_agent(server)
    async with Api(server.grpc) as api:
        task_id = await api.create(gate.wait, "seq 1 300", f"touch {tmp_path}/done")
        waiting = await api.create("echo next")
        await api.runs(task_id)
    server.kill9()
    gate.open()
    eventually((tmp_path / "done").exists)
    server.start()
    async with Api(server.grpc) as api:
        for each, expected in ((task_id, 300), (waiting, 1)):
            task = await api.ended(each)
            assert (task.status, task.attempt, task.infra_retries) == (SUCCESS, 1, 0)
            assert len(await api.text(each)) == expected


async def follows_on(api: Api, task_id: str, line: int) -> None:
    """Wait until the log has a line."""
    async for answer in api.follow(task_id, from_line=line):
        assert answer.log_chunk.line_number == line
        return


def lines(file) -> int:
    return len(file.read_text().splitlines())
