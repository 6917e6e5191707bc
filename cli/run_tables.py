"""Pipelines and runs as people read them."""

import click

from cli.output import print_fields, print_table
from cli.states import exit_text, short_name, task_status
from cli.times import age, between, deadline, moment, until
from generated.pipeline.v1 import pipeline_pb2

PIPELINE_HEADINGS = ("PIPELINE", "NAME", "LAST RUN", "WHEN", "NEXT", "RUNS", "SUCCESS", "FAILED")
RUN_HEADINGS = ("RUN", "PIPELINE", "NUMBER", "STATUS", "JOBS", "BY", "AGE", "DURATION")
JOB_HEADINGS = ("TASK", "STAGE", "JOB", "STATUS", "AGENT", "EXIT", "DURATION", "ERROR")


def run_status(status: int) -> str:
    """Return a run's status as people read it."""
    return short_name(pipeline_pb2.PipelineStatus.DESCRIPTOR, status)


def pipeline_row(pipeline: pipeline_pb2.PipelineDetail) -> tuple[str, ...]:
    """Return a pipeline as a row under PIPELINE_HEADINGS."""
    return (
        pipeline.pipeline_id,
        pipeline.name,
        run_status(pipeline.status) if pipeline.total_runs else "",
        _ago(pipeline.last_run.created_at),
        until(pipeline.next_fire_at / 1000) if pipeline.next_fire_at else "",
        str(pipeline.total_runs),
        str(pipeline.success_runs),
        str(pipeline.failed_runs),
    )


def _ago(milliseconds: int) -> str:
    return f"{age(milliseconds / 1000)} ago" if milliseconds else ""


def print_pipeline(pipeline: pipeline_pb2.PipelineDetail) -> None:
    """Print one pipeline with its stages and jobs."""
    runs = f"{pipeline.total_runs} ({pipeline.success_runs} good, {pipeline.failed_runs} failed)"
    print_fields(
        (
            ("Pipeline", pipeline.pipeline_id),
            ("Name", pipeline.name),
            ("Description", pipeline.description),
            ("Last run", run_status(pipeline.status) if pipeline.total_runs else "none yet"),
            ("Runs", runs),
            ("Repository", pipeline.repo_url),
            ("Branch", pipeline.branch),
            ("Cron", pipeline.cron),
            ("Next start", deadline(pipeline.next_fire_at / 1000)),
            ("Version", str(pipeline.version)),
            ("Inputs", "\n".join(map(_input_text, pipeline.inputs))),
            ("Environment", "\n".join(f"{k}={v}" for k, v in sorted(pipeline.env.items()))),
            ("Created", moment(pipeline.created_at)),
            ("Created by", pipeline.created_by),
        )
    )
    for stage in pipeline.stages:
        order = "side by side" if stage.parallel else "one after another"
        click.echo(f"\nStage {stage.name} ({order})")
        for job in stage.jobs:
            after = f"  (after {', '.join(job.depends_on)})" if job.depends_on else ""
            click.echo(f"  {job.name}{after}")


def _input_text(each: pipeline_pb2.Input) -> str:
    kind = " | ".join(each.options) if each.options else each.type
    default = f" (default: {each.default})" if each.default else ""
    needed = ", must be given" if each.required else ""
    return f"{each.name}: {kind}{needed}{default}"


def run_row(run: pipeline_pb2.RunDetail) -> tuple[str, ...]:
    """Return a run as a row under RUN_HEADINGS."""
    return (
        run.run_id,
        run.pipeline_name,
        str(run.number),
        run_status(run.status),
        f"{run.ended_jobs}/{run.total_jobs}",
        run.triggered_by,
        age(run.created_at / 1000),
        between(run.started_at, run.finished_at),
    )


def print_run(run: pipeline_pb2.RunDetail) -> None:
    """Print one run with its jobs."""
    print_fields(
        (
            ("Run", run.run_id),
            ("Pipeline", f"{run.pipeline_name} ({run.pipeline_id})"),
            ("Number", str(run.number)),
            ("Status", run_status(run.status)),
            ("Branch", run.branch),
            ("Commit", run.commit_sha),
            ("Triggered by", run.triggered_by),
            ("Version", str(run.version)),
            ("Repeats", run.retry_of),
            ("Waits", "for its turn in its group" if run.waits_for_turn else ""),
            ("Created", moment(run.created_at / 1000)),
            ("Duration", between(run.started_at, run.finished_at)),
        )
    )
    click.echo()
    print_table(JOB_HEADINGS, map(job_row, run.jobs))


def job_status(job: pipeline_pb2.RunJob) -> str:
    """Return where a job stands as people read it."""
    if job.awaits_approval:
        return "APPROVAL?"
    return "LEFT OUT" if job.left_out else task_status(job.status)


def job_row(job: pipeline_pb2.RunJob) -> tuple[str, ...]:
    """Return a job as a row under JOB_HEADINGS."""
    return (
        job.task_id,
        job.stage_name,
        job.name,
        job_status(job),
        job.agent_id,
        exit_text(job.status, job.attempt, job.finished_at, job.exit_code),
        between(job.started_at, job.finished_at),
        job.error_message,
    )
