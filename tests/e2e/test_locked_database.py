"""Another process keeps the database locked: callers are told at once, and nothing is lost."""

import shutil
import sys
import time

import grpc
import httpx2
import pytest

from generated.task.v1 import task_pb2
from tests.e2e.api import Api, refusal
from tests.e2e.kit import eventually

SUCCESS = 4

# Takes the lock that a backup or a curious person's shell would take, and keeps it.
HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("BEGIN EXCLUSIVE")
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def server(kit):
    return kit.start_server()


@pytest.fixture
def lock(kit, server):
    """Return a function that locks the database; the program it returns holds it."""

    def lock():
        words = [sys.executable, "-c", HOLD, str(server.data_dir / "muster.db")]
        holder = kit.launcher.start("holder", words)
        eventually(lambda: "ready" in holder.said())
        return holder

    return lock


async def test_a_submit_is_refused_as_unavailable_and_works_again_by_itself(server, api: Api, lock):
    before = await api.create("true")
    holder = lock()
    began = time.monotonic()
    refused = await refusal(api.create("true"))
    assert time.monotonic() - began < 5
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "STORE_UNAVAILABLE",
    )
    assert refused.retry_after is not None
    assert 0 < refused.retry_after < 10
    assert (await api.task(before)).task_id == before  # who only reads is not held up
    holder.kill9()
    after = await api.create("true")
    listed = await api.tasks.ListTasks(task_pb2.ListTasksRequest())
    assert {task.task_id for task in listed.tasks} == {before, after}


async def test_a_server_that_cannot_write_is_not_ready_until_it_can(server, api: Api, lock):
    with httpx2.Client(base_url=f"http://{server.http}", timeout=20) as web:
        holder = lock()
        await refusal(api.create("true"))
        answer = web.get("/readyz")
        assert (answer.status_code, "locked" in answer.text) == (503, True)
        holder.kill9()
        # Nobody else writes: it tries by itself.
        eventually(lambda: web.get("/readyz").status_code == 200)


async def test_tasks_that_run_meanwhile_still_end_once_with_their_whole_log(
    kit, server, api: Api, lock, gate, tmp_path
):
    kit.start_agent(server, slots=2)
    task_id = await api.create("echo one", gate.wait, "seq 1 200", f"touch {tmp_path}/done")
    await api.runs(task_id)
    waiting = await api.create("echo next", depends_on=[task_id])
    holder = lock()
    gate.open()
    eventually((tmp_path / "done").exists)
    refused = await refusal(api.create("true"))
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    holder.kill9()
    for each, lines in ((task_id, 201), (waiting, 1)):
        task = await api.ended(each)
        assert (task.status, task.attempt, task.infra_retries) == (SUCCESS, 1, 0)
        assert len(await api.text(each)) == lines
    changes = await api.history([task_id])
    assert [change.status for change in changes[task_id]] == [2, 3, SUCCESS]


async def test_an_agent_that_comes_while_it_is_locked_gets_in_afterwards(
    kit, server, api: Api, lock
):
    task_id = await api.create("true")
    holder = lock()
    words = [sys.executable, "-m", "agent", "--server", server.grpc, "--data-dir", "late"]
    agent = kit.launcher.start("late", words)
    eventually(lambda: "UNAVAILABLE" in agent.complained(), within=20)
    holder.kill9()
    assert agent.ready_line().startswith("ready ")
    assert (await api.ended(task_id)).status == SUCCESS


async def test_a_database_deleted_in_use_is_told_and_nothing_is_acknowledged(server, api: Api):
    with httpx2.Client(base_url=f"http://{server.http}") as web:
        assert web.get("/readyz").status_code == 200
        await api.create("true")
        shutil.rmtree(server.data_dir)
        refused = await refusal(api.create("true"))
        assert refused.code is grpc.StatusCode.UNAVAILABLE
        answer = web.get("/readyz")
        assert (answer.status_code, "deleted or replaced" in answer.text) == (503, True)
