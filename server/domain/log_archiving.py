"""Logs for whoever collects them: taken in batches, as records by hour and level."""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from server.domain.attempt import Attempt
from server.domain.changes import ChoreKind
from server.domain.chores import Claim, take
from server.domain.ledger import Ledger
from server.domain.log import LogLine
from server.domain.moment import Moment
from server.domain.task import Task

LEVELS = frozenset({"debug", "info", "warn", "error"})
OTHER = "other"
"""Where lines go whose sender has levels of its own: a level is part of a path."""

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class ArchivedLog:
    """Whose lines they are."""

    namespace: str
    task_id: str
    name: str
    run_id: str
    pipeline_id: str
    agent_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ArchiveBatch:
    """Logs that go together. Taken again, a batch has the same name and the same logs."""

    claim: Claim
    logs: tuple[ArchivedLog, ...]


@dataclass(frozen=True, slots=True)
class ClaimArchive:
    """Take the next logs to be archived; answers them, or None when there are none.

    A batch that was not finished comes first, under the name it had.
    """

    name: str
    """Of a new batch."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> ArchiveBatch | None:
        """See Command."""
        taken = take(ledger, ChoreKind.ARCHIVE, self.name)
        if taken is None:
            return None
        return ArchiveBatch(taken.claim, tuple(_archived(*each) for each in taken.logs))


def _archived(task: Task, attempt: Attempt) -> ArchivedLog:
    run, pipeline = task.run_id or "", task.pipeline_id or ""
    whose = (task.namespace, task.public_id, task.name, run, pipeline, attempt.agent_id)
    return ArchivedLog(*whose, attempt.number)


def folder_of(line: LogLine) -> str:
    """Return where a line belongs: YYYY/MM/DD/HH/LEVEL, in UTC."""
    level = line.level if line.level in LEVELS else OTHER
    return f"{_moment(line.at):%Y/%m/%d/%H}/{level}"


def record_of(log: ArchivedLog, number: int, line: LogLine) -> bytes:
    """Return a line of a log as a line of JSON."""
    record: dict[str, object] = {
        "time": _moment(line.at).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": line.level,
        "stream": line.stream,
        "namespace": log.namespace,
        "task_id": log.task_id,
        "task": log.name,
        "attempt": log.attempt,
        "line": number,
        "agent_id": log.agent_id,
        "run_id": log.run_id,
        "pipeline_id": log.pipeline_id,
        "message": line.text,
    }
    if line.raw:
        record["raw"] = base64.b64encode(line.raw).decode()
    if line.continued:
        record["continued"] = True
    return _JSON.encode({name: value for name, value in record.items() if value != ""}).encode()


def _moment(at: Moment) -> datetime:
    """Return a moment; one that no calendar has is the first of all."""
    try:
        return datetime.fromtimestamp(at / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
