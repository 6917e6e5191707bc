"""Pipelines become runs."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from server.domain.canceling import stop_run
from server.domain.checks import Checks
from server.domain.ending import Ending, begin, end_all, settle_run, tell_run
from server.domain.errors import NotFound
from server.domain.facts import how_it_ended
from server.domain.gate import Gate
from server.domain.ids import derived_id
from server.domain.inputs import resolve_inputs, variables_of
from server.domain.ledger import Ledger
from server.domain.pipeline import Definition, Job, Order, Pipeline, order_of
from server.domain.priority import PRIORITY_DEFAULT
from server.domain.rules import Rules, rules_of
from server.domain.run import Run, RunStatus
from server.domain.submitting import (
    Idempotency,
    NewTask,
    answered_before,
    build_task,
    place_task,
    remember_answer,
)
from server.domain.task import Task, TaskSpec, TaskStatus
from server.domain.trigger_event import TriggerEvent

FACTS_LIMIT = 256 * 1024
"""Characters of what a run keeps of how it was started."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """What a run is started with."""

    branch: str = ""
    commit_sha: str = ""
    env: dict[str, str] = field(default_factory=dict)
    triggered_by: str = ""
    inputs: Mapping[str, object] = field(default_factory=dict)
    """Values of the pipeline's inputs: of their types, or texts of them."""
    event: TriggerEvent | None = None
    """What happened; None when somebody has just asked for it."""

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

    def facts(self, inputs: Mapping[str, Any]) -> str:
        """Return what its run keeps of it, as JSON.

        Raises:
            Invalid: it is too much.
        """
        facts = {
            "event": self.event.to_facts() if self.event is not None else {},
            "inputs": inputs,
            "env": self.env,
        }
        text = json.dumps(
            {name: value for name, value in facts.items() if value},
            ensure_ascii=False,
            separators=(",", ":"),
        )
        if len(text) > FACTS_LIMIT:
            checks = Checks()
            checks.fail("event", f"must have at most {FACTS_LIMIT} characters, has {len(text)}")
            checks.done()
        return text


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
        if ledger.source.replayed and (stored := stored_run(ledger, self.namespace, self.run_id)):
            return stored
        pipeline = ledger.pipeline(self.namespace, self.pipeline_id)
        result = start_run(ledger, pipeline, self.run_id, self.trigger)
        remember_answer(ledger, self.namespace, self.idempotency, result)
        return result


def stored_run(ledger: Ledger, namespace: str, run_id: str) -> list[str] | None:
    """Return the answer of a first try that was stored though its answer was lost."""
    try:
        run = ledger.run(namespace, run_id)
    except NotFound:
        return None
    tasks = sorted(ledger.tasks_of_run(run), key=lambda task: task.position)
    return [run.public_id, *(task.public_id for task in tasks)]


def start_run(
    ledger: Ledger,
    pipeline: Pipeline,
    run_id: str,
    trigger: Trigger,
    *,
    schedule_key: int | None = None,
) -> list[str]:
    """Start a run of a pipeline as it is now; return its id and those of its tasks, in order.

    Raises:
        Invalid: the trigger does not give what the pipeline asks for.
    """
    definition = Definition.from_json(pipeline.definition)
    inputs = resolve_inputs(definition.inputs, trigger.inputs)
    run = Run(
        key=ledger.source.new_key(),
        namespace=pipeline.namespace,
        public_id=run_id,
        pipeline_key=pipeline.key,
        pipeline_id=pipeline.public_id,
        number=pipeline.runs + 1,
        created_at=ledger.now,
        total=sum(1 for _ in definition.jobs()),
        branch=trigger.branch or definition.branch,
        commit_sha=trigger.commit_sha,
        triggered_by=trigger.triggered_by,
        stages=[stage.name for stage in definition.stages],
        version=pipeline.version,
        facts=trigger.facts(inputs),
        group_key=definition.group.key if definition.group is not None else None,
        schedule_key=schedule_key,
    )
    return fill_run(ledger, pipeline, run, definition)


