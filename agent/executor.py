"""One attempt of a task as the session sees it: what to report, what to tell the supervisor."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import grpc

from agent.backoff import Backoff
from agent.log_shipper import LogShipper
from agent.no_log import NoLog
from agent.outcome import bare, describe
from agent.rpc import is_transient, status_code
from agent.spool import CONCLUDED, END_ACKNOWLEDGED, AttemptFolder, Spool
from agent.supervisor.frames import Message
from agent.supervisor.order import LONGEST_LEASE_GRACE
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2

_DEFAULT_TIMEOUT = 3600.0
_CONCLUSION = ("cause", "message", "failure")
"""What collecting artifacts may change of an end."""

_CLOCK_MARGIN = 5.0
"""Seconds before a lease's end: the server notes renewals 3 s late, and 2 s to be safe."""


class Phase(Enum):
    """How far an attempt is."""

    WAITING = 1
    PREPARING = 2
    ORDERED = 3
    ENDED = 4


@dataclass(slots=True)
class Report:
    """A status on its way to the server."""

    update: stream_pb2.TaskStatusUpdate
    sent: bool = False
    backoff: Backoff = field(default_factory=Backoff)


def _is_text(word: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in word)


def _wanted(artifact: agent_pb2.Artifact) -> Message:
    return {
        "name": artifact.name,
        "path": artifact.path,
        "destination": artifact.destination,
        "on_failure": artifact.on_failure,
        "expire_days": artifact.expire_days,
        # Only where they are set: of an older session the words are missing.
        **({"archive": True} if artifact.archive else {}),
        **({"no_dot_files": True} if artifact.no_dot_files else {}),
    }


@dataclass(frozen=True)
class Identity:
    """What names an attempt and rules its end."""

    lease: str
    task: str
    attempt: int
    kill_grace: float
    stop_with_lease: bool
    artifacts: tuple[Message, ...] = ()
    """What is to be collected after the end."""
    shown: tuple[str, ...] = ()
    """Folders of plugins that it uses."""
    keep_workspace: bool = False
    """Whether its workspace is kept after the end."""

    @classmethod
    def of_task(cls, task: agent_pb2.Task) -> "Identity":
        """Returns the identity of an assigned task."""
        grace = float(task.kill_grace)
        artifacts = tuple(map(_wanted, task.artifacts)) if task.artifacts else ()
        return cls(
            task.lease_id,
            task.job_id,
            task.attempt,
            grace,
            task.stop_with_lease,
            artifacts,
            keep_workspace=task.keep_workspace,
        )

    @classmethod
    def of_state(cls, state: Message) -> "Identity":
        """Returns the identity of an attempt that the supervisor knows."""
        names = ("lease", "task", "attempt", "kill_grace", "stop_with_lease")
        return cls(
            **{name: state[name] for name in names},
            artifacts=tuple(state.get("artifacts", ())),
            shown=tuple(state.get("shown", ())),
            keep_workspace=bool(state.get("keep_workspace")),
        )


