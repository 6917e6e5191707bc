"""Runs one attempt of a task: starts it, watches it, ends all of it, writes down how it ended."""

import contextlib
import errno
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from agent.spool import (
    EXIT,
    NO_ROOM,
    SCRIPT,
    TASK,
    TEMPORARY,
    WORKSPACE,
    AttemptFolder,
    has_room,
    is_full,
    may_pass,
)
from agent.supervisor import processes
from agent.supervisor.confinement import Confinement
from agent.supervisor.family import Family
from agent.supervisor.folders import Folders
from agent.supervisor.frames import Message
from agent.supervisor.limits import Limits
from agent.supervisor.loop import Loop
from agent.supervisor.masking import Mask
from agent.supervisor.order import LONGEST_LEASE_GRACE, Order, StartError
from agent.supervisor.output import OutputWriter, Pump
from agent.supervisor.outputs import read_outputs
from agent.supervisor.processes import Ending, Kin
from agent.supervisor.reaper import Reaper
from agent.supervisor.spawning import Spawned, spawn

_PIPE_PATIENCE = 2.0
"""Seconds to wait for the ends of the pipes once every process found is gone."""

_COLLECT_PATIENCE = 60.0
"""Seconds to wait for an exit code once the process was killed, or given up."""

_FAULTS_OF_THE_TASK = {
    errno.E2BIG: "could not start: the environment (variables and secrets) is too large",
    errno.ENAMETOOLONG: "could not start: the workspace's name is too long",
}
"""What only the task's own environment or directory can be the cause of."""

NO_OUTPUTS = "its outputs are lost: the disk was full"

_LOOK_AGAIN = 0.1
"""Seconds between tries to look for processes when that cannot be done."""

_WRITE_AGAIN = 0.5
"""Seconds between tries to write how the task ended, when the disk is full."""


