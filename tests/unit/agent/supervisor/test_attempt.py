"""What runs is watched and ended in time, and never handed back, whatever fails around it."""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from agent import supervisor
from agent.supervisor import frames
from agent.supervisor.frames import SOCKET_NAME
from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import marked_processes, until

CODE = Path(supervisor.__file__).parents[2]

FAILING = """
import sys, time
from agent.supervisor import __main__ as program, attempt, output

def fail(*_):
    raise OSError(28, "nothing is left")

def hang(*_):
    time.sleep(600)

{}
sys.exit(program.main())
"""


@pytest.fixture
def start_supervisor(data_dir):
    """Starts a supervisor in which something may be broken; the agent finds it."""
    started = []

    def start(broken=""):
        process = subprocess.Popen(  # noqa: S603 - our own text
            [sys.executable, "-c", FAILING.format(broken), "--data-dir", str(data_dir)],
            env={**os.environ, "PYTHONPATH": str(CODE)},
            start_new_session=True,
        )
        started.append(process)

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_what_runs_and_cannot_be_watched_is_ended(
    plane, start_agent, start_supervisor, data_dir
):
    start_supervisor("attempt.Pump = fail")
    await until((data_dir / SOCKET_NAME).exists)
    await start_agent().ready()
    lease = plane.assign("trap '' TERM; sleep 600 & sleep 600")
    await until(lambda: lease.end or lease.handed_back)
    assert marked_processes(data_dir) == []
    assert not lease.handed_back
    assert lease.end.status == task_pb2.TASK_STATUS_FAILED
    assert lease.end.failure == agent_pb2.FAILURE_CLASS_INFRASTRUCTURE
    assert "nothing is left" in lease.end.error_message


async def test_what_is_handed_back_does_not_run(plane, start_agent, start_supervisor, data_dir):
    start_supervisor("attempt.Mask = fail")
    await until((data_dir / SOCKET_NAME).exists)
    await start_agent().ready()
    lease = plane.assign("sleep 600")
    await until(lambda: lease.end or lease.handed_back)
    assert lease.handed_back
    assert marked_processes(data_dir) == []


class Session:
    """Speaks with a supervisor as a session does."""

    def __init__(self, data_dir):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        with frames.ShortPath(data_dir) as path:
            self._socket.connect(path)
        self._splitter = frames.Splitter()
        self._heard = []
        self.say(kind="hello", protocol=frames.PROTOCOL)

    def say(self, **message):
        self._socket.sendall(frames.encode(message))

    def start(self, *commands, **order):
        task = uuid.uuid4().hex
        self.say(kind="start", lease="lease", task=task, attempt=1, commands=commands, **order)

    def hear(self, kind):
        """Waits for a message of a kind and returns it."""
        while not (found := [message for message in self._heard if message["kind"] == kind]):
            data = self._socket.recv(4096)
            assert data, "the supervisor hung up"
            self._heard += self._splitter.feed(data)
        self._heard.remove(found[0])
        return found[0]

    def close(self):
        self._socket.close()


async def test_a_supervisor_that_hangs_lets_no_task_outlive_its_timeout(start_supervisor, data_dir):
    start_supervisor("output.OutputWriter.append = hang")
    await until((data_dir / SOCKET_NAME).exists)
    session = Session(data_dir)
    session.start("echo on", "exec sleep 600", timeout=1.0, kill_grace=0.1)
    session.close()
    await until(lambda: marked_processes(data_dir))
    await until(lambda: marked_processes(data_dir) == [])


@pytest.fixture
async def session(data_dir, start_supervisor):
    """A session with a supervisor."""
    start_supervisor()
    await until((data_dir / SOCKET_NAME).exists)
    session = Session(data_dir)
    yield session
    session.close()
    for pid in marked_processes(data_dir):
        os.kill(pid, signal.SIGKILL)


async def test_no_grace_is_longer_than_the_lease(session, data_dir):
    stop_by = time.monotonic() + 60
    session.start(
        *("trap '' TERM", "echo ready", "while :; do sleep 0.1; done"),
        **{"timeout": 600.0, "kill_grace": 0.1, "stop_by": stop_by},
    )
    session.hear("output")
    session.say(kind="stop", lease="lease", cause="cancelled", grace=600.0, message="")
    session.say(kind="renew", stop_by={"lease": time.monotonic() + 0.1})
    assert session.hear("ended")["end"]["cause"] == "cancelled"
    assert marked_processes(data_dir) == []


@pytest.mark.parametrize("name", ["INT", "HUP", "PIPE"])
async def test_a_task_can_trap_what_the_agent_ignores(session, name):
    session.start(f"trap 'exit 41' {name}", f"kill -{name} $$", timeout=600.0)
    assert session.hear("ended")["end"]["exit_code"] == 41