def fill_run(
    ledger: Ledger,
    pipeline: Pipeline,
    run: Run,
    definition: Definition,
    reused: Mapping[str, Task] | None = None,
) -> list[str]:
    """Add a new run with its tasks, and start it; return its id and those of its tasks, in order.

    Jobs in `reused`, by their names, have gone well in an earlier run, and are not done again.
    """
    pipeline.runs += 1
    pipeline.last_status = RunStatus.PENDING
    ledger.touch_pipeline(pipeline)
    ledger.add_run(run)
    tell_run(ledger, run, None, pipeline.name)
    jobs = RunJobs(
        run, definition.env, *facts_of_start(run, definition), checkout=bool(definition.repo_url)
    )
    tasks = [
        reuse_task(ledger, run, task, position)
        if (task := (reused or {}).get(job.name)) is not None
        else jobs.build(ledger, job, position)
        for position, (_, _, job) in enumerate(definition.jobs())
    ]
    for task, (stage, _, job) in zip(tasks, definition.jobs(), strict=True):
        task.stage = stage
        jobs.add(job, task)
    place_jobs(ledger, jobs, order_of(definition), _turn(ledger, run, definition))
    return [run.public_id, *(task.public_id for task in tasks)]


@dataclass(slots=True)
class RunJobs:
    """Jobs that become tasks of a run."""

    run: Run
    env: dict[str, str]
    """Variables of every job."""
    given: dict[str, str]
    """Variables that whoever started the run has given; they come before those of the jobs."""
    variables: dict[str, str]
    """What Muster says of the run; it comes before all others."""
    checkout: bool = False
    """Whether there is a repository to be checked out."""
    tasks: dict[str, Task] = field(default_factory=dict)
    """By the jobs' names; also of jobs that were there before."""
    bases: dict[str, str] = field(default_factory=dict)
    new: list[tuple[Job, Task]] = field(default_factory=list)

    def build(self, ledger: Ledger, job: Job, position: int) -> Task:
        """Return the task of a job, not placed yet."""
        env = {**self.env, **job.env, **self.given}
        new = _task_of(job, {**env, **self.variables}, checkout=self.checkout)
        run = self.run
        task_id = derived_id(run.public_id, position)
        task = build_task(ledger, run.namespace, task_id, new, run.triggered_by)
        task.pipeline_id, task.run_key, task.run_id = run.pipeline_id, run.key, run.public_id
        task.position = position
        return task

    def add(self, job: Job, task: Task) -> None:
        """Note the task that a job becomes."""
        self.tasks[job.name] = task
        if job.base:
            self.bases[job.name] = job.base
        self.new.append((job, task))


def place_jobs(ledger: Ledger, jobs: RunJobs, order: Order, turn: Gate | None = None) -> None:
    """Add the new tasks of a run where they belong; those that wait for nothing start.

    With `turn` they wait behind that gate.
    """
    run = jobs.run
    for last, first in order.gates:
        _add_gate(ledger, run, [jobs.tasks[n] for n in last], [jobs.tasks[n] for n in first])
    roots = []
    for job, task in jobs.new:
        needs = [jobs.tasks[name] for name in order.needs[job.name]]
        bases = {name: jobs.bases[name] for name in order.needs[job.name] if name in jobs.bases}
        env = {**jobs.env, **job.env}
        task.rules = rules_of(job, bases, [*jobs.given, *jobs.variables], env).to_json()
        if task.status.ended:
            ledger.add_task(task, [need.key for need in needs])
            continue
        if turn is not None and not needs and task.gate is None:
            task.gate = turn.key
        if place_in_run(ledger, task, needs):
            roots.append((task, needs))
    for task, needs in roots:
        end_all(ledger, start_job(ledger, task, needs))
    settle_run(ledger, run)


def place_in_run(ledger: Ledger, task: Task, needs: Collection[Task]) -> bool:
    """Add a job's task; return whether it has nothing to wait for, and so is to be started."""
    went_wrong = any(need.status.ended and not need.went_well for need in needs)
    if not task.rules and task.gate is None and not went_wrong:
        place_task(ledger, task, list(needs))
        return False
    gate = None if task.gate is None else ledger.gate(task.gate)
    task.unmet = sum(not need.status.ended for need in needs)
    task.unmet += gate is not None and gate.unmet > 0
    place_task(ledger, task, list(needs), waits=True)
    return went_wrong or not task.unmet


