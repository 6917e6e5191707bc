"""A full spool slows the task down and drops nothing."""

import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from agent import supervisor
from agent.supervisor.frames import SOCKET_NAME
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import until

CODE = Path(supervisor.__file__).parents[2]
SPOOL_BYTES = 64 * 1024


def spooled_bytes(data_dir):
    return sum(path.stat().st_size for path in (data_dir / "spool").glob("[!.]*/out-*.seg"))


@pytest.fixture
def small_supervisor(data_dir):
    """A supervisor with little room, which the agent finds running."""
    small = ("--spool-bytes", str(SPOOL_BYTES), "--segment-bytes", "8192")
    process = subprocess.Popen(  # noqa: S603 - a process of ours
        [sys.executable, "-m", "agent.supervisor", "--data-dir", str(data_dir), *small],
        env={**os.environ, "PYTHONPATH": str(CODE)},
        start_new_session=True,
    )
    yield process
    process.terminate()
    process.wait()


async def test_a_task_waits_for_room_and_its_log_is_whole(
    plane, small_supervisor, start_agent, data_dir
):
    await until((data_dir / SOCKET_NAME).exists)
    agent = start_agent()
    await agent.ready()
    plane.log_errors = [grpc.StatusCode.UNAVAILABLE.value[0]] * 10_000
    lease = plane.assign("for i in $(seq 1 60000); do echo line $i; done; echo ready >&2")
    await until(lambda: spooled_bytes(data_dir) >= SPOOL_BYTES)
    before = plane.log_errors
    await until(lambda: len(plane.beats) > 1)
    assert spooled_bytes(data_dir) < SPOOL_BYTES + 3 * 64 * 1024
    assert not lease.ends
    before.clear()
    await until(lambda: lease.whole, seconds=40)
    assert [line for line in lease.text if line != "ready"] == [
        f"line {i}" for i in range(1, 60001)
    ]
    agent.process.terminate()
    assert await agent.exit_code() == 0
    await until(lambda: small_supervisor.poll() is not None)


async def test_a_cancel_ends_a_task_that_waits_for_room(
    plane, small_supervisor, start_agent, data_dir
):
    await until((data_dir / SOCKET_NAME).exists)
    agent = start_agent()
    await agent.ready()
    plane.log_errors = [grpc.StatusCode.UNAVAILABLE.value[0]] * 10_000
    lease = plane.assign("exec yes")
    await until(lambda: spooled_bytes(data_dir) >= SPOOL_BYTES)
    plane.cancel(lease)
    await until(lambda: lease.ends, seconds=20)
    assert lease.ends[0].status == task_pb2.TASK_STATUS_CANCELLED
    plane.log_errors.clear()
    await until(lambda: lease.whole, seconds=40)
    agent.process.terminate()
    assert await agent.exit_code() == 0
