"""Tasks, selectors and log lines: between messages and records."""

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar, cast

from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2
from server.domain.attempt import Attempt
from server.domain.checks import Checks
from server.domain.errors import Invalid, Violation
from server.domain.group import Membership
from server.domain.labels import Operator, Requirement, Selector
from server.domain.log import BLOCK_LIMIT, LINE_LIMIT, Encoding, LogBlock, LogLine, level_of
from server.domain.log_keeping import Batch, LooseLines
from server.domain.moment import SECOND, Moment
from server.domain.priority import PRIORITIES, PRIORITY_DEFAULT, PRIORITY_LABEL
from server.domain.secret import check_secret_refs, check_secrets
from server.domain.submitting import NewTask
from server.domain.submitting_many import BATCH_LIMIT, check_batch
from server.domain.task import ArtifactSpec, Task, TaskSpec
from server.stores.interfaces import Order, PageSpec, TaskView

PAGE_DEFAULT = 20
PAGE_LIMIT = 1000
LINES_LIMIT = 2**31 - 1
MOMENT_LIMIT = 2**63 - 1

E = TypeVar("E")


def enum(number: int) -> Any:  # noqa: ANN401 (each message has an enum type of its own)
    """Return a number as any proto enum's value; ours bear the same numbers."""
    return number


@contextmanager
def within(field: str) -> Iterator[None]:
    """Let violations of what is checked inside bear a field's path in front of theirs."""
    try:
        yield
    except Invalid as error:
        raise Invalid(
            [Violation(f"{field}.{each.field}", each.description) for each in error.violations]
        ) from error


def counted(count: int, noun: str) -> str:
    """Return `1 task.` or `2 tasks.`."""
    return f"{count} {noun}{'' if count == 1 else 's'}."


def seconds(moment: Moment | None) -> int:
    """Return a moment as Unix seconds, 0 for none."""
    return (moment or 0) // SECOND


def moment_of_seconds(value: int) -> Moment | None:
    """Return Unix seconds as a moment, None for 0."""
    return value * SECOND if value else None


# ---- selectors

_OPERATORS = {
    task_pb2.LABEL_OPERATOR_IN: Operator.IN,
    task_pb2.LABEL_OPERATOR_NOT_IN: Operator.NOT_IN,
    task_pb2.LABEL_OPERATOR_EXISTS: Operator.EXISTS,
    task_pb2.LABEL_OPERATOR_NOT_EXISTS: Operator.NOT_EXISTS,
    task_pb2.LABEL_OPERATOR_GT: Operator.GT,
    task_pb2.LABEL_OPERATOR_LT: Operator.LT,
}
_ANY = Selector()
_OPERATOR_NUMBERS = {operator: number for number, operator in _OPERATORS.items()}


def selector_of(message: task_pb2.LabelSelector) -> Selector:
    """Return a selector; an unknown operator becomes None, which the check refuses."""
    return Selector.of(
        message.match_labels,
        *(
            Requirement(e.key, _OPERATORS.get(e.operator), tuple(e.values))
            for e in message.match_expressions
        ),
    )


def selector_message(selector: Selector) -> task_pb2.LabelSelector:
    """Return a selector as tasks carry it."""
    return task_pb2.LabelSelector(
        match_labels=dict(selector.match_labels),
        match_expressions=[
            task_pb2.LabelSelectorRequirement(
                key=e.key,
                operator=_OPERATOR_NUMBERS[e.operator] if e.operator else enum(0),
                values=e.values,
            )
            for e in selector.expressions
        ],
    )


# ---- tasks

SIGNATURE_BYTES = 64

Seal: TypeAlias = Callable[[Mapping[str, str]], str]
"""Encrypts the secrets that a task brings along."""

_QUEUES = task_pb2.CONCURRENCY_POLICY_QUEUE
_CANCELS = task_pb2.CONCURRENCY_POLICY_CANCEL_RUNNING


