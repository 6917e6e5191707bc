"""A schedule: when a pipeline is to start by itself."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from server.domain.checks import Checks
from server.domain.moment import Millis, Moment

JITTER_LIMIT = 86_400
WINDOW_LIMIT = 366 * 86_400
MADE_UP_LIMIT = 1000
LATEST: Moment = 7_258_118_400_000
"""The year 2200: beyond it somebody mistook one unit for another."""


class CatchUp(StrEnum):
    """Which of the times that were missed are made up for."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class Overlap(StrEnum):
    """What becomes of a time when a run of the schedule still goes on."""

    SKIP = "skip"
    QUEUE = "queue"
    """Its run starts when the others have ended; of several such times the last."""
    CANCEL_RUNNING = "cancel_running"
    ALLOW = "allow"


class Owner(StrEnum):
    """Whose word a schedule goes by."""

    CALLER = "caller"
    PIPELINE = "pipeline"
    """Its pipeline's definition: it changes with that."""
    FILE = "file"
    """The server's schedule file."""


class Times(Protocol):
    """Whoever reads cron expressions. Moments are those of the clock, jitter not in them."""

    def problem(self, cron: str, zone: str, now: Moment) -> str | None:
        """Return what is wrong with an expression, None when it can be read and strikes."""

    def after(self, cron: str, zone: str, moment: Moment) -> Moment | None:
        """Return the next time after a moment, None when there is none."""

    def between(
        self, cron: str, zone: str, after: Moment, through: Moment, at_most: int
    ) -> list[Moment]:
        """Return the last times after one moment and not after another, the first first."""

    def jitter(self, key: str, moment: Moment, seconds: int) -> Millis:
        """Return how much later than its time a schedule strikes."""


class NoTimes:
    """Stands in where no schedule is looked at, as in commands on the database."""

    def problem(self, cron: str, zone: str, now: Moment) -> str | None:
        """See Times."""
        return f"nobody here can read {cron!r}"

    def after(self, cron: str, zone: str, moment: Moment) -> Moment | None:
        """See Times."""
        return None

    def between(
        self, cron: str, zone: str, after: Moment, through: Moment, at_most: int
    ) -> list[Moment]:
        """See Times."""
        return []

    def jitter(self, key: str, moment: Moment, seconds: int) -> Millis:
        """See Times."""
        return 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a schedule says. Times are seconds, but for moments."""

    cron: str
    zone: str = "UTC"
    jitter: int = 0
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    catch_up: CatchUp = CatchUp.LAST
    catch_up_window: int = 86_400
    """How long ago a missed time may be to be made up for."""
    catch_up_limit: int = 10
    """How many missed times are made up for at once."""
    overlap: Overlap = Overlap.SKIP
    branch: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)

    def check(self, checks: Checks, times: Times, now: Moment, path: str = "") -> None:
        """Note every malformed field; `path` stands in front of each."""
        if problem := times.problem(self.cron, self.zone, now):
            field = f"{path}zone" if "time zone" in problem else f"{path}cron"
            checks.fail(field, problem)
        checks.number(f"{path}jitter", self.jitter, 0, JITTER_LIMIT)
        checks.number(f"{path}catch_up_window", self.catch_up_window, 0, WINDOW_LIMIT)
        checks.number(f"{path}catch_up_limit", self.catch_up_limit, 1, MADE_UP_LIMIT)
        checks.name(f"{path}branch", self.branch, required=False)
        check_span(checks, self.starts_at, self.ends_at, (f"{path}starts_at", f"{path}ends_at"))


def check_span(
    checks: Checks, start: Moment | None, end: Moment | None, fields: tuple[str, str]
) -> None:
    """Note a beginning or an end that is too far away, or an end that comes first."""
    for name, moment in zip(fields, (start, end), strict=True):
        if moment is not None and moment >= LATEST:
            checks.fail(name, "must be before the year 2200")
    if end is not None and end <= (start or 0):
        checks.fail(fields[1], f"must be after {fields[0].rpartition('.')[2]}")


@dataclass(slots=True)
class Schedule:
    """A schedule's row."""

    key: int
    namespace: str
    public_id: str
    name: str
    pipeline_key: int
    pipeline_id: str
    owner: Owner
    cron: str
    created_at: Moment
    created_by: str = ""
    zone: str = "UTC"
    jitter: int = 0
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    catch_up: CatchUp = CatchUp.LAST
    catch_up_window: int = 86_400
    catch_up_limit: int = 10
    overlap: Overlap = Overlap.SKIP
    branch: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    next_at: Moment | None = None
    """The next time that is to be looked at; None when there is none."""
    due_at: Moment | None = None
    """When the timers look at it: the next time with its jitter; None while it is paused."""
    pending_at: Moment | None = None
    """A time whose run waits until others have ended."""
    last_at: Moment | None = None
    """The last time that has come."""
    paused_at: Moment | None = None
    note: str = ""
    """Why it is paused."""


@dataclass(frozen=True, slots=True)
class Fire:
    """A time of a schedule that has come: one row each, so that it comes once."""

    schedule_key: int
    at: Moment
    namespace: str
    struck_at: Moment
    run_id: str | None
    outcome: str
    """Why there is no run, or empty."""
