"""A run is done again: all of it, what did not go well, or from one job on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from server.domain.errors import Invalid, Violation, WrongState
from server.domain.ledger import Ledger
from server.domain.pipeline import Definition, order_of
from server.domain.run import Run
from server.domain.task import Task, TaskStatus
from server.domain.triggering import fill_run, stored_run


class RetryScope(IntEnum):
    """What of a run is done again. The numbers are those of `pipeline.v1.RetryScope`."""

    ALL = 1
    FAILED = 2
    """Jobs that did not succeed."""
    FROM_JOB = 3
    """One job, what waits for it, and jobs that did not succeed."""


@dataclass(frozen=True, slots=True)
class RetryRun:
    """Start a run that repeats an ended one by the same version; answers as TriggerPipeline does.

    Jobs that are not done again count as they ended.
    """

    namespace: str
    run_id: str
    new_id: str
    scope: RetryScope
    job: str = ""
    """With FROM_JOB: the job's name."""
    triggered_by: str = ""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> list[str]:
        """See Command."""
        if ledger.source.replayed and (stored := stored_run(ledger, self.namespace, self.new_id)):
            return stored
        old = ledger.run(self.namespace, self.run_id)
        if not old.status.ended:
            raise WrongState("run", old.public_id, "has not ended yet; stop it first")
        pipeline = ledger.pipeline(self.namespace, old.pipeline_id)
        definition = Definition.from_json(ledger.version(pipeline, old.version).definition)
        tasks = {task.name: task for task in ledger.tasks_of_run(old)}
        reused = self._reused(definition, tasks, old)
        run = Run(
            key=ledger.source.new_key(),
            namespace=old.namespace,
            public_id=self.new_id,
            pipeline_key=old.pipeline_key,
            pipeline_id=old.pipeline_id,
            number=pipeline.runs + 1,
            created_at=ledger.now,
            total=sum(1 for _ in definition.jobs()),
            branch=old.branch,
            commit_sha=old.commit_sha,
            triggered_by=self.triggered_by,
            stages=[stage.name for stage in definition.stages],
            version=old.version,
            facts=old.facts,
            retry_of=old.public_id,
            group_key=old.group_key,
        )
        return fill_run(ledger, pipeline, run, definition, reused)

    def _reused(
        self, definition: Definition, tasks: Mapping[str, Task], old: Run
    ) -> dict[str, Task]:
        """Return the tasks of the old run that need not be done again, by their jobs' names."""
        if self.scope is RetryScope.ALL:
            return {}
        again = self._from_job(definition) if self.scope is RetryScope.FROM_JOB else set()
        reused = {
            job.name: tasks[job.name]
            for _, _, job in definition.jobs()
            if job.name in tasks
            and tasks[job.name].status is TaskStatus.SUCCESS
            and job.name not in again
        }
        if len(reused) == sum(1 for _ in definition.jobs()):
            raise WrongState("run", old.public_id, "has nothing to do again: every job succeeded")
        return reused

    def _from_job(self, definition: Definition) -> set[str]:
        """Return a job and all that waits for it, directly or not."""
        order = order_of(definition)
        if self.job not in order.needs:
            raise Invalid([Violation("from_job", f"the run's definition has no job {self.job!r}")])
        waiting: dict[str, list[str]] = {}
        for name, others in order.needs.items():
            for other in others:
                waiting.setdefault(other, []).append(name)
        for last, first in order.gates:
            for name in last:
                waiting.setdefault(name, []).extend(first)
        found, look = {self.job}, [self.job]
        while look:
            new = set(waiting.get(look.pop(), ())) - found
            found |= new
            look.extend(new)
        return found
