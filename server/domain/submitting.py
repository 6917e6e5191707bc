"""Tasks come in, change while they wait, go, and come again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b

from server.domain.changes import RememberedAnswer, RequestRecord
from server.domain.checks import Checks
from server.domain.ending import tell_status
from server.domain.errors import Invalid, NotFound, RequestIdReused, Violation, WrongState
from server.domain.event import Event, EventKind
from server.domain.facts import how_it_ended
from server.domain.group import Membership
from server.domain.labels import (
    CONTAINER_LABEL,
    PLUGIN_LABEL,
    Selector,
    check_labels,
    check_selector,
)
from server.domain.ledger import Ledger
from server.domain.moment import SECOND
from server.domain.pipeline import RETRY_LIMIT, TIMEOUT_DEFAULT, TIMEOUT_LIMIT
from server.domain.priority import PRIORITY_DEFAULT, PRIORITY_HIGHEST, sort_key
from server.domain.task import ArtifactSpec, Task, TaskSpec, TaskStatus

EXECUTORS = ("", "noop")
DEPENDENCY_LIMIT = 1000
ARTIFACT_LIMIT = 1000
PATH_LIMIT = 4096
STAGE_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task as its author describes it. Times are seconds."""

    name: str
    spec: TaskSpec
    selector: Selector = field(default_factory=lambda: Selector((), ()))
    pipeline_id: str = ""
    stage: int = 0
    timeout: int = 0
    depends_on: tuple[str, ...] = ()
    allow_failure: bool = False
    retry_count: int = 0
    retry_on_lost: bool = True
    priority: int = PRIORITY_DEFAULT
    schedule_to_start: int = 0
    group: Membership | None = None
    key: str = ""
    """What other tasks of the same batch name it by."""

    def check(self) -> None:
        """Check every field, by its path in CreateTaskRequest.

        Raises:
            Invalid: a field is malformed.
        """
        checks = Checks()
        checks.name("name", self.name, required=False)
        checks.number("stage", self.stage, 0, STAGE_LIMIT)
        checks.number("timeout", self.timeout, 0, TIMEOUT_LIMIT)
        checks.number("retry_count", self.retry_count, 0, RETRY_LIMIT)
        checks.number("priority", self.priority, 0, PRIORITY_HIGHEST)
        checks.number("schedule_to_start", self.schedule_to_start, 0, TIMEOUT_LIMIT)
        if self.group is not None:
            self.group.check(checks)
        checks.extend(check_selector(self.selector, "label_selector"))
        check_spec(checks, self.spec)
        if len(self.depends_on) > DEPENDENCY_LIMIT:
            checks.fail("depends_on", f"must name at most {DEPENDENCY_LIMIT} tasks")
        for index, task_id in enumerate(self.depends_on):
            checks.name(f"depends_on[{index}]", task_id)
        checks.done()


def check_spec(checks: Checks, spec: TaskSpec) -> None:
    """Note every malformed field of a spec."""
    checks.script("commands", spec.commands)
    checks.environment("env", spec.env)
    checks.load("commands", spec.commands, spec.env)
    checks.text("workspace", spec.workspace, PATH_LIMIT)
    checks.relative_path("workspace", spec.workspace)
    checks.text("image", spec.image, 1024)
    checks.extend(check_labels(spec.labels, "labels"))
    if spec.executor not in EXECUTORS:
        known = ", ".join(repr(name) for name in EXECUTORS)
        checks.fail("executor", f"must be one of {known}")
    checks.number("artifacts", len(spec.artifacts), 0, ARTIFACT_LIMIT)
    for index, artifact in enumerate(spec.artifacts[:ARTIFACT_LIMIT]):
        _check_artifact(checks, f"artifacts[{index}]", artifact)


def _check_artifact(checks: Checks, path: str, artifact: ArtifactSpec) -> None:
    checks.name(f"{path}.name", artifact.name)
    if not artifact.path:
        checks.fail(f"{path}.path", "must not be empty")
    checks.text(f"{path}.path", artifact.path, PATH_LIMIT)
    checks.text(f"{path}.destination", artifact.destination, PATH_LIMIT)
    checks.relative_path(f"{path}.path", artifact.path)
    checks.relative_path(f"{path}.destination", artifact.destination)
    checks.number(f"{path}.expire_days", artifact.expire_days, 0, 36_500)


@dataclass(frozen=True, slots=True)
class TaskClass:
    """What a task needs of an agent: tasks of one class fit the same agents."""

    key: str
    """A digest, so that every server computes the same one."""
    canonical: str