class Attempt:
    """One attempt of a task."""

    def __init__(
        self,
        order: Order,
        folder: AttemptFolder,
        folders: Folders,
        limits: Limits,
        loop: Loop,
        reaper: Reaper,
        kin: Kin,
        others: Callable[[], set[int]],
        emit: Callable[[Message], None],
    ) -> None:
        self.order = order
        self.folder = folder
        self.main_pid: int | None = None
        self.started_at = 0
        self.end: Message | None = None
        self._folders = folders
        self._loop = loop
        self._reaper = reaper
        self._limits = limits
        self._family = Family(order.mark, folder, kin, others)
        self._emit = emit
        self._exit_code: int | None = None
        self._stop: Message | None = None
        self._stop_by = order.stop_by
        self._timeout_at = 0.0
        self._leftover_at = 0.0
        self._cause, self._message = "exited", ""
        self._failure = "task"
        self._step: Callable[[], None] = lambda: None
        """What an exit or a word of the session calls for, at this stage."""
        self._ending = Ending(self._family.find, self._kill_at)
        self._armed = True
        self._writer = OutputWriter(folder, limits, self._output_grew)
        self._pump: Pump | None = None
        self._outputs: dict[str, str] = {}

    @property
    def outlived(self) -> bool:
        """Whether something of it may still live: it was not found, or could not be killed."""
        return self._ending.given_up or (self._pump is not None and self._pump.cut_short)

    def prepare(self) -> None:
        """Lets the folder appear, which says whose it is, before anything of it can run.

        Raises:
            OSError: It cannot be made; nothing of it is left.
        """
        self._folders.begin(self.folder, self.order.identity(), self.order.script)

    def state(self) -> Message:
        """Returns where the attempt stands, as the session is told."""
        return {
            **self.order.identity(),
            "started_at": self.started_at,
            "running": self.main_pid is not None,
            "end": self.end,
        }

    def _tell(self, kind: str) -> None:
        self._emit(
            {
                "kind": kind,
                "lease": self.order.lease,
                "started_at": self.started_at,
                "running": self.main_pid is not None,
                "end": self.end,
            }
        )

    def stop(self, cause: str, grace: float, message: str) -> None:
        """Ends the attempt; a second call can only shorten the grace."""
        kill_at = time.monotonic() + grace
        if self._stop is None:
            self._stop = {"cause": cause, "message": message, "kill_at": kill_at}
        self._stop["kill_at"] = min(self._stop["kill_at"], kill_at)
        self._step()

    def move_stop_by(self, moment: float) -> None:
        """Moves the moment (monotonic) at which the attempt stops by itself."""
        self._stop_by = moment
        self._step()

    def kill_overdue(self, now: float) -> None:
        """Kills it if it should have ended by a moment; another thread may call."""
        if self.end is None and now >= self._overdue_at():
            for process in self._family.find():
                processes.send(process, signal.SIGKILL)

    def _overdue_at(self) -> float:
        """Returns the moment after which nothing of it may run."""
        moments = [math.inf]
        if self._stop_by is not None:
            moments.append(self._stop_by + self._lease_grace)
        if self._timeout_at:  # else it has not begun
            moments.append(self._timeout_at + self.order.kill_grace)
        if self._stop is not None:
            moments.append(self._stop["kill_at"])
        return min(moments)

    def arm(self, segment: int, offset: int) -> None:
        """Asks for one word when there is output beyond a place."""
        beyond = (self._writer.segment, self._writer.offset) > (segment, offset)
        self._armed = not beyond
        if beyond:
            self._emit({"kind": "output", "lease": self.order.lease})

    def start(self) -> None:
        """Starts the attempt; the loop sees to the rest of it."""
        try:
            self._spawn()
        except StartError as error:
            if error.handed_back:
                self._folders.drop(self.folder)
            self._finish(error.cause, 0, str(error), error.failure)
            return
        self._timeout_at = time.monotonic() + self.order.timeout
        self._step = self._watch
        self._watch()

    def _spawn(self) -> None:
        try:
            if not has_room(self.folder.where, self._limits.spare_disk):
                raise OSError(errno.ENOSPC, "too little disk is left")
            self._start_process()
        except StartError:
            raise
        except (KeyError, TypeError) as error:  # the user is gone, or a newer agent asks for more
            raise StartError(f"could not be confined: {error}", "infrastructure") from error
        except ValueError as error:  # a NUL byte or a name no environment can hold
            raise StartError(f"could not start: {error}", "task") from error
        except OSError as error:
            cause = NO_ROOM if is_full(error) else "not_started"
            if error.errno in _FAULTS_OF_THE_TASK:
                raise StartError(_FAULTS_OF_THE_TASK[error.errno], "task") from error
            raise StartError(f"could not start: {error}", "infrastructure", cause) from error

    def _start_process(self) -> None:
        where, order = self.folder.where, self.order
        workspace = f"{where}/{WORKSPACE}"
        mask = Mask(order.secrets.values())  # first: it may fail, and takes its time
        script, temporary = f"{where}/{SCRIPT}", f"{where}/{TEMPORARY}"
        if order.staged:
            _move_contents(order.staged, workspace)
        directory = order.start_directory(Path(workspace)) if order.directory else workspace
        confinement = Confinement(**order.confinement)
        confinement.hand_over(
            *(where, script, workspace, temporary, str(directory)),
            whole=workspace if order.staged else "",
        )
        process = spawn(
            confinement.argv(order.command(script), workspace, temporary, order.shown),
            directory,
            order.environment(os.environ, workspace, temporary),
        )
        self.main_pid = self._family.main_pid = process.pid
        self.started_at = time.time_ns() // 1_000_000
        self._reaper.watch(process.pid, self._exited)
        # A full disk, or a process that ended; the mark finds the process without it.
        with contextlib.suppress(OSError, ValueError):
            self.folder.add(TASK, self._process(process.pid))
        self._tell("started")
        try:
            pipes = {1: process.stdout, 2: process.stderr}
            self._pump = Pump(self._loop, pipes, self._writer, mask)
        except Exception as error:
            self._abandon(process, error)

    def _abandon(self, process: Spawned, error: Exception) -> None:
        """Ends what cannot be watched: as it has run, nobody else may run it too."""
        for pipe in (process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                self._loop.unwatch(pipe)
            os.close(pipe)
        message = f"could not be watched: {error}"
        self._failure = "infrastructure"
        self._stop = {"cause": "stopped", "message": message, "kill_at": time.monotonic()}

    def _process(self, pid: int) -> Message:
        process = processes.read(pid)
        return {
            "pid": pid,
            "start": process.start if process else 0,
            "boot": processes.boot_id(),
            "started_at": self.started_at,
        }

    def _exited(self, code: int) -> None:
        self._exit_code = code
        self._loop.soon(lambda: self._step())  # whatever it is by then

    def _output_grew(self) -> None:
        armed, self._armed = self._armed, False
        if armed:
            self._emit({"kind": "output", "lease": self.order.lease})

    def _watch(self) -> None:
        """Begins the end at the first thing that calls for it; else waits on."""
        now = time.monotonic()
        if self._exit_code is not None:
            self._begin_end("exited", "")
        elif self._stop is not None:
            self._begin_end(self._stop["cause"], self._stop["message"])
        elif now >= self._timeout_at:
            self._stop = {"kill_at": now + self.order.kill_grace}
            self._begin_end("timeout", f"ran longer than {self.order.timeout:g} s")
        elif self._stop_by is not None and now >= self._stop_by:
            self._stop = {"kill_at": now + self._lease_grace}
            self._begin_end("lease_ended", "stopped before its lease ended")
        else:
            wake_at = min(self._timeout_at, self._stop_by or self._timeout_at)
            self._loop.at(self, wake_at, self._watch)

    def _kill_at(self) -> float:
        at = float(self._stop["kill_at"]) if self._stop is not None else self._leftover_at
        return at if self._stop_by is None else min(at, self._stop_by + self._lease_grace)

    @property
    def _lease_grace(self) -> float:
        return min(self.order.kill_grace, LONGEST_LEASE_GRACE)

    def _begin_end(self, cause: str, message: str) -> None:
        self._cause, self._message = cause, message
        self._leftover_at = time.monotonic() + self.order.kill_grace
        self._step = lambda: None  # a grace that was shortened is seen at the next look
        self._end_processes()

    def _end_processes(self) -> None:
        self._reaper.collect()
        try:
            pause = self._ending.step()
        except OSError:  # no descriptor is left to look with
            pause = _LOOK_AGAIN
        if pause is not None:
            self._loop.at(self, time.monotonic() + pause, self._end_processes)
            return
        if self._ending.given_up:
            self._emit({"kind": "unkillable", "lease": self.order.lease, "cause": self._cause})
        self._step = self._drain
        self._loop.at(self, time.monotonic() + _COLLECT_PATIENCE, self._give_up_collecting)
        self._drain()

    def _give_up_collecting(self) -> None:
        if self._exit_code is None:
            self._exit_code = 128 + 9
        self._drain()

    def _drain(self) -> None:
        """Takes what the pipes still hold, once the exit code is known."""
        if self._exit_code is None:
            self._reaper.collect()
        if self._exit_code is None:
            return
        self._step = lambda: None
        self._loop.forget(self)
        if self._pump is None:
            self._drained()
        else:
            self._pump.finish(_PIPE_PATIENCE, self._drained)

    def _drained(self) -> None:
        self._outputs, wrong = read_outputs(
            f"{self.folder.where}/{TEMPORARY}", Mask(self.order.secrets.values())
        )
        if wrong:
            self._writer.append(2, f"muster: {wrong}\n".encode())
            self._writer.close()
        code = self._exit_code if self._exit_code is not None else 128 + 9
        self._finish(self._cause, code, self._message, self._failure)

    def _finish(self, cause: str, code: int, message: str, failure: str) -> None:
        end = {
            "cause": cause,
            "exit_code": code,
            "message": message,
            "failure": failure,
            "ended_at": time.time_ns() // 1_000_000,
            "started_at": self.started_at,
            "dropped": self._writer.dropped,
            "silent": self._writer.silent,
        }
        if self._outputs:
            end["outputs"] = self._outputs
        self._write_end(end)

    def _write_end(self, end: Message) -> None:
        if self.folder.exists:
            try:
                self.folder.write(EXIT, end)
            except OSError as error:
                if is_full(error) and end.pop("outputs", None):
                    # Room was kept for an end without them.
                    self._write_end({**end, "message": end["message"] or NO_OUTPUTS})
                    return
                if may_pass(error):  # a disk tells nobody that it has room
                    again_at = time.monotonic() + _WRITE_AGAIN
                    self._loop.at(self, again_at, lambda: self._write_end(end))
                    return
                # Else the task did something to its folder.
        self.end = end
        self._tell("ended")


def _move_contents(source: str, target: str) -> None:
    """Moves all that is in one folder into another one on the same volume, where nothing is yet.

    Raises:
        OSError: It cannot.
    """
    for entry in list(os.scandir(source)):
        Path(entry.path).rename(f"{target}/{entry.name}")
    Path(source).rmdir()
