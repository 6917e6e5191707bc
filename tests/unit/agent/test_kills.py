"""kill -9 of every process at every step of a task's life: it ends once, and nothing is left."""

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.spool import EXIT, TASK, AttemptFolder
from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import marked_processes, until

HALF = 300
LINES = [f"line {i}" for i in range(1, 2 * HALF + 1)]


@dataclass
class Story:
    """One task, the agent that has it, and what is looked at on the way."""

    plane: Any
    agent: Any
    gate: Path
    lease: Any = None
    blocker: Any = None

    @property
    def waits(self):
        return f"until [ -e {self.gate} ]; do sleep 0.02; done"

    @property
    def folder(self):
        return AttemptFolder(self.agent.data_dir / "spool" / self.lease.task.lease_id)

    def assign(self, padding=""):
        first, second = f"$(seq 1 {HALF})", f"$(seq {HALF + 1} {2 * HALF})"
        show = "for i in {}; do echo line $i; done"
        self.lease = self.plane.assign(
            show.format(first), self.waits, show.format(second), f"#{padding}"
        )

    async def at_once(self, condition):
        """Waits in a thread and without a pause: the next step is only microseconds away."""

        def spin():
            while not condition():
                pass

        async with asyncio.timeout(20):
            await asyncio.to_thread(spin)

    def stop(self, pid):
        os.kill(pid, signal.SIGSTOP)


async def received(story):
    """The session has the assignment, or is about to; it would wait for the only slot."""
    story.blocker = story.plane.assign(story.waits)
    await until(lambda: story.blocker.statuses)
    story.assign()
    await until(lambda: story.lease.delivered)
    assert not story.folder.exists


async def ordered(story):
    """The session has told the supervisor to start it, and that has not listened yet."""
    story.stop(story.agent.supervisor_pid())
    story.assign()
    await until(lambda: story.plane.beats and story.plane.beats[-1].running_jobs_count)
    assert not story.folder.exists


async def written(story):
    """task.json is there, and names no process yet."""
    story.assign("x" * 2_000_000)  # takes its time to be written, between task.json and the spawn
    await story.at_once(lambda: story.folder.read(TASK))


async def spawned(story):
    """task.json names the process."""
    story.assign()
    await story.at_once(lambda: "pid" in (story.folder.read(TASK) or {}))


async def running(story):
    """RUNNING is reported."""
    story.assign()
    await until(lambda: story.lease.statuses)


async def printing(story):
    """Some of the log is there, and more is to come."""
    story.assign()
    await until(lambda: len(story.lease.lines) == HALF)


async def ended(story):
    """exit.json is written; the session has not heard of it."""
    await printing(story)
    story.stop(story.agent.process.pid)
    story.gate.touch()
    await until(lambda: story.folder.read(EXIT))


async def reported(story):
    """The end is reported and the server has it; its answer is still to come."""
    await printing(story)
    story.plane.answer_reports = False
    story.gate.touch()
    await until(lambda: story.lease.whole)


async def acknowledged(story):
    """End and log are acknowledged; the folder is still there."""
    await reported(story)
    story.stop(story.agent.supervisor_pid())
    story.plane.answer()
    beats = len(story.plane.beats)
    await until(lambda: len(story.plane.beats) > beats and not story.plane.beats[-1].held.leases)
    assert story.folder.exists


STEPS = [received, ordered, written, spawned, running, printing, ended, reported, acknowledged]
NOT_BEGUN = [received, ordered]
BEGUN = [written, spawned, running, printing]


def fate(step, victims):
    """Returns what a task comes to: what has begun dies with its supervisor, by all accounts.

    What has not begun is in the session's memory, or on its way to the supervisor.
    """
    if victims != "session" and step in BEGUN:
        return "lost"
    if (victims == "both" and step in NOT_BEGUN) or (victims == "session" and step is received):
        return "given out again"
    return "done"


async def kill(agent, victims):
    """Kills -9; who lives on and was stopped by a step goes on."""
    supervisor = agent.supervisor_pid()
    if victims != "supervisor":
        agent.process.kill()
        await agent.exit_code()
    if victims != "session":
        os.kill(supervisor, signal.SIGKILL)
    if victims == "session":
        os.kill(supervisor, signal.SIGCONT)
    elif victims == "supervisor":
        agent.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("victims", ["session", "supervisor", "both"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
async def test_a_task_ends_once_whoever_dies(plane, start_agent, tmp_path, step, victims):
    agent = start_agent("--slots", "1")
    await agent.ready()
    story = Story(plane, agent, tmp_path / "gate")
    await step(story)
    await kill(agent, victims)
    plane.answer_reports = True
    plane.answer()
    if victims != "supervisor":
        start_agent("--slots", "1")
    await until(lambda: len(plane.registrations) == (1 if victims == "supervisor" else 2))
    lease, expected = story.lease, fate(step, victims)
    if expected == "lost":  # before what is left of it could end by itself
        await until(lambda: lease.whole)
        assert marked_processes(agent.data_dir) == []
    story.gate.touch()
    await until(lambda: lease.released or lease.whole)
    if story.blocker is not None:
        await until(lambda: story.blocker.whole)
        assert len(story.blocker.ends) == 1
    await until(lambda: agent.left() == [])
    assert marked_processes(agent.data_dir) == []
    if step is received and victims == "supervisor" and lease.released:
        expected = "given out again"  # the next supervisor took longer than a task waits for a slot
    assert lease.released == (expected == "given out again")
    assert len(lease.ends) == (0 if lease.released else 1)
    if expected == "given out again":
        assert lease.statuses == []
    elif expected == "done":
        assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS
        assert lease.text == LINES
    else:
        assert lease.end.failure == agent_pb2.FAILURE_CLASS_INFRASTRUCTURE
        assert lease.text == LINES[: len(lease.lines)]
        assert len(lease.lines) >= (HALF if step is printing else 0)
