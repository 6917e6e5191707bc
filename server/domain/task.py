"""A task: what it is, where it can stand, and how it may move.

    PENDING ──► QUEUED ──► RUNNING ──► SUCCESS | FAILED | CANCELLED | TIMEOUT
       ▲          │  ▲        │
       │          │  └────────┤ agent lost (and back again, when the old lease is adopted)
       └──────────┼───────────┘ a try remains: waits for its back-off
                  └──► SKIPPED | CANCELLED | TIMEOUT | FAILED

`MOVES` is the whole table, and `move` is the only way through it.
"""

import json
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from server.domain.moment import Millis, Moment
from server.domain.policy import Policy
from server.domain.priority import PRIORITY_DEFAULT


class TaskStatus(IntEnum):
    """Where a task stands. The numbers are those of `task.v1.TaskStatus`."""

    PENDING = 1
    QUEUED = 2
    RUNNING = 3
    SUCCESS = 4
    FAILED = 5
    CANCELLED = 6
    TIMEOUT = 7
    SKIPPED = 8

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self >= TaskStatus.SUCCESS


class Judged(IntEnum):
    """What has come of a job's condition or question."""

    NOT = 0
    """Nothing yet, or there is neither."""
    ASKED = 1
    """People have been asked whether it goes on."""
    LEFT_OUT = 2
    """Its condition did not hold. Nothing that waits for it is held up by that."""


_S = TaskStatus
MOVES: dict[TaskStatus, frozenset[TaskStatus]] = {
    # SKIPPED: a dependency did not succeed. SUCCESS, FAILED: people were asked and have answered,
    # or what has to be judged cannot be.
    _S.PENDING: frozenset({_S.QUEUED, _S.SKIPPED, _S.CANCELLED, _S.TIMEOUT, _S.SUCCESS, _S.FAILED}),
    # FAILED: it cannot start, or the infrastructure budget is
    # spent. RUNNING: the agent reported its start, or the old lease was adopted.
    _S.QUEUED: frozenset({_S.RUNNING, _S.SKIPPED, _S.CANCELLED, _S.TIMEOUT, _S.FAILED}),
    # QUEUED: the agent was lost. PENDING: the attempt failed and another follows its back-off.
    _S.RUNNING: frozenset({_S.QUEUED, _S.PENDING, _S.SUCCESS, _S.FAILED, _S.CANCELLED, _S.TIMEOUT}),
    _S.SUCCESS: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.TIMEOUT: frozenset(),
    _S.SKIPPED: frozenset(),
}


class ForbiddenMoveError(AssertionError):
    """A rule tried to move a task against the table: a bug, never a caller's fault."""


@dataclass(frozen=True, slots=True)
class ArtifactSpec:
    """A file to keep after the task."""

    name: str
    path: str
    destination: str = ""
    expire: bool = False
    expire_days: int = 0
    on_failure: bool = False
    """Whether it is kept as well when the task did not succeed."""
    archive: bool = False
    """Whether its files are kept as one."""
    no_dot_files: bool = False
    """Whether names that begin with a dot are left out."""


