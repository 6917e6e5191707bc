"""Leases that their agents are asked to give up, without blame for task or agent."""

from server.domain.event import Event, EventKind
from server.domain.ledger import Ledger
from server.domain.task import Task

DRAINED = "its agent is drained"
"""What the agent is told, and the attempt's row keeps."""


def ask_release(ledger: Ledger, task: Task) -> None:
    """Ask the agent of a leased task to stop it, for it to be queued again; again is fine."""
    if task.release_requested_at is not None:
        return
    task.release_requested_at = ledger.now
    ledger.touch(task)
    ledger.tell(
        Event(
            EventKind.TASK_RELEASE_REQUESTED,
            task.namespace,
            ledger.now,
            task.public_id,
            run_id=task.run_id,
            pipeline_id=task.pipeline_id,
            data={"session": task.lease_session, "lease": task.lease_id, "reason": DRAINED},
        )
    )