def new_task(request: task_pb2.CreateTaskRequest, seal: Seal) -> NewTask:
    """Return the task a request describes, checked; `seal` encrypts the secrets it brings along.

    Raises:
        Invalid: a field is malformed.
        SecretsRefused: it holds secrets, and there is no key for them.
    """
    # Only what is set: asking the message for each field costs more than all the checks.
    given: dict[str, Any] = {field.name: value for field, value in request.ListFields()}
    if "secrets" in given or "secret_refs" in given:
        _check_secrets(given)
    spec = TaskSpec(
        commands=tuple(given.get("commands", ())),
        env=dict(given.get("env", ())),
        workspace=given.get("workspace", ""),
        image=given.get("image", ""),
        artifacts=tuple(map(artifact, given.get("artifacts", ()))),
        keep_workspace=given.get("keep_workspace", False),
        labels=dict(given.get("labels", ())),
        executor=given.get("executor", ""),
        secret_refs=dict(given.get("secret_refs", ())),
        sealed=seal(given["secrets"]) if "secrets" in given else "",
        signature=_signature(given["signature"]) if "signature" in given else None,
    )
    by_label = _priority_by_label(spec.labels)
    task = NewTask(
        name=given.get("name", ""),
        spec=spec,
        selector=selector_of(given["label_selector"]) if "label_selector" in given else _ANY,
        pipeline_id=given.get("pipeline_id", ""),
        stage=given.get("stage", 0),
        timeout=given.get("timeout", 0),
        depends_on=tuple(given.get("depends_on", ())),
        allow_failure=given.get("allow_failure", False),
        retry_count=given.get("retry_count", 0),
        retry_on_lost=given.get("retry_on_lost", True),
        priority=given.get("priority", by_label),
        schedule_to_start=given.get("schedule_to_start", 0),
        group=membership(given["concurrency"]) if "concurrency" in given else None,
        key=given.get("key", ""),
    )
    task.check()
    return task


def _signature(message: task_pb2.TaskSignature) -> tuple[str, int, str]:
    """Return a signature as it is kept; whether it counts is for agents to say.

    Raises:
        Invalid: it is malformed.
    """
    checks = Checks()
    if not (message.key_id.isascii() and message.key_id.isalnum() and len(message.key_id) <= 64):
        checks.fail("signature.key_id", "must be 1 to 64 letters and digits")
    checks.number("signature.not_after", message.not_after, 1, 2**63 - 1)
    if len(message.signature) != SIGNATURE_BYTES:
        checks.fail("signature.signature", f"must have {SIGNATURE_BYTES} bytes")
    checks.done()
    encoded = base64.b64encode(message.signature).decode()
    return message.key_id, message.not_after, encoded


def _check_secrets(given: Mapping[str, Any]) -> None:
    """Check a task's secrets.

    Raises:
        Invalid: a name or a value is malformed, or a variable is there twice.
    """
    checks = Checks()
    secrets, refs = given.get("secrets", {}), given.get("secret_refs", {})
    check_secrets(checks, secrets)
    check_secret_refs(checks, refs)
    for variable in sorted(refs.keys() & secrets.keys()):
        checks.fail(f"secret_refs[{variable}]", "is in secrets too")
    for variable in sorted((refs.keys() | secrets.keys()) & given.get("env", {}).keys()):
        checks.fail(f"env[{variable}]", "is a secret too")
    checks.done()


def new_tasks(request: task_pb2.CreateTasksRequest, seal: Seal) -> tuple[NewTask, ...]:
    """Return the tasks a request describes, checked one by one and together.

    Raises:
        Invalid: a field is malformed; its path begins with `tasks[N]`.
        SecretsRefused: one holds secrets, and there is no key for them.
    """
    if not 1 <= len(request.tasks) <= BATCH_LIMIT:
        text = f"must be from 1 to {BATCH_LIMIT}, are {len(request.tasks)}"
        raise Invalid([Violation("tasks", text)])
    tasks, violations = [], []
    for index, each in enumerate(request.tasks):
        try:
            tasks.append(_new_task_of_many(each, seal))
        except Invalid as error:
            violations += [
                Violation(f"tasks[{index}].{v.field}", v.description) for v in error.violations
            ]
    if violations:
        raise Invalid(violations)
    check_batch(tasks)
    return tuple(tasks)


