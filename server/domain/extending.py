"""A job adds jobs to its own run, such as those of a file it has checked out."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.checks import Checks
from server.domain.errors import NotFound, WrongState
from server.domain.event import Event, EventKind
from server.domain.ledger import Ledger
from server.domain.pipeline import JOB_LIMIT, Definition, Order, check_jobs, order_of
from server.domain.run import Run
from server.domain.submitting import Idempotency, answered_before, remember_answer
from server.domain.task import Task
from server.domain.triggering import RunJobs, facts_of_start, place_jobs


@dataclass(frozen=True, slots=True)
class AddJobs:
    """Add stages to an active run; answers the ids of the new tasks in order.

    The first of them waits for the task that adds it. Its jobs may also name jobs that the run has.
    """

    namespace: str
    run_id: str
    definition: Definition
    added_by: str = ""
    """The task that adds them, or empty: then nothing is waited for."""
    idempotency: Idempotency | None = None
    confined: bool = False
    """Whether they may get only secrets that the run's definition names: a task adds them."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> list[str]:
        """See Command."""
        answer = answered_before(ledger, self.namespace, self.idempotency)
        if answer is not None:
            return list(answer)
        run = ledger.run(self.namespace, self.run_id)
        if run.status.ended or run.stop_requested_at is not None:
            raise WrongState("run", run.public_id, "takes no more jobs: it ends or has ended")
        known = {task.name: task for task in ledger.tasks_of_run(run)}
        self._check(known)
        if self.confined:
            self._check_secrets(ledger, run)
        adder = self._adder(known)
        jobs = RunJobs(run, self.definition.env, *facts_of_start(run, self.definition))
        jobs.tasks.update(known)
        first_stage, first_place = len(run.stages), max(t.position for t in known.values()) + 1
        run.stages = [*run.stages, *(stage.name for stage in self.definition.stages)]
        new = []
        for place, (stage, _, job) in enumerate(self.definition.jobs(), first_place):
            task = jobs.build(ledger, job, place)
            task.stage = first_stage + stage
            jobs.add(job, task)
            new.append(task)
        run.total += len(new)
        ledger.touch_run(run)
        place_jobs(ledger, jobs, self._order(adder))
        self._tell(ledger, run, len(new))
        ids = [task.public_id for task in new]
        remember_answer(ledger, self.namespace, self.idempotency, ids)
        return ids

    def _check(self, known: dict[str, Task]) -> None:
        checks = Checks()
        check_jobs(checks, self.definition, frozenset(known))
        if len(known) + sum(1 for _ in self.definition.jobs()) > JOB_LIMIT:
            checks.fail("stages", f"a run has at most {JOB_LIMIT} jobs, and has {len(known)}")
        checks.done()

    def _check_secrets(self, ledger: Ledger, run: Run) -> None:
        """See that a task hands on no secrets that its run has nothing to do with."""
        version = ledger.version(ledger.pipeline_of(run), run.version)
        own = Definition.from_json(version.definition)
        named = {name for _, _, job in own.jobs() for name in job.secret_refs.values()}
        checks = Checks()
        for _, _, job in self.definition.jobs():
            for name in sorted(set(job.secret_refs.values()) - named):
                text = (
                    f"job {job.name!r} may not have secret {name!r}: the run's definition has not"
                )
                checks.fail("secrets", text)
        checks.done()

    def _adder(self, known: dict[str, Task]) -> Task | None:
        if not self.added_by:
            return None
        for task in known.values():
            if task.public_id == self.added_by:
                return task
        raise NotFound("task", self.added_by)

    def _order(self, adder: Task | None) -> Order:
        """Return what waits for what; jobs that wait for nothing new wait for the adding one."""
        order = order_of(self.definition)
        if adder is None:
            return order
        behind = {name for _, first in order.gates for name in first}
        new = set(order.needs)
        for name, needs in order.needs.items():
            if name not in behind and new.isdisjoint(needs) and adder.name not in needs:
                needs.append(adder.name)
        return order

    def _tell(self, ledger: Ledger, run: Run, count: int) -> None:
        ledger.tell(
            Event(
                EventKind.RUN_REMARK,
                run.namespace,
                ledger.now,
                run.public_id,
                run_id=run.public_id,
                pipeline_id=run.pipeline_id,
                data={"text": f"{count} jobs were added"},
            )
        )
