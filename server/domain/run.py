"""A run of a pipeline: its counters, and the status they amount to."""

from dataclasses import dataclass, field
from enum import IntEnum

from server.domain.moment import Moment
from server.domain.task import Judged, Task, TaskStatus


class RunStatus(IntEnum):
    """Where a run stands. The numbers are those of `pipeline.v1.PipelineStatus`."""

    PENDING = 1
    RUNNING = 2
    SUCCESS = 3
    FAILED = 4
    CANCELLED = 5
    PARTIAL = 6

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self >= RunStatus.SUCCESS


@dataclass(slots=True)
class Run:
    """A run's row. The counters make moving it along cost the same at any size."""

    key: int
    namespace: str
    public_id: str
    pipeline_key: int
    pipeline_id: str
    number: int
    created_at: Moment
    total: int
    status: RunStatus = RunStatus.PENDING
    branch: str = ""
    commit_sha: str = ""
    triggered_by: str = ""
    started_at: Moment | None = None
    finished_at: Moment | None = None
    ended: int = 0
    failed: int = 0
    """Jobs the run needs that ended in FAILED or TIMEOUT."""
    excused: int = 0
    """Jobs with `allow_failure` that did not succeed."""
    cancelled: int = 0
    skipped: int = 0
    stop_requested_at: Moment | None = None
    stages: list[str] = field(default_factory=list)
    """Names of the stages as they were when it was triggered."""
    running: int = 0
    """Jobs that run."""
    stage: int = 0
    """The latest stage in which a job has started, from 1."""
    version: int = 1
    """The version of its pipeline that it goes by."""
    facts: str = ""
    """What conditions may read of how it was started: JSON, or empty (see `facts`)."""
    retry_of: str | None = None
    """The run that it repeats."""
    left_out: int = 0
    """Jobs whose condition did not hold."""
    group_key: str | None = None
    """The group of runs that it is in."""
    schedule_key: int | None = None
    """The schedule that started it."""
    turn: int | None = None
    """Key of the gate that opens when it is its turn in its group; None from then on."""


def count_end(run: Run, task: Task) -> None:
    """Add one ended job to a run's counters."""
    run.ended += 1
    if task.status is TaskStatus.SUCCESS:
        return
    if task.judged is Judged.LEFT_OUT:
        run.left_out += 1
    elif task.status is TaskStatus.SKIPPED:
        run.skipped += 1
    elif task.status is TaskStatus.CANCELLED:
        run.cancelled += 1
    elif task.allow_failure:
        run.excused += 1
    else:
        run.failed += 1


def count_running(run: Run, task: Task, previous: TaskStatus | None) -> bool:
    """Keep count of jobs that run, after a task has moved; return whether something changed."""
    started, stopped = task.status is TaskStatus.RUNNING, previous is TaskStatus.RUNNING
    if started == stopped:
        return False
    run.running += 1 if started else -1
    if started:
        run.stage = max(run.stage, task.stage)
    return True


def counts(run: Run, now: Moment) -> dict[str, int]:
    """Return how far a run is, as its events tell."""
    return {
        "number": run.number,
        "total": run.total,
        "ended": run.ended,
        "failed": run.failed + run.excused,
        "running": run.running,
        "stage": run.stage,
        "stages": len(run.stages),
        "duration": max(0, (run.finished_at or now) - run.started_at) if run.started_at else 0,
    }


def status_of(run: Run) -> RunStatus:
    """Return the status that a run's counters amount to."""
    if run.ended < run.total:
        return RunStatus.RUNNING if run.started_at is not None else RunStatus.PENDING
    if run.stop_requested_at is not None and run.cancelled:
        return RunStatus.CANCELLED
    if run.failed:
        return RunStatus.FAILED
    if run.cancelled:
        return RunStatus.CANCELLED
    if run.excused:
        return RunStatus.PARTIAL
    return RunStatus.FAILED if run.skipped else RunStatus.SUCCESS
