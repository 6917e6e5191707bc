"""Pipelines come in, and become runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from server.domain.checks import Checks
from server.domain.ending import tell_run
from server.domain.errors import AlreadyExists, NotFound
from server.domain.event import Event, EventKind
from server.domain.ids import derived_id
from server.domain.ledger import Ledger
from server.domain.pipeline import Definition, Job, Pipeline, check_definition, dependencies
from server.domain.priority import PRIORITY_DEFAULT
from server.domain.run import Run, RunStatus
from server.domain.submitting import (
    Idempotency,
    NewTask,
    answered_before,
    build_task,
    place_task,
    remember_answer,
)
from server.domain.task import Task, TaskSpec

DESCRIPTION_LIMIT = 16_384


@dataclass(frozen=True, slots=True)
class CreatePipeline:
    """Store a new pipeline; answers its id."""

    namespace: str
    pipeline_id: str
    name: str
    definition: Definition
    description: str = ""
    trigger_type: int = 1
    cron: str = ""
    created_by: str = ""

    def check(self) -> None:
        """Check every field, by its path in CreatePipelineRequest.

        Raises:
            Invalid: a field is malformed.
        """
        checks = Checks()
        checks.name("name", self.name)
        checks.text("description", self.description, DESCRIPTION_LIMIT)
        checks.text("repo_url", self.definition.repo_url, 2048)
        checks.name("branch", self.definition.branch)
        checks.name("cron", self.cron, required=False)
        checks.name("created_by", self.created_by, required=False)
        check_definition(checks, self.definition)
        checks.done()

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> str:
        """See Command."""
        known = ledger.pipeline_named(self.namespace, self.name)
        if known is not None:
            if known.public_id == self.pipeline_id:  # a retry after a lost answer
                return known.public_id
            raise AlreadyExists("pipeline", self.name)
        ledger.add_pipeline(
            Pipeline(
                key=ledger.source.new_key(),
                namespace=self.namespace,
                public_id=self.pipeline_id,
                name=self.name,
                definition=self.definition.to_json(),
                created_at=ledger.now,
                updated_at=ledger.now,
                description=self.description,
                trigger_type=self.trigger_type,
                cron=self.cron,
                created_by=self.created_by,
            )
        )
        ledger.tell(
            Event(
                EventKind.PIPELINE_CREATED,
                self.namespace,
                ledger.now,
                self.pipeline_id,
                pipeline_id=self.pipeline_id,
                data={"name": self.name},
            )
        )
        return self.pipeline_id


@dataclass(frozen=True, slots=True)
class Trigger:
    """What a run is started with."""

    branch: str = ""
    commit_sha: str = ""
    env: dict[str, str] = field(default_factory=dict)
    triggered_by: str = ""

    def check(self) -> None:
        """Check every field, by its path in TriggerPipelineRequest.

        Raises:
            Invalid: a field is malformed.
        """
        checks = Checks()
        checks.name("branch", self.branch, required=False)
        checks.name("commit_sha", self.commit_sha, required=False)
        checks.name("triggered_by", self.triggered_by, required=False)
        checks.environment("env", self.env)
        checks.load("env", (), self.env)
        checks.done()


@dataclass(frozen=True, slots=True)
class TriggerPipeline:
    """Start a run; answers its id and the ids of its tasks in the order of the definition."""

    namespace: str
    pipeline_id: str
    run_id: str
    trigger: Trigger
    idempotency: Idempotency | None = None

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> list[str]:
        """See Command."""
        answer = answered_before(ledger, self.namespace, self.idempotency)
        if answer is not None:
            return list(answer)
        if ledger.source.replayed and (stored := self._stored(ledger)):
            return stored
        pipeline = ledger.pipeline(self.namespace, self.pipeline_id)
        definition = Definition.from_json(pipeline.definition)
        run = self._add_run(ledger, pipeline, definition)
        task_ids = self._add_tasks(ledger, run, definition)
        if definition.repo_url:
            _remark_checkout(ledger, run, definition)
        result = [run.public_id, *task_ids]
        remember_answer(ledger, self.namespace, self.idempotency, result)
        return result

    def _stored(self, ledger: Ledger) -> list[str] | None:
        """Return the answer of a first try that was stored though its answer was lost."""
        try:
            run = ledger.run(self.namespace, self.run_id)
        except NotFound:
            return None
        tasks = sorted(ledger.tasks_of_run(run), key=lambda task: task.position)
        return [run.public_id, *(task.public_id for task in tasks)]

    def _add_run(self, ledger: Ledger, pipeline: Pipeline, definition: Definition) -> Run:
        pipeline.runs += 1
        pipeline.last_status = RunStatus.PENDING
        ledger.touch_pipeline(pipeline)
        run = Run(
            key=ledger.source.new_key(),
            namespace=self.namespace,
            public_id=self.run_id,
            pipeline_key=pipeline.key,
            pipeline_id=pipeline.public_id,
            number=pipeline.runs,
            created_at=ledger.now,
            total=sum(1 for _ in definition.jobs()),
            branch=self.trigger.branch or definition.branch,
            commit_sha=self.trigger.commit_sha,
            triggered_by=self.trigger.triggered_by,
            stages=[stage.name for stage in definition.stages],
        )
        ledger.add_run(run)
        tell_run(ledger, run, None, pipeline.name)
        return run

    def _add_tasks(self, ledger: Ledger, run: Run, definition: Definition) -> list[str]:
        facts = _facts(run, definition)
        needs = dependencies(definition)
        built: dict[str, Task] = {}
        for position, (stage, _, job) in enumerate(definition.jobs()):
            new = _task_of(job, definition.env | job.env | self.trigger.env, facts)
            task_id = derived_id(run.public_id, position)
            task = build_task(ledger, self.namespace, task_id, new, self.trigger.triggered_by)
            task.pipeline_id, task.run_key, task.run_id = run.pipeline_id, run.key, run.public_id
            task.stage, task.position = stage, position
            built[job.name] = task
        for name, task in built.items():
            place_task(ledger, task, [built[other] for other in needs[name]])
        return [task.public_id for task in built.values()]


def _facts(run: Run, definition: Definition) -> dict[str, str]:
    facts = {
        "MUSTER_PIPELINE_ID": run.pipeline_id,
        "MUSTER_RUN_NUMBER": str(run.number),
        "MUSTER_BRANCH": run.branch,
        "MUSTER_COMMIT": run.commit_sha,
        "MUSTER_REPO_URL": definition.repo_url,
    }
    return {name: value for name, value in facts.items() if value}


def _task_of(job: Job, env: Mapping[str, str], facts: Mapping[str, str]) -> NewTask:
    spec = TaskSpec(
        commands=job.commands,
        env={**env, **facts},
        image=job.image,
        secret_refs=job.secret_refs,
    )
    return NewTask(
        name=job.name,
        spec=spec,
        selector=job.selector,
        timeout=job.timeout,
        allow_failure=job.allow_failure,
        retry_count=job.retry,
        priority=PRIORITY_DEFAULT if job.priority is None else job.priority,
    )


def _remark_checkout(ledger: Ledger, run: Run, definition: Definition) -> None:
    text = (
        f"{definition.repo_url} is not checked out: that comes with the checkout plugin. "
        "Jobs find it in MUSTER_REPO_URL and start in an empty workspace."
    )
    ledger.tell(
        Event(
            EventKind.RUN_REMARK,
            run.namespace,
            ledger.now,
            run.public_id,
            run_id=run.public_id,
            pipeline_id=run.pipeline_id,
            data={"text": text},
        )
    )
