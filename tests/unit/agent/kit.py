"""What tests of the agent share: processes as they see them, and waiting with a limit."""

import asyncio
import os
import time
from pathlib import Path

import psutil

from agent.spool import Spool


class AgentProcess:
    """An agent under test."""

    def __init__(self, process, data_dir, log):
        self.process = process
        self.data_dir = data_dir
        self.log = log

    def supervisor_pid(self):
        """Returns the pid of the supervisor that lives now, or None."""
        try:
            pid = int((self.data_dir / "supervisor.lock").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # A zombie has no command line, and a pid may be another's by now.
        ours = b"agent.supervisor" in command and os.fsencode(self.data_dir) in command
        return pid if ours else None

    async def ready(self):
        """Returns the line the agent prints once it is welcome."""
        return await asyncio.to_thread(self.process.stdout.readline)

    async def exit_code(self, seconds=20):
        """Waits for the agent's end."""
        return await asyncio.to_thread(self.process.wait, seconds)

    def spooled(self):
        """Returns the names of the attempts in the spool."""
        spool = self.data_dir / "spool"
        return [entry.name for entry in spool.iterdir() if not entry.name.startswith(".")]

    def left(self):
        """Returns the names of all that is in the spool, but for what waits for later attempts."""
        spool = Spool(self.data_dir)
        return [entry.name for entry in spool.path.iterdir() if entry != spool.shelf]


def waits(gate):
    """Returns the command that waits for a file."""
    return f"until [ -e {gate} ]; do sleep 0.02; done"


async def until(condition, seconds=20.0):
    """Waits until a condition holds and returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {condition}")
        await asyncio.sleep(0.01)
    return value


def alive(pid):
    """Tells whether a process lives and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked_processes(data_dir):
    """Returns pids of processes whose HOME lies in a data directory."""
    found = []
    for pid in psutil.pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if f"HOME={data_dir}".encode() in environment:
            found.append(pid)
    return found
