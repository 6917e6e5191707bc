"""An attempt: one time a task was handed to an agent, with its log's book-keeping."""

from dataclasses import dataclass
from enum import IntEnum

from server.domain.moment import Moment
from server.domain.policy import Policy


class AttemptStatus(IntEnum):
    """How an attempt went. The numbers are those of `task.v1.AttemptStatus`."""

    CLAIMED = 1
    RUNNING = 2
    SUCCESS = 3
    FAILED = 4
    CANCELLED = 5
    TIMEOUT = 6
    LOST = 7
    RELEASED = 8

    @property
    def ended(self) -> bool:
        """Whether the attempt is over; a LOST one may still be adopted."""
        return self >= AttemptStatus.SUCCESS


class LogState(IntEnum):
    """Whether an attempt's log is whole. The numbers are those of `task.v1.LogState`."""

    OPEN = 1
    COMPLETE = 2
    INCOMPLETE = 3


@dataclass(frozen=True, slots=True)
class LogSummary:
    """What a whole log amounts to."""

    lines: int
    bytes: int
    crc32: int


@dataclass(slots=True)
class Attempt:
    """An attempt's row."""

    task_key: int
    number: int
    namespace: str
    epoch: int
    agent_key: int
    agent_id: str
    session: str
    claimed_at: Moment
    status: AttemptStatus = AttemptStatus.CLAIMED
    started_at: Moment | None = None
    ended_at: Moment | None = None
    exit_code: int = 0
    cause: str = ""
    reported: bool = False
    """Whether the agent itself reported the end (and not the server for it)."""
    log_lines: int = 0
    """Lines stored: also the last line acknowledged."""
    log_bytes: int = 0
    log_crc: int = 0
    log_at: Moment | None = None
    """When the last batch came, or the end was told: by the server's clock, never the agent's."""
    log_state: LogState = LogState.OPEN
    sum_lines: int | None = None
    """What the agent says the whole log amounts to, once it has said so."""
    sum_bytes: int | None = None
    sum_crc: int | None = None
    log_due: Moment | None = None
    """When the timers look at the log next; always `next_log_due(attempt, policy)`."""


def log_state(attempt: Attempt, now: Moment, policy: Policy) -> LogState:
    """Return whether the log of an attempt is whole (logs.md, "The end")."""
    if attempt.log_state is not LogState.OPEN or not attempt.status.ended:
        return attempt.log_state
    if attempt.sum_lines is not None:
        if _agrees(attempt):
            return LogState.COMPLETE
    elif attempt.reported and now >= _settled_at(attempt, policy):
        return LogState.COMPLETE
    given_up = (attempt.log_at or 0) + policy.log_incomplete_after
    return LogState.INCOMPLETE if now >= given_up else LogState.OPEN


def next_log_due(attempt: Attempt, policy: Policy) -> Moment | None:
    """Return when the log's state changes by itself, or None."""
    if attempt.log_state is not LogState.OPEN or not attempt.status.ended:
        return None
    given_up = (attempt.log_at or 0) + policy.log_incomplete_after
    if attempt.sum_lines is None and attempt.reported:
        return min(given_up, _settled_at(attempt, policy))
    return given_up


def missing_lines(attempt: Attempt) -> int | None:
    """Return how many lines of an attempt's log are missing, or None when nobody knows."""
    if attempt.sum_lines is None:
        return None
    return max(0, attempt.sum_lines - attempt.log_lines)


def _agrees(attempt: Attempt) -> bool:
    return (attempt.log_lines, attempt.log_bytes, attempt.log_crc) == (
        attempt.sum_lines,
        attempt.sum_bytes,
        attempt.sum_crc,
    )


def _settled_at(attempt: Attempt, policy: Policy) -> Moment:
    return (attempt.log_at or 0) + policy.log_settle
