"""Runs one attempt of a task: starts it, watches it, ends all of it, writes down how it ended."""

import contextlib
import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable

from agent.spool import (
    EXIT,
    NO_ROOM,
    SCRIPT,
    TASK,
    TEMPORARY,
    AttemptFolder,
    has_room,
    is_full,
    may_pass,
)
from agent.supervisor import processes
from agent.supervisor.crew import Crew
from agent.supervisor.family import Family
from agent.supervisor.frames import Message
from agent.supervisor.limits import Limits
from agent.supervisor.masking import Mask
from agent.supervisor.order import LONGEST_LEASE_GRACE, Order, StartError
from agent.supervisor.output import OutputWriter, Pump
from agent.supervisor.processes import Kin
from agent.supervisor.reaper import Reaper

_PIPE_PATIENCE = 2.0
"""Seconds to wait for the ends of the pipes once every process found is gone."""

_FAULTS_OF_THE_TASK = {
    errno.E2BIG: "could not start: the environment (variables and secrets) is too large",
    errno.ENAMETOOLONG: "could not start: the workspace's name is too long",
}
"""What only the task's own environment or directory can be the cause of."""

_WRITE_AGAIN = 0.5
"""Seconds between tries to write how the task ended, when the disk is full."""


class Attempt:
    """One attempt of a task."""

    def __init__(
        self,
        order: Order,
        folder: AttemptFolder,
        limits: Limits,
        reaper: Reaper,
        crew: Crew,
        kin: Kin,
        others: Callable[[], set[int]],
        emit: Callable[[Message], None],
    ) -> None:
        self.order = order
        self.folder = folder
        self.main_pid: int | None = None
        self.started_at = 0
        self.end: Message | None = None
        self._reaper = reaper
        self._crew = crew
        self._limits = limits
        self._family = Family(order.mark, folder.path, kin, others)
        self._emit = emit
        self._changed = threading.Condition()
        self._exit_code: int | None = None
        self._stop: Message | None = None
        self._stop_by = order.stop_by
        self._armed = True
        self._writer = OutputWriter(folder, limits, self._output_grew)

    def prepare(self) -> None:
        """Makes the folder and says in it whose it is, before anything of it can run.

        Raises:
            OSError: It cannot be made; nothing of it is left.
        """
        try:
            self.folder.path.mkdir(mode=0o700)
            self.folder.write(TASK, self.order.identity())
        except OSError:
            self.folder.remove()
            raise

    def state(self) -> Message:
        """Returns where the attempt stands, as the session is told."""
        return {
            **self.order.identity(),
            "started_at": self.started_at,
            "running": self.main_pid is not None,
            "end": self.end,
        }

    def stop(self, cause: str, grace: float, message: str) -> None:
        """Ends the attempt; a second call can only shorten the grace."""
        with self._changed:
            kill_at = time.monotonic() + grace
            if self._stop is None:
                self._stop = {"cause": cause, "message": message, "kill_at": kill_at}
            self._stop["kill_at"] = min(self._stop["kill_at"], kill_at)
            self._changed.notify_all()

    def move_stop_by(self, moment: float) -> None:
        """Moves the moment (monotonic) at which the attempt stops by itself."""
        with self._changed:
            self._stop_by = moment
            self._changed.notify_all()

    def arm(self, segment: int, offset: int) -> None:
        """Asks for one word when there is output beyond a place."""
        with self._changed:
            beyond = (self._writer.segment, self._writer.offset) > (segment, offset)
            self._armed = not beyond
        if beyond:
            self._emit({"kind": "output", "lease": self.order.lease})

    def run(self) -> None:
        """Runs the attempt from start to end; takes as long as it does."""
        try:
            pump = self._spawn()
        except StartError as error:
            if error.handed_back:
                self.folder.remove()
            self._finish(error.cause, 0, str(error), error.failure)
            return
        cause, message = self._watch()
        self._end_processes(cause)
        with self._changed:
            self._changed.wait_for(lambda: self._exit_code is not None, timeout=60)
            code = self._exit_code if self._exit_code is not None else 128 + 9
        pump.finish(_PIPE_PATIENCE)
        self._finish(cause, code, message, "task")

    def _spawn(self) -> Pump:
        try:
            self._take_room()
            process = self._reaper.spawn(self._popen, self._exited)
        except StartError:
            raise
        except ValueError as error:  # a NUL byte or a name no environment can hold
            raise StartError(f"could not start: {error}", "task") from error
        except OSError as error:
            cause = NO_ROOM if is_full(error) else "not_started"
            if error.errno in _FAULTS_OF_THE_TASK:
                raise StartError(_FAULTS_OF_THE_TASK[error.errno], "task") from error
            raise StartError(f"could not start: {error}", "infrastructure", cause) from error
        self.main_pid = self._family.main_pid = process.pid
        self.started_at = time.time_ns() // 1_000_000
        with contextlib.suppress(OSError):  # a full disk; the mark finds the process without it
            self.folder.add(TASK, self._process(process.pid))
        self._emit({"kind": "started", **self.state()})
        pipes = {1: process.stdout, 2: process.stderr}
        pump = Pump(
            {stream: pipe for stream, pipe in pipes.items() if pipe is not None},
            self._writer,
            Mask(self.order.secrets.values()),
        )
        try:
            self._crew.do(pump.run)
        except RuntimeError as error:  # no more threads; what began cannot simply be handed back
            self.stop("stopped", 0, "")
            self._end_processes("stopped")
            raise StartError(f"could not start: {error}", "infrastructure", "stopped") from error
        return pump

    def _take_room(self) -> None:
        """Takes the disk that its end will need, while there is some."""
        self.folder.reserve(EXIT)
        if not has_room(self.folder.path, self._limits.spare_disk):
            raise OSError(errno.ENOSPC, "too little disk is left")

    def _popen(self) -> "subprocess.Popen[bytes]":
        workspace, temporary = self.folder.workspace, self.folder.path / TEMPORARY
        workspace.mkdir(mode=0o700)
        temporary.mkdir(mode=0o700)
        script = self.folder.path / SCRIPT
        script.write_bytes("".join(f"{command}\n" for command in self.order.commands).encode())
        return subprocess.Popen(  # noqa: S603 - to run what users send is what this is for
            ["/bin/sh", "-e", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.order.start_directory(workspace),
            env=self.order.environment(dict(os.environ), workspace, temporary),
            start_new_session=True,
        )

    def _process(self, pid: int) -> Message:
        process = processes.read(pid)
        return {
            "pid": pid,
            "start": process.start if process else 0,
            "boot": processes.boot_id(),
            "started_at": self.started_at,
        }

    def _exited(self, code: int) -> None:
        with self._changed:
            self._exit_code = code
            self._changed.notify_all()

    def _output_grew(self) -> None:
        with self._changed:
            armed, self._armed = self._armed, False
        if armed:
            self._emit({"kind": "output", "lease": self.order.lease})

    def _watch(self) -> tuple[str, str]:
        """Waits for the first thing that ends the attempt and returns its cause and message."""
        timeout_at = time.monotonic() + self.order.timeout
        with self._changed:
            while True:
                now = time.monotonic()
                if self._exit_code is not None:
                    return "exited", ""
                if self._stop is not None:
                    return self._stop["cause"], self._stop["message"]
                if now >= timeout_at:
                    self._stop = {"kill_at": now + self.order.kill_grace}
                    return "timeout", f"ran longer than {self.order.timeout:g} s"
                if self._stop_by is not None and now >= self._stop_by:
                    grace = min(self.order.kill_grace, LONGEST_LEASE_GRACE)
                    self._stop = {"kill_at": now + grace}
                    return "lease_ended", "stopped before its lease ended"
                wake_at = min(timeout_at, self._stop_by or timeout_at)
                self._changed.wait(wake_at - now)

    def _end_processes(self, cause: str) -> None:
        leftover_at = time.monotonic() + self.order.kill_grace

        def kill_at() -> float:
            return float(self._stop["kill_at"]) if self._stop is not None else leftover_at

        if not processes.end_all(self._family.find, kill_at):
            self._emit({"kind": "unkillable", "lease": self.order.lease, "cause": cause})

    def _finish(self, cause: str, code: int, message: str, failure: str) -> None:
        end = {
            "cause": cause,
            "exit_code": code,
            "message": message,
            "failure": failure,
            "ended_at": time.time_ns() // 1_000_000,
            "started_at": self.started_at,
            "dropped": self._writer.dropped,
        }
        while self.folder.exists:
            try:
                self.folder.write(EXIT, end)
                break
            except OSError as error:
                if not may_pass(error):  # the task did something to its folder
                    break
                time.sleep(_WRITE_AGAIN)  # a disk tells nobody that it has room
        self.end = end
        self._emit({"kind": "ended", **self.state()})
