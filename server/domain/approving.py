"""People answer whether a run goes on."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.checks import Checks
from server.domain.ending import end_task
from server.domain.errors import NotAsked, NotFound, WrongState
from server.domain.event import Event, EventKind
from server.domain.ledger import Ledger
from server.domain.rules import Rules
from server.domain.run import Run
from server.domain.task import Judged, Task, TaskStatus

COMMENT_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class AnswerApproval:
    """Approve or reject a job that asks; answers its task's id.

    The same answer again is fine.
    """

    namespace: str
    run_id: str
    job: str
    """The job's name, or its task's id; empty takes the only one that asks."""
    approve: bool
    answered_by: str = ""
    known_as: frozenset[str] | None = None
    """What the caller may be called in the list of who may answer; None where nobody is known."""
    comment: str = ""

    def check(self) -> None:
        """Check every field, by its path in ApproveRequest.

        Raises:
            Invalid: a field is malformed.
        """
        checks = Checks()
        checks.text("comment", self.comment, COMMENT_LIMIT)
        checks.done()

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> str:
        """See Command."""
        run = ledger.run(self.namespace, self.run_id)
        task = self._asking(ledger, run)
        rules = Rules.from_json(task.rules)
        who = rules.approval.who if rules.approval is not None else ()
        if self.known_as is not None and self.known_as.isdisjoint(who):
            raise NotAsked(task.name, self.answered_by, who)
        end = TaskStatus.SUCCESS if self.approve else TaskStatus.FAILED
        if task.status is end:
            return task.public_id  # a repeated answer
        if task.status is not TaskStatus.PENDING or task.judged is not Judged.ASKED:
            raise WrongState("task", task.public_id, _why_not(task))
        self._tell(ledger, task)
        end_task(ledger, task, end, "" if self.approve else self._rejected())
        return task.public_id

    def _asking(self, ledger: Ledger, run: Run) -> Task:
        jobs = [t for t in ledger.tasks_of_run(run) if Rules.from_json(t.rules).approval]
        if self.job:
            found = [task for task in jobs if self.job in (task.name, task.public_id)]
            if not found:
                raise NotFound("approval", self.job)
            return found[0]
        open_ones = [t for t in jobs if t.judged is Judged.ASKED and not t.status.ended]
        if len(open_ones) == 1:
            return open_ones[0]
        names = ", ".join(repr(task.name) for task in open_ones)
        reason = f"asks for several approvals: say which of {names}" if names else "asks for none"
        raise WrongState("run", run.public_id, reason)

    def _rejected(self) -> str:
        by = f" by {self.answered_by}" if self.answered_by else ""
        return f"rejected{by}{': ' if self.comment else ''}{self.comment}"

    def _tell(self, ledger: Ledger, task: Task) -> None:
        ledger.tell(
            Event(
                EventKind.APPROVAL_GIVEN,
                task.namespace,
                ledger.now,
                task.public_id,
                run_id=task.run_id,
                pipeline_id=task.pipeline_id,
                data={
                    "name": task.name,
                    "approved": self.approve,
                    "answered_by": self.answered_by,
                    "comment": self.comment,
                },
            )
        )


def _why_not(task: Task) -> str:
    if task.status.ended:
        return f"has ended in {task.status.name}"
    return "does not ask yet: it waits for other jobs"