@lru_cache(maxsize=4096)
def task_class(selector: Selector, image: str, *, plugins: bool = False) -> TaskClass:
    """Return the class of tasks with these needs."""
    # Agents that can run images or plugins say so by a label.
    wanted = ((CONTAINER_LABEL, bool(image)), (PLUGIN_LABEL, plugins))
    more = {label: "true" for label, is_wanted in wanted if is_wanted}
    if more:
        needs = dict(selector.match_labels) | more
        selector = replace(selector, match_labels=tuple(sorted(needs.items())))
    canonical = selector.canonical()
    return TaskClass(blake2b(canonical.encode(), digest_size=16).hexdigest(), canonical)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's request id and a digest of the request it came with."""

    caller: str
    request_id: str
    body_hash: str


def answered_before(
    ledger: Ledger, namespace: str, key: Idempotency | None
) -> RememberedAnswer | None:
    """Return the first answer to a request id, or None.

    Raises:
        RequestIdReused: the id came with another request.
    """
    if key is None:
        return None
    record = ledger.request(namespace, key.caller, key.request_id)
    if record is None:
        return None
    if record.body_hash != key.body_hash:
        raise RequestIdReused(key.request_id)
    return record.answer


def remember_answer(
    ledger: Ledger, namespace: str, key: Idempotency | None, answer: RememberedAnswer
) -> None:
    """Keep the answer to a request id."""
    if key is None:
        return
    expires_at = ledger.now + ledger.policy.request_memory
    ledger.add_request(
        RequestRecord(namespace, key.caller, key.request_id, key.body_hash, answer, expires_at)
    )


@dataclass(frozen=True, slots=True)
class CreateTask:
    """Submit one task; answers its id."""

    namespace: str
    task_id: str
    task: NewTask
    created_by: str
    idempotency: Idempotency | None = None

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return (self.task_id, *self.task.depends_on)

    def decide(self, ledger: Ledger) -> str:
        """See Command."""
        answer = answered_before(ledger, self.namespace, self.idempotency)
        if answer is not None:
            return str(answer)
        if ledger.find_task(self.task_id) is not None:
            return self.task_id  # stored by the first try, whose answer was lost
        if self.task.pipeline_id:
            _check_pipeline(ledger, self.namespace, self.task.pipeline_id)
        dependencies = _dependencies(ledger, self.namespace, self.task.depends_on)
        task = build_task(ledger, self.namespace, self.task_id, self.task, self.created_by)
        place_task(ledger, task, dependencies)
        remember_answer(ledger, self.namespace, self.idempotency, self.task_id)
        return self.task_id


def default_name(commands: Sequence[str]) -> str:
    """Return the first line of a script as a name for people."""
    first_line = commands[0].strip().splitlines()[0]
    return "".join(c for c in first_line if c.isprintable())[:80] or "unnamed"


def _check_pipeline(ledger: Ledger, namespace: str, pipeline_id: str) -> None:
    try:
        ledger.pipeline(namespace, pipeline_id)
    except NotFound as error:
        raise Invalid([Violation("pipeline_id", str(error))]) from error


def _dependencies(ledger: Ledger, namespace: str, ids: Sequence[str]) -> list[Task]:
    found, violations = [], []
    for index, task_id in enumerate(ids):
        try:
            found.append(ledger.task(namespace, task_id))
        except NotFound as error:
            violations.append(Violation(f"depends_on[{index}]", str(error)))
    if violations:
        raise Invalid(violations)
    return list({task.key: task for task in found}.values())


def build_task(ledger: Ledger, namespace: str, task_id: str, new: NewTask, created_by: str) -> Task:
    """Return the row of a new task, not placed yet."""
    needs = task_class(new.selector, new.spec.image, plugins=new.spec.wants_plugins)
    ledger.add_class(needs.key, needs.canonical)
    group = new.group
    if group is not None:
        ledger.limit_group((namespace, group.key), group.limit)
    return Task(
        key=ledger.source.new_key(),
        namespace=namespace,
        public_id=task_id,
        name=new.name or default_name(new.spec.commands),
        spec=new.spec.to_json(),
        class_key=needs.key,
        sort_key=sort_key(ledger.now, new.priority),
        status=TaskStatus.QUEUED,
        created_at=ledger.now,
        timeout=(new.timeout or TIMEOUT_DEFAULT) * SECOND,
        created_by=created_by,
        pipeline_id=new.pipeline_id or None,
        stage=new.stage,
        retry_limit=new.retry_count,
        allow_failure=new.allow_failure,
        retry_on_lost=new.retry_on_lost,
        priority=new.priority,
        schedule_to_start=new.schedule_to_start * SECOND,
        group_key=group.key if group else None,
        cancels_older=group is not None and group.cancels_older,
    )


