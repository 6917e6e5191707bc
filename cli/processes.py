"""Programs started beside this one: until they are ready, until they end, until they stop."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from cli.failure import CommandFailed

READY_LIMIT = timedelta(seconds=30)
TAIL_LINES = 20
LONGEST_LINE = 1024 * 1024
READY = "ready"


class Program:
    """A module of ours that runs as a process of its own, with its output in a file."""

    def __init__(
        self, name: str, log: Path, process: asyncio.subprocess.Process, begins_at: int = 0
    ) -> None:
        self.name = name
        self.log = log
        self.process = process
        self._begins_at = begins_at
        """Where in the log its own lines begin; earlier ones are of an earlier start."""

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str], log: Path) -> "Program":
        """Start `python -m` with the arguments; a Ctrl-C here does not reach it."""
        with log.open("ab") as errors:
            begins_at = errors.tell()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=_environment(),
                start_new_session=True,
                limit=LONGEST_LINE,
            )
        return cls(name, log, process, begins_at)

    async def ready(self) -> dict[str, str]:
        """Return what the program says about itself when it is ready: `ready grpc=HOST:PORT`.

        Raises:
            CommandFailed: when it ends or takes too long.
        """
        try:
            async with asyncio.timeout(READY_LIMIT.total_seconds()):
                words = await self._ready_line()
        except TimeoutError:
            raise self.failure(f"is not ready after {READY_LIMIT.seconds} s") from None
        return dict(word.split("=", 1) for word in words if "=" in word)

    async def ended(self) -> int:
        """Return the exit code once the program has ended; keeps what it prints until then."""
        if self.process.stdout:
            while line := await self.process.stdout.readline():
                self._keep(line)
        return await self.process.wait()

    async def fail_at_end(self) -> None:
        """Wait until the program ends, which it should not.

        Raises:
            CommandFailed: then.
        """
        code = await self.ended()
        raise self.failure(f"ended by itself with {code}")

    async def stop(self, limit: timedelta) -> None:
        """Ask the program to end, and kill it after the limit."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(limit.total_seconds()):
                await self.ended()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.ended()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal unless the program has ended."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def failure(self, what: str) -> CommandFailed:
        """Return an error about the program with the end of its log."""
        return CommandFailed(f"the {self.name} {what}; the end of {self.log}:\n{self.tail()}")

    def tail(self) -> str:
        """Return the last lines the program printed."""
        own = self.log.read_bytes()[self._begins_at :].decode(errors="replace")
        lines = own.splitlines()[-TAIL_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (nothing)"

    async def _ready_line(self) -> list[str]:
        """Return the words of the line that begins with `ready`."""
        assert self.process.stdout  # noqa: S101 - it was started with a pipe
        while line := await self.process.stdout.readline():
            self._keep(line)
            words = line.decode(errors="replace").split()
            if words[:1] == [READY]:
                return words[1:]
        raise self.failure(f"ended with {await self.process.wait()} before it was ready")

    def _keep(self, line: bytes) -> None:
        with self.log.open("ab") as log:
            log.write(line)


def _environment() -> dict[str, str]:
    """Return an environment in which `-m` finds our packages and not those of some folder here."""
    ours = str(Path(__file__).parents[1])
    others = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([ours, others] if others else [ours])
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