@dataclass(frozen=True, slots=True)
class ArtifactUse:
    """Files of an earlier job of the run that lie in the workspace before the task starts."""

    job: str
    name: str = ""
    """Of the artifact; empty takes all of the job's."""
    path: str = ""
    """The folder they are put into."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a task runs; kept as JSON beside the row and read only by doors."""

    commands: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    workspace: str = ""
    image: str = ""
    artifacts: tuple[ArtifactSpec, ...] = ()
    inputs: tuple[ArtifactUse, ...] = ()
    checkout: bool = False
    """Whether the run's repository is checked out into the workspace first."""
    keep_workspace: bool = False
    """Whether the workspace is kept on the agent after the end."""
    labels: dict[str, str] = field(default_factory=dict)
    executor: str = ""
    secret_refs: dict[str, str] = field(default_factory=dict)
    """Variables, each with the name of the secret that it gets."""
    sealed: str = ""
    """Secrets that it brings along, encrypted."""
    steps: tuple[dict[str, Any], ...] = ()
    """Its parts, as `pipeline.Step`, where a plugin is among them; then it has no commands."""
    signature: tuple[str, int, str] | None = None
    """Who signed it: the key's id, until when that counts, and the signature in base64."""

    @property
    def wants_plugins(self) -> bool:
        """Whether only an agent that knows plugins and artifacts can run it."""
        return bool(self.steps or self.inputs or self.checkout)

    def to_json(self) -> str:
        """Return the spec as JSON, without what is empty."""
        data: dict[str, Any] = {"commands": self.commands}
        if self.artifacts:
            data["artifacts"] = [asdict(artifact) for artifact in self.artifacts]
        if self.inputs:
            data["inputs"] = [asdict(each) for each in self.inputs]
        for name in _WHERE_THERE_IS_SOME:
            if value := getattr(self, name):
                data[name] = value
        return _JSON.encode(data)

    @staticmethod
    def from_json(text: str) -> "TaskSpec":
        """Return the spec that `to_json` wrote."""
        data = json.loads(text)
        data["commands"] = tuple(data["commands"])
        if "artifacts" in data:
            data["artifacts"] = tuple(ArtifactSpec(**each) for each in data["artifacts"])
        if "inputs" in data:
            data["inputs"] = tuple(ArtifactUse(**each) for each in data["inputs"])
        if "steps" in data:
            data["steps"] = tuple(data["steps"])
        if "signature" in data:
            data["signature"] = tuple(data["signature"])
        return TaskSpec(**data)


_WHERE_THERE_IS_SOME = (
    "env", "workspace", "image", "labels", "executor", "secret_refs", "sealed", "steps",
    "signature", "checkout", "keep_workspace",
)  # fmt: skip
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Queue(NamedTuple):
    """The ready tasks of one class in one namespace, handed out by their sort key."""

    class_key: str
    namespace: str


