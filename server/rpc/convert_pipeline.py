"""Pipelines and runs: between messages and records."""

import json
from collections.abc import Iterable

from generated.pipeline.v1 import pipeline_pb2
from generated.task.v1 import task_pb2
from server.domain.defining import Description
from server.domain.errors import Invalid, Violation
from server.domain.pipeline import (
    Approval,
    Definition,
    Input,
    Job,
    Pipeline,
    PipelineVersion,
    Stage,
    Step,
)
from server.domain.run import Run
from server.domain.schedule import Plan
from server.domain.task import ArtifactUse, Judged, Task, TaskStatus
from server.rpc.convert import (
    artifact,
    artifact_message,
    enum,
    membership,
    membership_message,
    seconds,
    selector_message,
    selector_of,
    within,
)
from server.rpc.pipeline_file import described_by, jobs_of_file, stages_checked

MANUAL = pipeline_pb2.TRIGGER_TYPE_MANUAL


def description_of(request: pipeline_pb2.CreatePipelineRequest) -> Description:
    """Return the pipeline a request holds; it is not checked unless it comes as a file.

    Raises:
        Invalid: it holds what cannot be converted, or a malformed file.
    """
    if request.file:
        _only_the_file(request)
        return described_by(request.file)
    if request.trigger_type not in pipeline_pb2.TriggerType.values():
        text = f"there is no trigger type {request.trigger_type}"
        raise Invalid([Violation("trigger_type", text)])
    by_clock = request.trigger_type == pipeline_pb2.TRIGGER_TYPE_SCHEDULE
    return Description(
        request.name,
        definition_of(request),
        description=request.description,
        trigger_type=request.trigger_type or MANUAL,
        cron=request.cron,
        schedules=(Plan(request.cron),) if request.cron and by_clock else (),
    )


def _only_the_file(request: pipeline_pb2.CreatePipelineRequest) -> None:
    given = [field.name for field, _ in request.ListFields()]
    wrong = [name for name in given if name not in ("file", "created_by")]
    if wrong:
        raise Invalid([Violation(name, "must be empty when `file` is given") for name in wrong])


def definition_of(request: pipeline_pb2.CreatePipelineRequest) -> Definition:
    """Return the definition a request holds, not checked.

    Raises:
        Invalid: it holds what cannot be converted.
    """
    return Definition(
        stages=_stages(request.stages),
        env=dict(request.env),
        repo_url=request.repo_url,
        branch=request.branch or "main",
    )


def added_definition(request: pipeline_pb2.AddJobsRequest) -> Definition:
    """Return the stages that a request adds to a run.

    Raises:
        Invalid: it holds what cannot be converted, or a malformed file.
    """
    if not request.file:
        return Definition(_stages(request.stages), dict(request.env))
    if request.stages or request.env:
        raise Invalid([Violation("stages", "must be empty when `file` is given")])
    return jobs_of_file(request.file)


def _stages(messages: Iterable[pipeline_pb2.Stage]) -> tuple[Stage, ...]:
    stages = []
    for place, message in enumerate(messages):
        jobs = []
        for number, job in enumerate(message.jobs):
            with within(f"stages[{place}].jobs[{number}]"):
                jobs.append(_job(job))
        stages.append(Stage(message.name, tuple(jobs), message.parallel))
    return stages_checked(tuple(stages))


def _job(message: pipeline_pb2.Job) -> Job:
    return Job(
        name=message.name,
        commands=tuple(message.commands),
        image=message.image,
        env=dict(message.env),
        depends_on=tuple(message.depends_on),
        timeout=message.timeout,
        retry=message.retry,
        selector=selector_of(message.label_selector),
        allow_failure=message.allow_failure,
        priority=message.priority if message.HasField("priority") else None,
        secret_refs=dict(message.secret_refs),
        condition=message.condition,
        matrix=dict(message.matrix),
        base=message.base,
        group=membership(message.concurrency) if message.HasField("concurrency") else None,
        outputs=tuple(message.outputs),
        approval=_approval(message) if message.HasField("approval") else None,
        artifacts=tuple(map(artifact, message.artifacts)),
        steps=tuple(_step(step, f"steps[{place}]") for place, step in enumerate(message.steps)),
        inputs=tuple(ArtifactUse(use.job, use.name, use.path) for use in message.inputs),
        checkout=not message.no_checkout,
        keep_workspace=message.keep_workspace,
    )


def _approval(message: pipeline_pb2.Job) -> Approval:
    asked = message.approval
    return Approval(tuple(asked.who), asked.timeout, asked.message)


def _step(message: pipeline_pb2.Step, path: str) -> Step:
    try:
        settings = json.loads(message.settings or "{}")
    except ValueError as error:
        text = f"must be a JSON object: {error}"
        raise Invalid([Violation(f"{path}.settings", text)]) from error
    if not isinstance(settings, dict):
        raise Invalid([Violation(f"{path}.settings", "must be a JSON object")])
    return Step(message.name, tuple(message.commands), message.uses, settings)


