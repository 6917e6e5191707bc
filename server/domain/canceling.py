"""Ends that somebody asks for."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.checks import REASON_LIMIT, Checks
from server.domain.ending import end_task
from server.domain.errors import Invalid, Violation, WrongState
from server.domain.event import Event, EventKind
from server.domain.ledger import Ledger
from server.domain.run import Run
from server.domain.task import Task, TaskStatus


def check_reason(reason: str) -> None:
    """Check a reason for people.

    Raises:
        Invalid: it is too long or holds NUL.
    """
    checks = Checks()
    checks.text("reason", reason, REASON_LIMIT)
    checks.done()


def cancel(ledger: Ledger, task: Task, reason: str) -> bool:
    """End a waiting task, or ask the agent of a leased one; return whether it has ended."""
    if task.status.ended:
        return True
    if not task.leased:
        end_task(ledger, task, TaskStatus.CANCELLED, reason or "cancelled")
        return True
    if task.cancel_requested_at is None:
        task.cancel_requested_at = ledger.now
        task.cancel_reason = reason
        ledger.touch(task)
        ledger.tell(
            Event(
                EventKind.TASK_CANCEL_REQUESTED,
                task.namespace,
                ledger.now,
                task.public_id,
                run_id=task.run_id,
                pipeline_id=task.pipeline_id,
                data={
                    "session": task.lease_session,
                    "lease": task.lease_id,
                    "reason": reason,
                },
            )
        )
    return False


@dataclass(frozen=True, slots=True)
class CancelTask:
    """Cancel a task; answers whether it has ended already.

    With `agent_id` the task must be held by that agent.
    """

    namespace: str | None
    task_id: str
    reason: str = ""
    agent_id: str = ""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return (self.task_id,)

    def decide(self, ledger: Ledger) -> bool:
        """See Command."""
        task = ledger.task(self.namespace, self.task_id)
        if self.agent_id:
            agent = ledger.agent(self.agent_id)
            if task.lease_agent != agent.key:
                raise WrongState("task", task.public_id, f"is not held by agent {self.agent_id}")
        if task.status.ended and task.status is not TaskStatus.CANCELLED:
            raise WrongState("task", task.public_id, f"has ended in {task.status.name}")
        return cancel(ledger, task, self.reason)


@dataclass(frozen=True, slots=True)
class StopPipeline:
    """Cancel one run, or every active run of a pipeline; answers how many."""

    namespace: str
    pipeline_id: str
    run_id: str = ""
    reason: str = ""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> int:
        """See Command."""
        pipeline = ledger.pipeline(self.namespace, self.pipeline_id)
        if not self.run_id:
            runs = ledger.active_runs(pipeline)
        else:
            run = ledger.run(self.namespace, self.run_id)
            if run.pipeline_key != pipeline.key:
                text = f"run {self.run_id} belongs to pipeline {run.pipeline_id}"
                raise Invalid([Violation("run_id", text)])
            if run.status.ended and run.stop_requested_at is None:
                raise WrongState("run", run.public_id, f"has ended in {run.status.name}")
            runs = [] if run.status.ended else [run]
        for run in runs:
            stop_run(ledger, run, self.reason)
        return len(runs)


def stop_run(ledger: Ledger, run: Run, reason: str) -> None:
    """Cancel every job of a run that has not ended."""
    run.stop_requested_at = run.stop_requested_at or ledger.now
    ledger.touch_run(run)
    tasks = ledger.tasks_of_run(run)
    for task in tasks:
        if not task.status.ended:
            cancel(ledger, task, reason or "the run was stopped")