def start_job(ledger: Ledger, task: Task, needs: Collection[Task]) -> list[Ending]:
    """Start a new job that waits for nothing, or end it when what it would wait for went wrong."""
    wrong = [need for need in needs if need.status.ended and not need.went_well]
    if wrong and not Rules.from_json(task.rules).after_failure:
        return [(task, TaskStatus.SKIPPED, how_it_ended(wrong[0]))]
    return [] if task.unmet else begin(ledger, task)


def _add_gate(ledger: Ledger, run: Run, last: Collection[Task], first: Collection[Task]) -> None:
    gate = Gate(ledger.source.new_key(), run.namespace, run.key, 0)
    for task in last:
        task.opens = gate.key
        gate.unmet += not task.status.ended
    for task in first:
        task.gate = gate.key
    ledger.add_gate(gate)


def _turn(ledger: Ledger, run: Run, definition: Definition) -> Gate | None:
    """Return a gate behind which a run waits for its turn, None when it may go on at once."""
    group = definition.group
    if group is None:
        return None
    places = ledger.lock_turns(run.namespace, group.key, group.limit)
    others = [other for other in ledger.group_runs(run.namespace, group.key) if other is not run]
    if group.cancels_older:
        for other in others:
            stop_run(ledger, other, f"run {run.number} has taken its place in {group.key!r}")
    going_on = sum(other.turn is None and not other.status.ended for other in others)
    if going_on < places:
        return None
    gate = Gate(ledger.source.new_key(), run.namespace, run.key, 1)
    ledger.add_gate(gate)
    run.turn = gate.key
    ledger.touch_run(run)
    return gate


def reuse_task(ledger: Ledger, run: Run, old: Task, position: int) -> Task:
    """Return a task that stands for one of an earlier run, with how that has ended."""
    run.ended += 1
    ledger.touch_run(run)
    return Task(
        key=ledger.source.new_key(),
        namespace=run.namespace,
        public_id=derived_id(run.public_id, position),
        name=old.name,
        spec=old.spec,
        class_key=old.class_key,
        sort_key=old.sort_key,
        status=old.status,
        created_at=ledger.now,
        timeout=old.timeout,
        created_by=run.triggered_by,
        pipeline_id=run.pipeline_id,
        run_key=run.key,
        run_id=run.public_id,
        position=position,
        allow_failure=old.allow_failure,
        priority=old.priority,
        started_at=old.started_at,
        finished_at=old.finished_at,
        exit_code=old.exit_code,
        retry_of=old.public_id,
        outputs=old.outputs,
    )


def facts_of_start(run: Run, definition: Definition) -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables that whoever started a run has given, and those that tell of it."""
    started = json.loads(run.facts) if run.facts else {}
    variables = {
        "MUSTER_PIPELINE_ID": run.pipeline_id,
        "MUSTER_RUN_NUMBER": str(run.number),
        "MUSTER_BRANCH": run.branch,
        "MUSTER_COMMIT": run.commit_sha,
        "MUSTER_REPO_URL": definition.repo_url,
        **variables_of(started.get("inputs", {})),
    }
    return started.get("env", {}), {name: value for name, value in variables.items() if value}


def _task_of(job: Job, env: Mapping[str, str], *, checkout: bool) -> NewTask:
    spec = TaskSpec(
        commands=job.commands,
        env=dict(env),
        image=job.image,
        secret_refs=job.secret_refs,
        artifacts=job.artifacts,
        steps=tuple(asdict(step) for step in job.steps),
        inputs=job.inputs,
        checkout=checkout and job.checkout and job.approval is None,
        keep_workspace=job.keep_workspace,
    )
    return NewTask(
        name=job.name,
        spec=spec,
        selector=job.selector,
        timeout=job.timeout,
        allow_failure=job.allow_failure,
        retry_count=job.retry,
        priority=PRIORITY_DEFAULT if job.priority is None else job.priority,
        group=job.group,
    )
