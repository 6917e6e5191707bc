"""kill -9 of the agent's session: its tasks never notice."""

import pytest

from tests.e2e.api import Api
from tests.e2e.kit import eventually
from tests.e2e.scripts import is_alive

SUCCESS = 4


@pytest.fixture
def server(kit):
    return kit.start_server()


def lines(file):
    return file.read_text().splitlines() if file.exists() else []


async def test_a_task_goes_on_undisturbed_and_ends_once(kit, server, api: Api, gate, tmp_path):
    agent = kit.start_agent(server)
    told = tmp_path / "told"
    task_id = await api.create(
        "i=0",
        f'while [ ! -e "$GATE" ]; do i=$((i+1)); echo "tick $i of $$" | tee -a {told}; sleep 0.02;'
        " done",
        'echo "done $i"',
        env={"GATE": str(gate.path)},
    )
    await api.runs(task_id)
    eventually(lambda: len(lines(told)) > 5)
    supervisor = agent.supervisor.pid
    agent.kill9()
    before = len(lines(told))
    pid = int(lines(told)[0].split()[-1])
    assert is_alive(pid)
    eventually(lambda: len(lines(told)) > before + 10)
    agent.start()
    restarted = len(lines(told))
    eventually(lambda: len(lines(told)) > restarted + 5)
    assert (agent.supervisor.pid, is_alive(pid)) == (supervisor, True)
    gate.open()
    task = await api.ended(task_id)
    assert (task.status, task.attempt, task.infra_retries, len(task.attempts)) == (SUCCESS, 1, 0, 1)
    ticks = lines(told)
    assert ticks == [f"tick {i} of {pid}" for i in range(1, len(ticks) + 1)]
    assert await api.text(task_id) == [*ticks, f"done {len(ticks)}"]
    changes = (await api.history([task_id]))[task_id]
    assert [change.status for change in changes] == [2, 3, SUCCESS]


async def test_what_ended_meanwhile_is_reported_by_the_next_session(
    kit, server, api: Api, gate, tmp_path
):
    agent = kit.start_agent(server, slots=2)
    tells = 'printf "a=1\\nb<<X\\n1\\n2\\nX\\n" >> "$MUSTER_OUTPUT"'
    good = await api.create(gate.wait, "seq 1 500", tells, f"touch {tmp_path}/good")
    bad = await api.create(gate.wait, f"touch {tmp_path}/bad", "exit 7")
    await api.runs(good)
    await api.runs(bad)
    agent.kill9()
    gate.open()
    eventually(lambda: (tmp_path / "good").exists() and (tmp_path / "bad").exists())
    server.kill9()  # what it was told before it died, and what it is told after, is all there
    server.start()
    agent.start()
    task = await api.ended(good)
    assert (task.status, task.attempt) == (SUCCESS, 1)
    assert dict(task.outputs) == {"a": "1", "b": "1\n2"}
    assert await api.text(good) == [str(number) for number in range(1, 501)]
    task = await api.ended(bad)
    assert (task.exit_code, task.attempt, task.infra_retries) == (7, 1, 0)


async def test_a_session_killed_again_and_again_repeats_no_line(
    kit, server, api: Api, gate, tmp_path
):
    agent = kit.start_agent(server)
    task_id = await api.create(
        "i=0",
        'while [ ! -e "$GATE" ]; do for _ in 1 2 3 4 5; do i=$((i+1)); echo $i; done; sleep 0.01;'
        " done",
        "echo last $i",
        env={"GATE": str(gate.path)},
    )
    await api.runs(task_id)
    for _ in range(4):
        stored = (await api.task(task_id)).attempts[0].log_lines
        agent.kill9()
        agent.start()
        await grows(api, task_id, stored)
    gate.open()
    task = await api.ended(task_id)
    assert (task.status, task.attempt) == (SUCCESS, 1)
    *numbers, last = await api.text(task_id)
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert last == f"last {len(numbers)}"


async def grows(api: Api, task_id: str, stored: int) -> None:
    async for answer in api.follow(task_id, from_line=stored + 1, batched=True):
        assert answer.log_chunks
        return