def _new_task_of_many(request: task_pb2.CreateTaskRequest, seal: Seal) -> NewTask:
    if request.request_id:
        raise Invalid([Violation("request_id", "must be empty: the call's own covers all tasks")])
    return new_task(request, seal)


def _priority_by_label(labels: Mapping[str, str]) -> int:
    word = labels.get(PRIORITY_LABEL, "")
    if word and word not in PRIORITIES:
        text = f"must be one of {', '.join(PRIORITIES)}"
        raise Invalid([Violation(f"labels[{PRIORITY_LABEL}]", text)])
    return PRIORITIES.get(word, PRIORITY_DEFAULT)


def membership_message(group: Membership | None) -> task_pb2.ConcurrencyGroup | None:
    """Return a group as its members name it, None for none."""
    if group is None:
        return None
    policy = _CANCELS if group.cancels_older else _QUEUES
    return task_pb2.ConcurrencyGroup(key=group.key, limit=group.limit, on_conflict=policy)


def membership(message: task_pb2.ConcurrencyGroup) -> Membership:
    """Return the group that a message names.

    Raises:
        Invalid: it has an unknown policy.
    """
    if message.on_conflict not in task_pb2.ConcurrencyPolicy.values():
        text = f"there is no policy {message.on_conflict}"
        raise Invalid([Violation("concurrency.on_conflict", text)])
    cancels = message.on_conflict == _CANCELS
    return Membership(message.key, message.limit or 1, cancels_older=cancels)


def _standing(task: Task) -> task_pb2.ConcurrencyStanding | None:
    if task.group_key is None:
        return None
    return task_pb2.ConcurrencyStanding(
        key=task.group_key,
        on_conflict=_CANCELS if task.cancels_older else _QUEUES,
        holds_place=task.holds_place,
    )


def artifact(message: task_pb2.ArtifactConfig) -> ArtifactSpec:
    """Return what a message says of a file to keep."""
    return ArtifactSpec(
        message.name,
        message.path,
        message.destination,
        message.expire,
        message.expire_days,
        message.on_failure,
        message.archive,
        message.no_dot_files,
    )


def artifact_message(spec: ArtifactSpec) -> task_pb2.ArtifactConfig:
    """Return a file to keep as a message."""
    return task_pb2.ArtifactConfig(
        name=spec.name,
        path=spec.path,
        destination=spec.destination,
        expire=spec.expire,
        expire_days=spec.expire_days,
        on_failure=spec.on_failure,
        archive=spec.archive,
        no_dot_files=spec.no_dot_files,
    )


def task_detail(task: Task) -> task_pb2.TaskDetail:
    """Return a task as lists show it."""
    spec = TaskSpec.from_json(task.spec)
    return task_pb2.TaskDetail(
        task_id=task.public_id,
        name=task.name,
        pipeline_id=task.pipeline_id or "",
        stage=task.stage,
        status=enum(task.status),
        commands=spec.commands,
        env=spec.env,
        workspace=spec.workspace,
        timeout=task.timeout // SECOND,
        image=spec.image,
        artifacts=map(artifact_message, spec.artifacts),
        allow_failure=task.allow_failure,
        retry_count=task.retry_limit,
        retried_times=retried_times(task),
        agent_id=task.last_agent_id or "",
        exit_code=task.exit_code,
        error_message=task.error,
        created_at=seconds(task.created_at),
        started_at=seconds(task.started_at),
        finished_at=seconds(task.finished_at),
        duration=_duration(task),
        created_by=task.created_by,
        attempt=task.attempt,
        infra_retries=task.infra_retries,
        run_id=task.run_id or "",
        labels=spec.labels,
        retry_of=task.retry_of or "",
        executor=spec.executor,
        cancel_requested=task.cancel_requested_at is not None and not task.status.ended,
        priority=task.priority,
        schedule_to_start=task.schedule_to_start // SECOND,
        concurrency=_standing(task),
    )