@dataclass(slots=True)
class Task:
    """A task's row. Rules edit it in place inside one transaction."""

    key: int
    namespace: str
    public_id: str
    name: str
    spec: str
    """`TaskSpec` as JSON."""
    class_key: str
    """The task class: who may run it (see `placement`)."""
    sort_key: int
    """Order among ready tasks of one class, smallest first."""
    status: TaskStatus
    created_at: Moment
    timeout: Millis
    created_by: str = ""
    pipeline_id: str | None = None
    run_key: int | None = None
    run_id: str | None = None
    stage: int = 0
    position: int = 0
    """Order among the jobs of a run."""
    retry_limit: int = 0
    allow_failure: bool = False
    retry_on_lost: bool = True
    priority: int = PRIORITY_DEFAULT
    schedule_to_start: Millis = 0
    """How long after its submission it must have started; 0 for no limit."""
    start_by: Moment | None = None
    """When it ends unless it has started; None without a limit and after the first start."""
    group_key: str | None = None
    """The concurrency group it is in (see `group`)."""
    cancels_older: bool = False
    unmet: int = 0
    """Dependencies that have not ended well yet."""
    not_before: Moment | None = None
    attempt: int = 0
    failed_attempts: int = 0
    infra_retries: int = 0
    lease_epoch: int = 0
    """The fence: grows at each claim, is never reset."""
    lease_agent: int | None = None
    """Key of the agent that holds the current lease."""
    lease_session: str | None = None
    lease_frame: int = 0
    """Number of the frame that carried the assignment."""
    lease_request: str | None = None
    """`request_id` of the FetchTask that was answered with it."""
    last_agent: int | None = None
    last_agent_id: str | None = None
    claimed_at: Moment | None = None
    confirm_by: Moment | None = None
    """When a lease kept over a v1 agent's restart is given up unless a report confirms it."""
    deadline: Moment | None = None
    """When the server declares a running attempt over by its own clock."""
    avoid_agent: int | None = None
    avoid_until: Moment | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    cancel_requested_at: Moment | None = None
    cancel_reason: str = ""
    release_requested_at: Moment | None = None
    """When the agent of the current or last lease was asked to give the task up."""
    exit_code: int = 0
    error: str = ""
    retry_of: str | None = None
    due_at: Moment | None = None
    """When the timers look at it next; always `next_due(task, policy)`."""
    ready_at: Moment | None = None
    """When it became ready last; None before it was."""
    rules: str = ""
    """What is to be judged before it may start: `Rules` as JSON, or empty (see `rules`)."""
    judged: Judged = Judged.NOT
    gate: int | None = None
    """Key of the gate that it waits behind or has passed (see `gate`)."""
    opens: int | None = None
    """Key of the gate that waits for it."""
    outputs: str = ""
    """What it tells later jobs: values by name as JSON, or empty."""

    @property
    def leased(self) -> bool:
        """Whether an agent holds it."""
        return self.lease_agent is not None

    @property
    def ready(self) -> bool:
        """Whether an agent may claim it."""
        return self.status is TaskStatus.QUEUED and self.lease_agent is None

    @property
    def queue(self) -> Queue:
        """Where it waits for an agent while it is ready."""
        return Queue(self.class_key, self.namespace)

    @property
    def went_well(self) -> bool:
        """Whether it has ended so that what waits for it may start."""
        excused = self.allow_failure or self.judged is Judged.LEFT_OUT
        return self.status is TaskStatus.SUCCESS or (self.status.ended and excused)

    @property
    def awaits_place(self) -> bool:
        """Whether it waits for a place in its concurrency group and for nothing else."""
        waits = self.status is TaskStatus.PENDING and not self.unmet and self.not_before is None
        return waits and self.group_key is not None

    @property
    def holds_place(self) -> bool:
        """Whether it holds a place in its concurrency group."""
        going_on = self.status in (TaskStatus.QUEUED, TaskStatus.RUNNING)
        return going_on and self.group_key is not None

    @property
    def lease_id(self) -> str:
        """The id of the current or last lease."""
        return lease_id(self.public_id, self.lease_epoch)


def lease_id(task_id: str, epoch: int) -> str:
    """Return the id of a task's lease. The epoch in it is the fence."""
    return f"{task_id}.{epoch}"


def move(task: Task, to: TaskStatus) -> TaskStatus:
    """Move a task and return where it stood.

    Raises:
        ForbiddenMoveError: the table has no such move.
    """
    previous = task.status
    if to not in MOVES[previous]:
        raise ForbiddenMoveError(f"task {task.public_id}: {previous.name} → {to.name}")
    task.status = to
    return previous


def next_due(task: Task, policy: Policy) -> Moment | None:
    """Return when something happens to the task by itself, or None."""
    if task.status.ended:
        return None
    if task.leased:
        return min(_lease_limits(task, policy))
    if task.not_before is not None and task.unmet == 0:
        return task.not_before
    return task.start_by


def stopped_by(task: Task, asked_at: Moment, policy: Policy) -> Moment:
    """Return when a task that is to stop counts as stopped, though its agent is silent.

    What follows in a concurrency group must not run beside it: there the lease that its agent last
    heard of must have ended too.
    """
    patience = policy.kill_grace + policy.deadline_slack
    if task.group_key is not None:
        patience = max(patience, policy.lease)
    return asked_at + patience


def _lease_limits(task: Task, policy: Policy) -> list[Moment]:
    limits = []
    if task.cancel_requested_at is not None:
        limits.append(stopped_by(task, task.cancel_requested_at, policy))
    if task.release_requested_at is not None:
        limits.append(stopped_by(task, task.release_requested_at, policy))
    if task.confirm_by is not None:
        limits.append(task.confirm_by)
    if task.status is TaskStatus.RUNNING and task.deadline is not None:
        limits.append(task.deadline)
    elif task.claimed_at is not None:
        limits.append(task.claimed_at + policy.claim_to_start)
    return limits