def place_task(
    ledger: Ledger, task: Task, dependencies: Sequence[Task], *, waits: bool = False
) -> None:
    """Add a new task where it belongs: ready, waiting, or skipped already.

    With `waits` it waits in any case; the caller has counted what for.
    """
    open_ones = [d for d in dependencies if not d.status.ended]
    spoiled = [d for d in dependencies if d.status.ended and not d.went_well]
    if not waits:
        task.unmet = len(open_ones)
    if task.schedule_to_start:
        task.start_by = task.created_at + task.schedule_to_start
    if waits:
        task.status = TaskStatus.PENDING
    elif spoiled:
        task.status = TaskStatus.SKIPPED
        task.error = how_it_ended(spoiled[0])
        task.finished_at = ledger.now
    elif open_ones:
        task.status = TaskStatus.PENDING
    elif task.group_key is not None:
        task.status = TaskStatus.PENDING
        ledger.unsettle(task)
    else:
        ledger.effects.ready_queues.add(task.queue)
    ledger.add_task(task, [d.key for d in dependencies])
    tell_status(ledger, task, None)


@dataclass(frozen=True, slots=True)
class UpdateTask:
    """Change a task that no agent has leased. None leaves a field as it is."""

    namespace: str
    task_id: str
    name: str | None = None
    commands: tuple[str, ...] | None = None
    env: dict[str, str] | None = None
    timeout: int | None = None

    def check(self) -> None:
        """Check the new values.

        Raises:
            Invalid: a field is malformed.
        """
        checks = Checks()
        if self.name is not None:
            checks.name("name", self.name, required=False)
        if self.commands is not None:
            checks.script("commands", self.commands)
        if self.env is not None:
            checks.environment("env", self.env)
        if self.timeout is not None:
            checks.number("timeout", self.timeout, 0, TIMEOUT_LIMIT)
        checks.load("commands", self.commands or (), self.env or {})
        checks.done()

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return (self.task_id,)

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        task = ledger.task(self.namespace, self.task_id)
        if task.status.ended or task.leased:
            state = "has ended" if task.status.ended else "is held by an agent"
            raise WrongState("task", task.public_id, f"{state} and cannot be changed any more")
        spec = TaskSpec.from_json(task.spec)
        if self.commands is not None:
            spec = replace(spec, commands=self.commands)
        if self.env is not None:
            spec = replace(spec, env=self.env)
        checks = Checks()
        checks.load("commands", spec.commands, spec.env)
        checks.done()
        if self.name is not None:
            task.name = self.name or default_name(spec.commands)
        if self.timeout is not None:
            task.timeout = (self.timeout or TIMEOUT_DEFAULT) * SECOND
        task.spec = spec.to_json()
        ledger.touch(task)


@dataclass(frozen=True, slots=True)
class DeleteTask:
    """Remove a task that has ended or still waits."""

    namespace: str
    task_id: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return (self.task_id,)

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        if ledger.source.replayed and ledger.find_task(self.task_id) is None:
            return  # deleted by the first try, whose answer was lost
        task = ledger.task(self.namespace, self.task_id)
        if task.leased:
            raise WrongState("task", task.public_id, "is held by an agent; cancel it first")
        if task.run_key is not None and not ledger.run_by_key(task.run_key).status.ended:
            raise WrongState("task", task.public_id, f"belongs to the active run {task.run_id}")
        waiting = [d for d in ledger.dependents(task) if not d.status.ended]
        if waiting:
            raise WrongState("task", task.public_id, f"is awaited by task {waiting[0].public_id}")
        ledger.delete_task(task)
        ledger.unsettle(task)
        ledger.tell(
            Event(EventKind.TASK_DELETED, task.namespace, ledger.now, task.public_id, task.run_id)
        )


@dataclass(frozen=True, slots=True)
class RetryTask:
    """Submit a task equal to an ended one; answers the new id."""

    namespace: str
    task_id: str
    new_id: str
    created_by: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return (self.task_id, self.new_id)

    def decide(self, ledger: Ledger) -> str:
        """See Command."""
        if ledger.find_task(self.new_id) is not None:
            return self.new_id  # stored by the first try, whose answer was lost
        old = ledger.task(self.namespace, self.task_id)
        if not old.status.ended:
            raise WrongState("task", old.public_id, "has not ended yet; cancel it first")
        task = Task(
            key=ledger.source.new_key(),
            namespace=old.namespace,
            public_id=self.new_id,
            name=old.name,
            spec=old.spec,
            class_key=old.class_key,
            sort_key=sort_key(ledger.now, old.priority),
            status=TaskStatus.QUEUED,
            created_at=ledger.now,
            timeout=old.timeout,
            created_by=self.created_by,
            pipeline_id=old.pipeline_id,
            stage=old.stage,
            retry_limit=old.retry_limit,
            allow_failure=old.allow_failure,
            retry_on_lost=old.retry_on_lost,
            priority=old.priority,
            schedule_to_start=old.schedule_to_start,
            group_key=old.group_key,
            cancels_older=old.cancels_older,
            retry_of=old.public_id,
        )
        place_task(ledger, task, ())
        return self.new_id