def _duration(task: Task) -> int:
    """Return how long the last attempt ran, in milliseconds, 0 while it runs."""
    if task.started_at is None or task.finished_at is None:
        return 0
    return max(0, task.finished_at - task.started_at)


def retried_times(task: Task) -> int:
    """Return how many further attempts a task has made after one that failed."""
    return min(task.failed_attempts, task.retry_limit)


def full_task_detail(view: TaskView, waiting: str) -> task_pb2.TaskDetail:
    """Return a task with everything that belongs to it."""
    detail = task_detail(view.task)
    detail.depends_on.extend(task_id for task_id, _, _ in view.depends_on)
    detail.label_selector.CopyFrom(selector_message(Selector.from_canonical(view.canonical_class)))
    detail.agent_labels.update(view.agent_labels)
    detail.attempts.extend(map(attempt_message, view.attempts))
    detail.waiting_reason = waiting
    if view.task.outputs:
        detail.outputs.update(json.loads(view.task.outputs))
    if view.crowd is not None:
        detail.concurrency.limit = view.crowd.places
    if view.attempts:
        last = view.attempts[-1]
        detail.duration = max(0, (last.ended_at or 0) - (last.started_at or last.ended_at or 0))
    return detail


def attempt_message(attempt: Attempt) -> task_pb2.Attempt:
    """Return an attempt."""
    return task_pb2.Attempt(
        number=attempt.number,
        agent_id=attempt.agent_id,
        status=enum(attempt.status),
        claimed_at=attempt.claimed_at,
        started_at=attempt.started_at or 0,
        ended_at=attempt.ended_at or 0,
        exit_code=attempt.exit_code,
        cause=attempt.cause,
        log_lines=attempt.log_lines,
        log_state=enum(attempt.log_state),
    )


# ---- pages


def page_of(
    number: int, size: int, token: str, sort_by: str, columns: tuple[str, ...], *, descending: bool
) -> PageSpec:
    """Return which page a request asks for.

    Raises:
        Invalid: a number out of range, an unknown column, a malformed token.
    """
    violations = []
    if not 0 <= size <= PAGE_LIMIT:
        violations.append(Violation("page_size", f"must be from 0 to {PAGE_LIMIT}, is {size}"))
    if number < 0:
        violations.append(Violation("page", f"must not be negative, is {number}"))
    if sort_by and sort_by not in columns:
        violations.append(Violation("sort_by", f"must be one of {', '.join(columns)}"))
    if token and not (token.isascii() and token.isdecimal() and len(token) < 19):
        violations.append(Violation("page_token", "must be the next_page_token of an answer"))
    if token and sort_by:
        violations.append(Violation("page_token", "works only without sort_by"))
    if violations:
        raise Invalid(violations)
    return PageSpec(
        size or PAGE_DEFAULT,
        number or 1,
        int(token) if token else None,
        Order(sort_by, descending),
    )


def status_filter(field: str, number: int, kind: type[E]) -> int:
    """Return a status to filter by, 0 for none.

    Raises:
        Invalid: there is no such status.
    """
    known = [int(cast("int", member)) for member in cast("Iterable[E]", kind)]
    if number and number not in known:
        raise Invalid([Violation(field, f"there is no status {number}")])
    return number


# ---- logs

LogMessage = stream_pb2.LogChunk | agent_pb2.LogEntry


