"""Turns how an attempt ended on this host into what the control plane is told."""

import signal

from agent.supervisor.frames import Message
from agent.supervisor.outputs import sound
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2

_STATUSES = {"timeout": task_pb2.TASK_STATUS_TIMEOUT, "cancelled": task_pb2.TASK_STATUS_CANCELLED}
LONGEST_MESSAGE = 2000
"""Letters; the control plane takes 4096."""

_FAULT_OF_THE_AGENT = {"lease_ended", "lost"}


def describe(end: Message) -> stream_pb2.TaskStatusUpdate:
    """Returns the final status for an end as the supervisor wrote it down."""
    update = stream_pb2.TaskStatusUpdate(
        exit_code=end["exit_code"],
        error_message=end["message"][:LONGEST_MESSAGE],
        timestamp=end["ended_at"],
        started_at=end["started_at"],
    )
    if outputs := sound(end.get("outputs")):  # the task may have written it
        update.outputs.update(outputs)
    cause = end["cause"]
    if cause == "exited" and end["exit_code"] == 0:
        update.status = task_pb2.TASK_STATUS_SUCCESS
    elif cause in _STATUSES:
        update.status = _STATUSES[cause]
    else:
        update.status = task_pb2.TASK_STATUS_FAILED
        update.failure = agent_pb2.FAILURE_CLASS_TASK
        if cause in _FAULT_OF_THE_AGENT or end["failure"] == "infrastructure":
            update.failure = agent_pb2.FAILURE_CLASS_INFRASTRUCTURE
        elif cause == "stopped":
            update.failure = agent_pb2.FAILURE_CLASS_RELEASED
        update.error_message = update.error_message or _words(end["exit_code"])
    return update


def _words(exit_code: int) -> str:
    if exit_code > 128:
        try:
            return f"ended by {signal.Signals(exit_code - 128).name}"
        except ValueError:
            pass
    return f"exit code {exit_code}"


def bare(update: stream_pb2.TaskStatusUpdate) -> stream_pb2.TaskStatusUpdate:
    """Returns what no control plane can refuse of an end: how, when, and whose fault it was."""
    return stream_pb2.TaskStatusUpdate(
        task_id=update.task_id,
        lease_id=update.lease_id,
        status=update.status,
        exit_code=update.exit_code,
        failure=update.failure,
        started_at=update.started_at,
        timestamp=update.timestamp,
        log=update.log if update.HasField("log") else None,
    )