class TaskRun:
    """One attempt, from its assignment until the server has all of it."""

    def __init__(self, identity: Identity, spool: Spool, task: agent_pb2.Task | None) -> None:
        self.identity = identity
        self.phase = Phase.WAITING if task is not None else Phase.ORDERED
        self.reports: list[Report] = []
        self.superseded = False
        self.stop_message: Message | None = None
        self.ending = False
        self.spooled = task is None
        self._spool = spool
        self.task = task
        self._running_reported = False
        self.work: asyncio.Task[None] | None = None
        """What the session does for it now: prepares it, or collects what it leaves."""
        self.end: Message | None = None
        """How it ended, while its artifacts are collected."""
        self.prepared: Message = {}
        """What the supervisor is told besides the task itself."""
        self.preparing_seconds = 0.0
        """How long it took to prepare it, which counts as its own time."""
        self.arrived = time.monotonic()
        # One that was ordered here tells of its first output; of an older one nothing is certain.
        self._no_log: NoLog | None = NoLog(done=False) if task is not None else None

    @cached_property
    def folder(self) -> AttemptFolder:
        """Its folder in the spool, which exists once it is ordered."""
        return self._spool.folder(self.identity.lease)

    @cached_property
    def shipper(self) -> LogShipper:
        """Uploads its log; made when there may be one."""
        return LogShipper(self.identity.lease, self.identity.task, self.folder)

    @property
    def log(self) -> LogShipper | NoLog:
        """What there is to say of its log."""
        return self._no_log or self.shipper

    def printed(self) -> None:
        """Notes that there may be output."""
        self._no_log = None
        self.shipper.superseded = self.superseded

    def end_log(self, *, silent: bool = False) -> None:
        """Notes that no line follows those read so far, and whether there was none at all."""
        if silent or not self.spooled:
            self._no_log = NoLog()
            return
        self.printed()
        self.shipper.end()
        self.shipper.total = self.shipper.reader.place

    @property
    def timeout(self) -> float:
        """How many seconds it may take."""
        return float(self.task.timeout if self.task is not None else 0) or _DEFAULT_TIMEOUT

    @property
    def settled(self) -> bool:
        """Whether the server has the end and the whole log."""
        return self.phase is Phase.ENDED and not self.reports and self.log.done

    @property
    def held(self) -> bool:
        """Whether it runs, or has an end that is not acknowledged."""
        return self.phase is not Phase.ENDED or bool(self.reports)

    def stop_by(self, renewed_at: float, lease_seconds: float) -> float:
        """Returns the moment (monotonic) at which it must stop unless the lease is renewed."""
        grace = min(self.identity.kill_grace, LONGEST_LEASE_GRACE)
        return renewed_at + lease_seconds - _CLOCK_MARGIN - grace

    def order(
        self,
        stop_by: float | None,
        confinement: Message | None = None,
    ) -> Message | None:
        """Returns what the supervisor needs to start it, or None when that is not known."""
        task = self.task
        if task is None:
            return None
        self.phase = Phase.ORDERED
        self.spooled = True
        return {
            "kind": "start",
            "lease": task.lease_id,
            "task": task.job_id,
            "attempt": task.attempt,
            "run": task.run_id,
            "commands": list(task.commands),
            "env": dict(task.env),
            "secrets": dict(task.secrets),
            "directory": task.workspace,
            "timeout": max(self.timeout - self.preparing_seconds, 1.0),
            "kill_grace": self.identity.kill_grace,
            "stop_with_lease": task.stop_with_lease,
            "stop_by": stop_by,
            # Only where there is one: a supervisor from before knows no such word.
            **({"confinement": confinement} if confinement else {}),
            **({"artifacts": list(self.identity.artifacts)} if self.identity.artifacts else {}),
            **({"keep_workspace": True} if self.identity.keep_workspace else {}),
            **self.prepared,
        }

    def stop(self, cause: str, message: str, grace: float | None = None) -> Message:
        """Returns the order to stop it, which is kept for a supervisor that comes later."""
        if self.stop_message is None:
            self.stop_message = {
                "kind": "stop",
                "lease": self.identity.lease,
                "cause": cause,
                "message": message,
                "grace": self.identity.kill_grace,
            }
        if grace is not None:
            self.stop_message["grace"] = grace
        return self.stop_message

    def started(self, started_at: int) -> None:
        """Notes that its process runs."""
        if self._running_reported or self.superseded or self.phase is Phase.ENDED:
            return
        self._running_reported = True
        self._report(
            stream_pb2.TaskStatusUpdate(
                status=task_pb2.TASK_STATUS_RUNNING, started_at=started_at, timestamp=started_at
            )
        )

    def ended(self, end: Message) -> None:
        """Notes that nothing of it runs any more; the log's total must be known by now."""
        self.phase = Phase.ENDED
        self.superseded |= end["cause"] == "superseded"
        self.log.superseded = self.superseded
        if not self.superseded and not self._end_acknowledged():
            update = describe(end)
            if not end.get("dropped"):  # without a summary the log does not claim to be whole
                update.log.CopyFrom(self.log.summary())
            # With the start in it, the end says all that a start would that has not left yet.
            self.reports = [report for report in self.reports if report.sent]
            self._report(update)

    def to_collect(self, end: Message) -> list[Message]:
        """Returns which artifacts are wanted after this end."""
        if not self.identity.artifacts or self.superseded or self._end_acknowledged():
            return []
        if end["cause"] == "exited" and end["exit_code"] == 0:
            return list(self.identity.artifacts)
        if end["cause"] in ("exited", "timeout", "quota"):
            return [each for each in self.identity.artifacts if each["on_failure"]]
        return []

    def conclude(self, end: Message) -> None:
        """Notes on disk that its artifacts were dealt with, and how it ended by that."""
        with contextlib.suppress(OSError):  # then the next session collects them once more
            self.folder.write(CONCLUDED, {name: end[name] for name in _CONCLUSION})

    def concluded(self, end: Message) -> tuple[Message, bool]:
        """Returns its end as an earlier session concluded it, and whether one did."""
        if self.task is not None:
            return end, False
        end = {**end, "silent": False}  # that session may have added remarks
        said = self.folder.read(CONCLUDED) or {}
        words = {name: said.get(name) for name in _CONCLUSION}
        if not all(isinstance(word, str) and _is_text(word) for word in words.values()):
            return end, False  # the task may have written it
        return {**end, **words}, True

    @property
    def told_of_start(self) -> bool:
        """Whether the server hears, or has heard, that it runs."""
        return self._running_reported

    def _end_acknowledged(self) -> bool:
        """Tells whether an earlier session was told that the server has the end."""
        return self.task is None and self.folder.read(END_ACKNOWLEDGED) is not None

    def supersede(self) -> None:
        """Notes that the lease is not current: nothing is reported any more."""
        self.superseded = True
        self.log.superseded = True
        self.reports.clear()

    def take_reports(self) -> list[stream_pb2.TaskStatusUpdate]:
        """Returns the statuses to send now."""
        fresh = [report for report in self.reports if not report.sent]
        for report in fresh:
            report.sent = True
        return [report.update for report in fresh]

    def acknowledge(self, ack: stream_pb2.StatusAck) -> float | None:
        """Takes the answer to a status.

        Returns:
            Seconds after which to call `resend`, when the server could not take it now.
        """
        code = status_code(ack.error_code)
        for report in [report for report in self.reports if report.update.status == ack.status]:
            if is_transient(code):
                return report.backoff.next()
            if code is grpc.StatusCode.INVALID_ARGUMENT and report.update != bare(report.update):
                # An end that is not told would be run again, and refused again.
                report.update = bare(report.update)
                return report.backoff.next()
            self.reports.remove(report)
            if self.phase is Phase.ENDED and not self.reports and not self.log.done:
                with contextlib.suppress(OSError):  # then the next session reports it once more
                    self.folder.write(END_ACKNOWLEDGED, {"status": ack.status})
        return None

    def resend(self) -> None:
        """Lets every status that is not acknowledged be sent again."""
        for report in self.reports:
            report.sent = False

    def reconnect(self) -> None:
        """Prepares for a new stream: answers on the old one will not come."""
        self.resend()
        self.log.reconnect()

    def _report(self, update: stream_pb2.TaskStatusUpdate) -> None:
        update.task_id = self.identity.task
        update.lease_id = self.identity.lease
        update.timestamp = update.timestamp or time.time_ns() // 1_000_000
        self.reports.append(Report(update))