def lines_of(messages: Iterable[LogMessage], field: str) -> tuple[int, tuple[LogLine, ...]]:
    """Return the first line's number (0 appends) and the lines.

    Raises:
        Invalid: the numbers have a hole, or a stream has no such name.
    """
    lines: list[LogLine] = []
    first = 0
    for index, message in enumerate(messages):
        if index == 0:
            first = message.line_number
        expected = first + index if first else 0
        if first < 0:
            text = f"must not be negative, is {first}"
            raise Invalid([Violation(f"{field}[0].line_number", text)])
        if message.line_number != expected:
            text = f"must be {expected}, is {message.line_number}: no holes, no repeats"
            raise Invalid([Violation(f"{field}[{index}].line_number", text)])
        if max(len(message.content), len(message.raw)) > LINE_LIMIT:
            text = f"must have at most {LINE_LIMIT} characters; send the rest as further lines"
            raise Invalid([Violation(f"{field}[{index}].content", text)])
        if message.stream not in ("", "stdout", "stderr"):
            raise Invalid([Violation(f"{field}[{index}].stream", "must be stdout or stderr")])
        lines.append(_line(message))
    return first, tuple(lines)


BatchMessage = stream_pb2.LogData | agent_pb2.ReportTaskLogRequest | stream_pb2.UploadTaskLogRequest


def batch_of(message: BatchMessage) -> Batch:
    """Return the lines of a message, packed or one by one.

    Raises:
        Invalid: they contradict themselves, or are not numbered without holes.
    """
    if isinstance(message, stream_pb2.UploadTaskLogRequest) or not message.HasField("block"):
        return LooseLines(*lines_of(message.logs, "logs"))
    if message.logs:
        raise Invalid([Violation("logs", "must be empty beside a block")])
    if not message.lease_id:
        raise Invalid([Violation("lease_id", "must name the lease that the block belongs to")])
    return block_of(message.block)


def block_of(message: agent_pb2.LogBlock) -> LogBlock:
    """Return packed lines.

    Raises:
        Invalid: a number is out of range, or `data` is not what its CRC says.
    """
    checks = Checks()
    checks.number("block.first_line", message.first_line, 1, LINES_LIMIT)
    checks.number("block.lines", message.lines, 1, LINES_LIMIT)
    checks.number("block.bytes", message.bytes, message.lines, BLOCK_LIMIT)
    checks.number("block.first_at", message.first_at, 0, MOMENT_LIMIT)
    checks.number("block.last_at", message.last_at, message.first_at, MOMENT_LIMIT)
    checks.number("block.unpacked_bytes", message.unpacked_bytes, 1, BLOCK_LIMIT)
    if int(message.encoding) not in (Encoding.PLAIN, Encoding.ZSTD):
        checks.fail("block.encoding", "must be PLAIN or ZSTD")
    if len(message.data) > BLOCK_LIMIT:
        checks.fail("block.data", f"must have at most {BLOCK_LIMIT} bytes")
    elif zlib.crc32(message.data) != message.data_crc32:
        checks.fail("block.data_crc32", "is not the CRC-32 of data")
    checks.done()
    return LogBlock(
        message.first_line,
        message.lines,
        message.bytes,
        message.crc32,
        message.first_at,
        message.last_at,
        Encoding(message.encoding),
        message.unpacked_bytes,
        message.data,
        message.data_crc32,
    )


def _line(message: LogMessage) -> LogLine:
    stream = message.stream or "stdout"
    return LogLine(
        at=max(0, message.timestamp),
        stream=stream,
        level=message.level[:16] or level_of(stream),
        text=message.content.removesuffix("\n"),
        raw=message.raw,
        continued=message.continued,
    )


def chunk(line: LogLine, number: int) -> stream_pb2.LogChunk:
    """Return a line as streams carry it."""
    return stream_pb2.LogChunk(
        timestamp=line.at,
        line_number=number,
        level=line.level,
        content=line.text,
        stream=line.stream,
        raw=line.raw,
        continued=line.continued,
    )


def log_line(line: LogLine, number: int) -> task_pb2.LogLine:
    """Return a line as GetTaskLog carries it."""
    return task_pb2.LogLine(
        line_number=number,
        timestamp=line.at,
        level=line.level,
        content=line.text,
        stream=line.stream,
        raw=line.raw,
        continued=line.continued,
    )
