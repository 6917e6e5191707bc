"""What becomes due: tries, starts that do not come, deadlines, drains, logs that stay short."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.attempt import AttemptStatus
from server.domain.controlling import when_agent_due
from server.domain.ending import Outcome, end_attempt, end_task, requeue
from server.domain.ledger import Ledger
from server.domain.moment import SECOND
from server.domain.releasing import DRAINED
from server.domain.scheduling import when_schedule_due
from server.domain.task import Judged, Task, TaskStatus, stopped_by


@dataclass(frozen=True, slots=True)
class RunTimers:
    """Let everything happen whose moment has come; answers whether more may be due."""

    limit: int = 500

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> bool:
        """See Command."""
        tasks = ledger.tasks_due(self.limit)
        for task in tasks:
            _when_due(ledger, task)
        agents = ledger.agents_due(self.limit)
        for agent in agents:
            when_agent_due(ledger, agent)
        schedules = ledger.schedules_due(self.limit)
        for schedule in schedules:
            when_schedule_due(ledger, schedule)
        attempts = ledger.attempts_due(self.limit)
        for attempt in attempts:
            ledger.touch_attempt(attempt)  # saving it judges its log anew
        return self.limit in (len(tasks), len(agents), len(schedules), len(attempts))


def _when_due(ledger: Ledger, task: Task) -> None:
    if task.due_at is None or task.due_at > ledger.now or task.status.ended:
        return  # an earlier command of this batch has changed it
    if task.leased:
        end_attempt(ledger, task, _overdue(ledger, task))
    elif task.judged is Judged.ASKED:
        end_task(ledger, task, TaskStatus.TIMEOUT, "nobody answered in time")
    elif task.start_by is not None:
        limit = task.schedule_to_start // SECOND
        cause = f"it did not start within {limit} s of its submission"
        end_task(ledger, task, TaskStatus.TIMEOUT, cause)
    else:
        requeue(ledger, task)


def _overdue(ledger: Ledger, task: Task) -> Outcome:
    policy, now = ledger.policy, ledger.now
    agent = task.last_agent_id
    cancel_at = task.cancel_requested_at
    if cancel_at is not None and now >= stopped_by(task, cancel_at, policy):
        return Outcome(AttemptStatus.CANCELLED, cause=f"agent {agent} did not confirm the cancel")
    release_at = task.release_requested_at
    if release_at is not None and now >= stopped_by(task, release_at, policy):
        # A v1 agent names no lease, so what it may still say is kept apart as after a loss.
        v1 = ledger.last_attempt(task).session == ""
        status = AttemptStatus.LOST if v1 else AttemptStatus.RELEASED
        return Outcome(status, cause=f"{DRAINED}; agent {agent} did not confirm that it stopped it")
    if task.confirm_by is not None and now >= task.confirm_by:
        return Outcome(AttemptStatus.LOST, cause=f"agent {agent} came back without it", fault=True)
    if task.status is TaskStatus.RUNNING:
        return Outcome(AttemptStatus.TIMEOUT, cause=f"agent {agent} did not end it in time")
    return Outcome(AttemptStatus.LOST, cause=f"agent {agent} did not start it in time", fault=True)
