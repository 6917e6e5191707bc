"""Fixtures: a control plane of a test, and agents that are real processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.agent.control_plane import ControlPlane
from tests.unit.agent.kit import AgentProcess, marked_processes

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def plane():
    """A control plane on a free port of the loopback."""
    control_plane = ControlPlane()
    await control_plane.start()
    yield control_plane
    await control_plane.stop()


@pytest.fixture
def data_dir(tmp_path):
    """A data directory so deep that a socket's path inside it is too long for a socket."""
    path = tmp_path / ("deep" * 20) / "agent"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def gate(tmp_path):
    """A file that scripts wait for."""
    return tmp_path / "gate"


@pytest.fixture
def start_agent(plane, data_dir, tmp_path):
    """Starts agents; ends whatever they and their supervisors leave."""
    started = []

    def start(*flags, folder=data_dir):
        log = (tmp_path / f"agent-{len(started)}.log").open("wb")
        process = subprocess.Popen(  # noqa: S603 - the agent under test
            [
                *(sys.executable, "-m", "agent", "--server", f"127.0.0.1:{plane.port}"),
                *("--data-dir", str(folder), "--slots", "2", "--log-level", "debug", *flags),
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SECRET_OF_THE_HOST": "1"},
        )
        started.append((process, log, folder))
        return AgentProcess(process, folder, Path(log.name))

    yield start
    for process, log, _ in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        log.close()
    for folder in {folder for _, _, folder in started}:
        end_supervisor(folder)
    for pid in marked_processes(data_dir):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(data_dir, ignore_errors=True)


def end_supervisor(folder):
    """Lets a folder's supervisor stop its tasks and end; a hung one is killed."""
    agent = AgentProcess(None, folder, None)
    pid = agent.supervisor_pid()
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while agent.supervisor_pid() is not None:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
