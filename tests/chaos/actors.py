"""The programs under test as the run sees them: up, frozen, down, and what each did by itself."""

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

import psutil

from agent.spool import Spool
from tests.e2e.processes import Launcher, Program

SUPERVISOR_LOCK = "supervisor.lock"
STOP_WITHIN = 90.0


class Actor:
    """One program that is started again and again, and must never end by itself."""

    kind = ""

    def __init__(self, launcher: Launcher, name: str):
        self.name = name
        self.program: Program | None = None
        self.wanted = False
        self.starts = 0
        self.refused_starts = 0
        self._launcher = launcher
        self._ready: dict[str, str] | None = None

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def start(self):
        self._ready = None
        self.starts += 1
        self.wanted = True
        self.program = self._launcher.start(self.name, self.arguments())

    def kill(self):
        self.wanted = False
        self._ready = None
        self.program.kill9()

    def freeze(self):
        self.program.signal(signal.SIGSTOP)

    def thaw(self):
        self.program.signal(signal.SIGCONT)

    async def terminate(self) -> int | None:
        """Ask it to stop; return how it ended, or None when it had to be killed."""
        self.wanted = False
        if self.program.exit_code is None:
            self.program.signal(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + STOP_WITHIN
        while self.program.exit_code is None:
            if loop.time() > give_up:
                self.program.kill9()
                return None
            await asyncio.sleep(0.05)
        self._ready = None
        return self.program.exit_code

    @property
    def died(self) -> bool:
        """Whether it has ended although nobody told it to."""
        return self.wanted and self.program.exit_code is not None

    def told(self) -> dict[str, str]:
        """Return what its ready line says, or nothing before that."""
        if self._ready is None and self.program is not None:
            lines = self.program.said().splitlines(keepends=True)
            for line in lines:
                if line.startswith("ready ") and line.endswith("\n"):
                    self._ready = dict(part.split("=", 1) for part in line.split()[1:])
        return self._ready or {}

    def complaints(self) -> list[str]:
        """Return what no program may write: errors of its own making, and tracebacks."""
        found = []
        for program in self._launcher.started:
            if program.name.startswith(f"{self.name}-"):
                text = program.complained()
                found += [f"{program.name}: {line}" for line in complaints_in(text)]
        return found


def complaints_in(text: str, levels: tuple[str, ...] = ("error", "critical")) -> list[str]:
    """Return the lines of a log that tell of a bug, with the rest of a traceback."""
    lines = text.splitlines()
    found = []
    for index, line in enumerate(lines):
        if line.startswith("Traceback"):
            found.append("\n".join(lines[index : index + 40]))
            break
        with contextlib.suppress(ValueError, AttributeError):
            record = json.loads(line)
            if record.get("level") in levels or "exception" in record:
                found.append(line[:4000])
    return found


class ServerActor(Actor):
    """A control plane on free ports of its own choice: each start takes others."""

    kind = "server"

    def __init__(self, launcher: Launcher, name: str, folder: Path, flags: list[str]):
        super().__init__(launcher, name)
        self._folder = folder
        self._flags = flags

    def arguments(self) -> list[str]:
        listen = ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        folder = ["--data-dir", str(self._folder), "--log-format", "json"]
        return [sys.executable, "-m", "server", *folder, *listen, *self._flags]

    @property
    def address(self) -> tuple[str, int] | None:
        """Where it serves, or None while it does not."""
        if not self.wanted or "grpc" not in self.told():
            return None
        host, _, port = self.told()["grpc"].rpartition(":")
        return host, int(port)


class AgentActor(Actor):
    """A session process and the supervisor it has started."""

    kind = "agent"

    def __init__(self, launcher: Launcher, name: str, folder: Path, server: str, slots: int):
        super().__init__(launcher, name)
        self.folder = folder
        self.slots = slots
        self._server = server

    def arguments(self) -> list[str]:
        place = ["--server", self._server, "--data-dir", str(self.folder), "--name", self.name]
        size = ["--slots", str(self.slots), "--drain-limit", "2"]
        return [sys.executable, "-m", "agent", *place, *size]

    @property
    def supervisor(self) -> psutil.Process | None:
        """The supervisor that lives, by the pid in its lock file and its command line."""
        try:
            process = psutil.Process(int((self.folder / SUPERVISOR_LOCK).read_text()))
            command = process.cmdline()
        except (OSError, ValueError, psutil.Error):
            return None
        ours = "agent.supervisor" in command and str(self.folder) in command
        return process if ours else None

    def left_over(self) -> list[str]:
        """Return what lies in its spool: nothing once the server has acknowledged all."""
        spool = Spool(self.folder)
        found = spool.path.iterdir() if spool.path.is_dir() else ()
        return sorted(entry.name for entry in found if entry != spool.shelf)

    def complaints(self) -> list[str]:
        # "error" is what a session says when its supervisor is gone, which is our doing.
        found = []
        for program in self._launcher.started:
            if program.name.startswith(f"{self.name}-"):
                for line in complaints_in(program.complained(), ("critical",)):
                    found.append(f"{program.name}: {line}")
        log = self.folder / "supervisor.log"
        if log.exists():
            found += [f"{self.name} supervisor: {line}" for line in complaints_in(log.read_text())]
        return found
