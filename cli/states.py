"""States of tasks and runs, and what the end of a task means to a command."""

from google.protobuf.descriptor import EnumDescriptor

from cli.exit_codes import Exit
from generated.pipeline.v1 import pipeline_pb2
from generated.task.v1 import task_pb2

WAITING = {task_pb2.TASK_STATUS_PENDING, task_pb2.TASK_STATUS_QUEUED}
ENDED = {
    task_pb2.TASK_STATUS_SUCCESS,
    task_pb2.TASK_STATUS_FAILED,
    task_pb2.TASK_STATUS_CANCELLED,
    task_pb2.TASK_STATUS_TIMEOUT,
    task_pb2.TASK_STATUS_SKIPPED,
}
RUN_WENT_WELL = {pipeline_pb2.PIPELINE_STATUS_SUCCESS, pipeline_pb2.PIPELINE_STATUS_PARTIAL}
RUN_ENDED = {
    *RUN_WENT_WELL,
    pipeline_pb2.PIPELINE_STATUS_FAILED,
    pipeline_pb2.PIPELINE_STATUS_CANCELLED,
}


def short_name(enum: EnumDescriptor, value: int) -> str:
    """Return an enum value without its prefix, or nothing for the unspecified one."""
    if value == 0:
        return ""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    found = enum.values_by_number.get(value)
    return found.name.removeprefix(prefix) if found else str(value)


def choices(enum: EnumDescriptor) -> list[str]:
    """Return what an option for an enum accepts."""
    return [short_name(enum, number).lower() for number in enum.values_by_number if number]


def chosen(enum: EnumDescriptor, choice: str | None) -> int:
    """Return the enum value of an option, 0 when it was not given."""
    names = {short_name(enum, number).lower(): number for number in enum.values_by_number}
    return names[choice.lower()] if choice else 0


def task_status(status: int) -> str:
    """Return a task's status as people read it."""
    return short_name(task_pb2.TaskStatus.DESCRIPTOR, status)


def exit_code_of(task: task_pb2.TaskDetail) -> int:
    """Return the exit code of a command that stood for an ended task."""
    match task.status:
        case task_pb2.TASK_STATUS_SUCCESS:
            return Exit.FINE
        case task_pb2.TASK_STATUS_TIMEOUT:
            return Exit.TASK_TIMEOUT
        case task_pb2.TASK_STATUS_FAILED if task.exit_code and not was_lost(task):
            return (task.exit_code & 0xFF) or Exit.FAILED
        case _:
            return Exit.EXEC_FAILED


def exit_text(status: int, attempt: int, finished_at: int, exit_code: int) -> str:
    """Return a task's exit code as tables show it: nothing before its end, - where it has none."""
    if not (finished_at and attempt):
        return ""
    return "-" if status == task_pb2.TASK_STATUS_FAILED and not exit_code else str(exit_code)


def attempt_exit_text(attempt: task_pb2.Attempt) -> str:
    """Return an attempt's exit code: nothing before its end, - where its script gave none."""
    if not attempt.ended_at:
        return ""
    gave_none = attempt.status in (
        task_pb2.ATTEMPT_STATUS_LOST,
        task_pb2.ATTEMPT_STATUS_FAILED,
    )
    none = not attempt.exit_code and (gave_none or not attempt.started_at)
    return "-" if none else str(attempt.exit_code)


def was_lost(task: task_pb2.TaskDetail) -> bool:
    """Return whether the last attempt was lost with its agent."""
    last = task.attempts[-1:]
    return bool(last) and last[0].status == task_pb2.ATTEMPT_STATUS_LOST


def _has_started(task: task_pb2.TaskDetail) -> bool:
    return any(attempt.started_at for attempt in task.attempts)


def why_it_failed(task: task_pb2.TaskDetail) -> str:
    """Return what to say about an end that is not the script's own, or nothing."""
    cause = task.error_message or (task.attempts[-1].cause if task.attempts else "")
    because = f": {cause}" if cause else ""
    match task.status:
        case task_pb2.TASK_STATUS_TIMEOUT if task.schedule_to_start and not _has_started(task):
            return f"task {task.task_id} was not started{because}"
        case task_pb2.TASK_STATUS_TIMEOUT:
            return f"task {task.task_id} ran out of its {task.timeout} s"
        case task_pb2.TASK_STATUS_CANCELLED:
            return f"task {task.task_id} was cancelled{because}"
        case task_pb2.TASK_STATUS_SKIPPED:
            return f"task {task.task_id} was skipped{because}"
        case task_pb2.TASK_STATUS_FAILED if was_lost(task):
            return f"task {task.task_id} was lost with its agent{because}"
        case task_pb2.TASK_STATUS_FAILED if not task.exit_code:
            return f"task {task.task_id} could not be run{because}"
        case _:
            return ""
