"""Tasks as people read them."""

from collections.abc import Mapping
from datetime import timedelta

import click

from cli.output import print_fields, print_table
from cli.requirements import describe_selector
from cli.states import attempt_exit_text, exit_text, short_name, task_status
from cli.times import age, between, human, lasted, moment
from generated.task.v1 import task_pb2

HEADINGS = ("TASK", "NAME", "STATUS", "AGENT", "EXIT", "AGE", "DURATION")
WAITING = (task_pb2.TASK_STATUS_PENDING, task_pb2.TASK_STATUS_QUEUED)
USUAL_PRIORITY = 5
ATTEMPT_HEADINGS = ("ATTEMPT", "STATUS", "AGENT", "EXIT", "DURATION", "LOG LINES", "CAUSE")


def task_row(task: task_pb2.TaskDetail) -> tuple[str, ...]:
    """Return a task as a row under HEADINGS."""
    return (
        task.task_id,
        task.name,
        task_status(task.status),
        "" if task.status in WAITING else task.agent_id,
        _exit_text(task),
        age(task.created_at),
        task_duration(task),
    )


def _exit_text(task: task_pb2.TaskDetail) -> str:
    return exit_text(task.status, task.attempt, task.finished_at, task.exit_code)


def task_duration(task: task_pb2.TaskDetail) -> str:
    """Return how long the last attempt ran or runs; nothing while the task waits."""
    if task.status in WAITING:
        return ""
    if task.duration:
        return lasted(task.duration)
    return between(task.started_at * 1000, task.finished_at * 1000)


def print_task(task: task_pb2.TaskDetail) -> None:
    """Print one task with its attempts."""
    print_fields(
        (
            ("Task", task.task_id),
            ("Name", task.name),
            ("Status", task_status(task.status)),
            ("Waiting", task.waiting_reason),
            ("Cancelling", "asked for, not confirmed yet" if task.cancel_requested else ""),
            ("Error", task.error_message),
            ("Outputs", "\n".join(f"{k}={v}" for k, v in sorted(task.outputs.items()))),
            ("Exit code", _exit_text(task)),
            ("Agent", task.agent_id),
            ("Agent labels", _pairs(task.agent_labels)),
            ("Selector", describe_selector(task.label_selector)),
            ("Pipeline", task.pipeline_id),
            ("Run", task.run_id),
            ("Depends on", "\n".join(task.depends_on)),
            ("Retry of", task.retry_of),
            ("Labels", _pairs(task.labels)),
            ("Image", task.image),
            ("Workspace", task.workspace),
            ("Environment", "\n".join(f"{k}={v}" for k, v in sorted(task.env.items()))),
            ("Commands", "\n".join(task.commands)),
            ("Timeout", _seconds(task.timeout)),
            ("Priority", "" if task.priority == USUAL_PRIORITY else str(task.priority)),
            ("Start within", _seconds(task.schedule_to_start)),
            ("Concurrency", _group(task.concurrency)),
            ("Created", moment(task.created_at)),
            ("Created by", task.created_by),
            ("Started", moment(task.started_at)),
            ("Finished", moment(task.finished_at)),
            ("Duration", task_duration(task)),
        )
    )
    if task.attempts:
        click.echo()
        print_table(ATTEMPT_HEADINGS, map(_attempt_row, task.attempts))


def _attempt_row(attempt: task_pb2.Attempt) -> tuple[str, ...]:
    return (
        str(attempt.number),
        short_name(task_pb2.AttemptStatus.DESCRIPTOR, attempt.status),
        attempt.agent_id,
        attempt_exit_text(attempt),
        between(attempt.started_at, attempt.ended_at),
        _log_lines(attempt),
        attempt.cause,
    )


def _log_lines(attempt: task_pb2.Attempt) -> str:
    """Return how many lines there are, and whether some are missing."""
    missing = attempt.log_state == task_pb2.LOG_STATE_INCOMPLETE
    return f"{attempt.log_lines} (not whole)" if missing else str(attempt.log_lines)


def _group(standing: task_pb2.ConcurrencyStanding) -> str:
    if not standing.key:
        return ""
    cancels = standing.on_conflict == task_pb2.CONCURRENCY_POLICY_CANCEL_RUNNING
    facts = [
        f"limit {standing.limit}",
        *(["cancels older tasks"] if cancels else []),
        *(["holds a place"] if standing.holds_place else []),
    ]
    return f"{standing.key} ({', '.join(facts)})"


def _seconds(count: int) -> str:
    """Return seconds as a duration, nothing for 0."""
    return human(timedelta(seconds=count)) if count else ""


def _pairs(labels: Mapping[str, str]) -> str:
    """Return labels on one line."""
    return ", ".join(f"{k}={v}" for k, v in sorted(labels.items()))
