"""`muster run`: look at pipelines' runs, and say how they go on."""

import os
import sys
import uuid
from pathlib import Path

import click
from grpc import aio

from cli.connection import Api, with_api
from cli.errors import refusal
from cli.exit_codes import Exit
from cli.framework import Group
from cli.names import pipeline_id
from cli.output import print_table, show, show_all
from cli.pages import all_pages
from cli.patience import call_patiently
from cli.pipeline_source import read_pipeline
from cli.run_graph import mermaid
from cli.run_picture import draw_run
from cli.run_tables import RUN_HEADINGS, print_run, run_row
from cli.run_watch import get_run, print_changes, print_run_logs
from cli.settings import current_settings
from cli.states import RUN_WENT_WELL, choices, chosen
from cli.words import SUBMIT_LIMIT
from generated.pipeline.v1 import pipeline_pb2

STATUS = pipeline_pb2.PipelineStatus.DESCRIPTOR


@click.group("run", cls=Group)
def command() -> None:
    """Look at pipelines' runs, and say how they go on."""


@command.command("list", epilog="muster run list\nmuster run list --pipeline nightly -o json")
@click.option("--pipeline", default="", metavar="NAME|ID", help="Only runs of this pipeline.")
@click.option("--status", type=click.Choice(choices(STATUS), case_sensitive=False))
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most.")
@with_api
async def list_runs(api: Api, pipeline: str, status: str | None, limit: int) -> None:
    """List runs, newest first."""
    of_pipeline = await pipeline_id(api, pipeline) if pipeline else ""

    def request(token: str, size: int) -> pipeline_pb2.ListRunsRequest:
        return pipeline_pb2.ListRunsRequest(
            pipeline_id=of_pipeline,
            status=pipeline_pb2.PipelineStatus.ValueType(chosen(STATUS, status)),
            page_size=size,
            page_token=token,
        )

    runs = await all_pages(api, api.pipelines.ListRuns, request, lambda page: page.runs, limit)
    show_all(runs, lambda: print_table(RUN_HEADINGS, map(run_row, runs)))


@command.command("get", epilog="muster run get 01928f6e-…\nmuster run get 01928f6e-… --graph")
@click.argument("run_id")
@click.option("--graph", is_flag=True, help="Print a picture of its jobs, in Mermaid's language.")
@with_api
async def get(api: Api, run_id: str, graph: bool) -> None:
    """Show one run and its jobs."""
    run = await get_run(api, run_id)
    if graph:
        click.echo(mermaid(run))
    else:
        show(run, lambda: print_run(run))


@command.command("logs", epilog="muster run logs -f 01928f6e-…")
@click.argument("run_id")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@with_api
async def logs(api: Api, run_id: str, follow: bool) -> None:
    """Print the logs of all tasks of a run, each line behind its job's name."""
    await print_run_logs(api, await get_run(api, run_id), follow=follow)


@command.command("watch", epilog="muster run watch 01928f6e-…")
@click.argument("run_id")
@with_api
async def watch(api: Api, run_id: str) -> int:
    """Draw a run until it has ended; exit with 1 unless it went well.

    Where the output is no terminal, or with --output, each change is a line.
    """
    if sys.stdout.isatty() and current_settings().output == "table":
        run = await draw_run(api, run_id)
    else:
        run = await print_changes(api, run_id)
    return Exit.FINE if run.status in RUN_WENT_WELL else Exit.FAILED


@command.command("retry", epilog="muster run retry 01928f6e-… --failed")
@click.argument("run_id")
@click.option("--failed", is_flag=True, help="Only jobs that did not succeed.")
@click.option("--from", "from_job", default="", metavar="JOB", help="This job and what follows it.")
@with_api
async def retry(api: Api, run_id: str, failed: bool, from_job: str) -> None:
    """Start a run that repeats an ended one, and print its id."""
    if failed and from_job:
        raise click.UsageError("say --failed or --from, not both")
    scope = pipeline_pb2.RETRY_SCOPE_ALL
    if failed:
        scope = pipeline_pb2.RETRY_SCOPE_FAILED
    elif from_job:
        scope = pipeline_pb2.RETRY_SCOPE_FROM_JOB
    request = pipeline_pb2.RetryRunRequest(run_id=run_id, scope=scope, from_job=from_job)
    answer = await api.call(api.pipelines.RetryRun, request)
    show(answer, lambda: click.echo(answer.run_id))


COMMENT = click.option("--comment", default="", help="A word to it, for people.")


@command.command("approve", epilog="muster run approve 01928f6e-… 'ship?' --comment 'looks good'")
@click.argument("run_id")
@click.argument("job", default="")
@COMMENT
@with_api
async def approve(api: Api, run_id: str, job: str, comment: str) -> None:
    """Let a run go on behind a job that asks for approval."""
    request = pipeline_pb2.ApproveRunRequest(run_id=run_id, job=job, comment=comment)
    answer = await api.call(api.pipelines.ApproveRun, request)
    show(answer, lambda: click.echo(answer.message))


@command.command("reject", epilog="muster run reject 01928f6e-… 'ship?' --comment 'not today'")
@click.argument("run_id")
@click.argument("job", default="")
@COMMENT
@with_api
async def reject(api: Api, run_id: str, job: str, comment: str) -> None:
    """End a job that asks for approval, so that what waits for it does not run."""
    request = pipeline_pb2.RejectRunRequest(run_id=run_id, job=job, comment=comment)
    answer = await api.call(api.pipelines.RejectRun, request)
    show(answer, lambda: click.echo(answer.message))


@command.command("add", epilog="muster run add -f more.yaml")
@click.option(
    "-f",
    "--file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="A pipeline file; its stages come after those of the run.",
)
@click.option("--run", "run_id", default="", metavar="ID", help="Default: the run of this task.")
@with_api
async def add(api: Api, file: Path, run_id: str) -> None:
    """Add the jobs of a file to a run, and print the ids of their tasks.

    Inside a task it adds to the task's own run, and the jobs wait until the task has succeeded.
    """
    source = read_pipeline(file)
    own_run = os.environ.get("MUSTER_RUN_ID", "")
    run_id = run_id or own_run
    if not run_id:
        raise click.UsageError("say --run ID: this is no task of a run")
    request = pipeline_pb2.AddJobsRequest(
        run_id=run_id,
        stages=source.request.stages,
        env=source.request.env,
        file=source.request.file,
        request_id=str(uuid.uuid4()),
        task_id=os.environ.get("MUSTER_TASK_ID", "") if run_id == own_run else "",
    )
    try:
        answer = await call_patiently(api, api.pipelines.AddJobs, request, SUBMIT_LIMIT)
    except aio.AioRpcError as error:
        raise source.place(refusal(error, api.settings.server)) from error
    show(answer, lambda: click.echo("\n".join(answer.job_ids)))
