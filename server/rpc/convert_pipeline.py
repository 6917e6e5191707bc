"""Pipelines and runs: between messages and records."""

from generated.pipeline.v1 import pipeline_pb2
from server.domain.pipeline import Definition, Job, Pipeline, Stage
from server.domain.run import Run
from server.domain.task import Task
from server.rpc.convert import enum, seconds, selector_message, selector_of


def definition_of(request: pipeline_pb2.CreatePipelineRequest) -> Definition:
    """Return the definition a request holds, not checked."""
    return Definition(
        stages=tuple(
            Stage(stage.name, tuple(map(_job, stage.jobs)), stage.parallel)
            for stage in request.stages
        ),
        env=dict(request.env),
        repo_url=request.repo_url,
        branch=request.branch or "main",
    )


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
    )


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
    )


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
    )
