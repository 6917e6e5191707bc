"""A task that runs is never handed back or forgotten, whatever fails around it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent import supervisor
from agent.supervisor.frames import SOCKET_NAME
from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import marked_processes, until

CODE = Path(supervisor.__file__).parents[2]

FAILING = """
import sys
from agent.supervisor import __main__ as program, attempt

def fail(*_):
    raise OSError(28, "nothing is left")

setattr(attempt, sys.argv.pop(1), fail)
sys.exit(program.main())
"""


@pytest.fixture
def supervisor_without(data_dir):
    """Starts a supervisor in which a part of an attempt cannot be made; the agent finds it."""
    started = []

    def start(part):
        process = subprocess.Popen(  # noqa: S603 - our own text
            [sys.executable, "-c", FAILING, part, "--data-dir", str(data_dir)],
            env={**os.environ, "PYTHONPATH": str(CODE)},
            start_new_session=True,
        )
        started.append(process)

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_what_runs_and_cannot_be_watched_is_ended(
    plane, start_agent, supervisor_without, data_dir
):
    supervisor_without("Pump")
    await until((data_dir / SOCKET_NAME).exists)
    await start_agent().ready()
    lease = plane.assign("trap '' TERM; sleep 600 & sleep 600")
    await until(lambda: lease.end or lease.handed_back)
    assert marked_processes(data_dir) == []
    assert not lease.handed_back
    assert lease.end.status == task_pb2.TASK_STATUS_FAILED
    assert lease.end.failure == agent_pb2.FAILURE_CLASS_INFRASTRUCTURE
    assert "nothing is left" in lease.end.error_message


async def test_what_is_handed_back_does_not_run(plane, start_agent, supervisor_without, data_dir):
    supervisor_without("Mask")
    await until((data_dir / SOCKET_NAME).exists)
    await start_agent().ready()
    lease = plane.assign("sleep 600")
    await until(lambda: lease.end or lease.handed_back)
    assert lease.handed_back
    assert marked_processes(data_dir) == []