def _job_message(job: Job) -> pipeline_pb2.Job:
    return pipeline_pb2.Job(
        name=job.name,
        image=job.image,
        commands=job.commands,
        env=job.env,
        depends_on=job.depends_on,
        timeout=job.timeout,
        retry=job.retry,
        label_selector=selector_message(job.selector),
        allow_failure=job.allow_failure,
        priority=job.priority,
        secret_refs=job.secret_refs,
        condition=job.condition,
        matrix=job.matrix,
        base=job.base,
        concurrency=membership_message(job.group),
        outputs=job.outputs,
        approval=_approval_message(job.approval),
        artifacts=map(artifact_message, job.artifacts),
        steps=map(_step_message, job.steps),
        inputs=[
            task_pb2.ArtifactUse(job=use.job, name=use.name, path=use.path) for use in job.inputs
        ],
        no_checkout=not job.checkout,
        keep_workspace=job.keep_workspace,
    )


def _approval_message(approval: Approval | None) -> pipeline_pb2.Approval | None:
    if approval is None:
        return None
    return pipeline_pb2.Approval(
        who=approval.who, timeout=approval.timeout, message=approval.message
    )


def _step_message(step: Step) -> pipeline_pb2.Step:
    settings = json.dumps(step.settings) if step.settings else ""
    return pipeline_pb2.Step(
        name=step.name, commands=step.commands, uses=step.uses, settings=settings
    )


def _input_message(each: Input) -> pipeline_pb2.Input:
    return pipeline_pb2.Input(
        name=each.name,
        type=each.type,
        description=each.description,
        default="" if each.default is None else json.dumps(each.default),
        required=each.required,
        options=each.options,
    )


def pipeline_detail(pipeline: Pipeline, counts: tuple[int, int]) -> pipeline_pb2.PipelineDetail:
    """Return a pipeline as it stands; `counts` are its runs that ended well, and FAILED."""
    definition = Definition.from_json(pipeline.definition)
    return pipeline_pb2.PipelineDetail(
        pipeline_id=pipeline.public_id,
        name=pipeline.name,
        description=pipeline.description,
        repo_url=definition.repo_url,
        branch=definition.branch,
        status=enum(pipeline.last_status),
        stages=[
            pipeline_pb2.Stage(
                name=stage.name, jobs=map(_job_message, stage.jobs), parallel=stage.parallel
            )
            for stage in definition.stages
        ],
        env=definition.env,
        trigger_type=enum(pipeline.trigger_type),
        cron=pipeline.cron,
        created_at=seconds(pipeline.created_at),
        updated_at=seconds(pipeline.updated_at),
        created_by=pipeline.created_by,
        total_runs=pipeline.runs,
        success_runs=counts[0],
        failed_runs=counts[1],
        version=pipeline.version,
        inputs=map(_input_message, definition.inputs),
        triggers=json.dumps(definition.triggers) if definition.triggers else "",
        concurrency=membership_message(definition.group),
    )


def version_message(version: PipelineVersion) -> pipeline_pb2.PipelineVersion:
    """Return a definition that a pipeline has had."""
    return pipeline_pb2.PipelineVersion(
        number=version.number,
        created_at=version.created_at,
        created_by=version.created_by,
        file=version.source,
    )


def run_detail(run: Run, pipeline_name: str) -> pipeline_pb2.RunDetail:
    """Return a run as lists show it."""
    return pipeline_pb2.RunDetail(
        run_id=run.public_id,
        pipeline_id=run.pipeline_id,
        pipeline_name=pipeline_name,
        number=run.number,
        status=enum(run.status),
        branch=run.branch,
        commit_sha=run.commit_sha,
        triggered_by=run.triggered_by,
        created_at=run.created_at,
        started_at=run.started_at or 0,
        finished_at=run.finished_at or 0,
        total_jobs=run.total,
        ended_jobs=run.ended,
        failed_jobs=run.failed,
        version=run.version,
        retry_of=run.retry_of or "",
        running_jobs=run.running,
        left_out_jobs=run.left_out,
        skipped_jobs=run.skipped,
        cancelled_jobs=run.cancelled,
        excused_jobs=run.excused,
        waits_for_turn=run.turn is not None,
    )


def whole_run_detail(run: Run, pipeline_name: str) -> pipeline_pb2.RunDetail:
    """Return a run with how it was started; its jobs are to be added."""
    detail = run_detail(run, pipeline_name)
    started = json.loads(run.facts) if run.facts else {}
    for name in ("event", "inputs"):
        if name in started:
            setattr(detail, name, json.dumps(started[name], ensure_ascii=False))
    detail.stages.extend(run.stages)
    return detail


def run_job(run: Run, task: Task, depends_on: list[str]) -> pipeline_pb2.RunJob:
    """Return one job of a run."""
    return pipeline_pb2.RunJob(
        task_id=task.public_id,
        name=task.name,
        stage=task.stage,
        stage_name=run.stages[task.stage - 1],
        status=enum(task.status),
        agent_id=task.last_agent_id or "",
        started_at=task.started_at or 0,
        finished_at=task.finished_at or 0,
        exit_code=task.exit_code,
        error_message=task.error,
        depends_on=depends_on,
        attempt=task.attempt,
        left_out=task.judged is Judged.LEFT_OUT,
        awaits_approval=task.judged is Judged.ASKED and task.status is TaskStatus.PENDING,
        retry_of=task.retry_of or "",
        behind_stage=task.gate is not None and run.turn != task.gate and task.stage > 1,
        allow_failure=task.allow_failure,
    )
