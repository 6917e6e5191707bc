"""`muster pipeline`: define pipelines and run them."""

import uuid
from collections.abc import Sequence
from pathlib import Path

import click
from grpc import aio

from cli.connection import Api, with_api
from cli.errors import refusal
from cli.exit_codes import Exit
from cli.framework import Group
from cli.message_file import read_message
from cli.names import pipeline_id
from cli.output import print_table, show, show_all
from cli.pages import all_pages
from cli.pairs import VARIABLE
from cli.patience import call_patiently
from cli.run_tables import PIPELINE_HEADINGS, pipeline_row, print_pipeline, run_status
from cli.run_watch import get_run, print_run_logs, wait_for_run
from cli.states import RUN_WENT_WELL, choices, chosen
from cli.words import SUBMIT_LIMIT
from generated.pipeline.v1 import pipeline_pb2

STATUS = pipeline_pb2.PipelineStatus.DESCRIPTOR


@click.group("pipeline", cls=Group)
def command() -> None:
    """Define pipelines and run them."""


@command.command(
    "create", epilog="muster pipeline create -f pipeline.yaml\nmuster pipeline create -f -"
)
@click.option(
    "-f",
    "--file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="YAML or JSON with the fields of pipeline.v1.CreatePipelineRequest.",
)
@with_api
async def create(api: Api, file: Path) -> None:
    """Store a new pipeline and print its id.

    The file holds a name and stages, each with a name and jobs, each with a name and commands.
    """
    source = read_message(file, pipeline_pb2.CreatePipelineRequest)
    try:
        answer = await api.call(api.pipelines.CreatePipeline, source.message)
    except aio.AioRpcError as error:
        raise source.place(refusal(error, api.settings.server)) from error
    show(answer, lambda: click.echo(answer.pipeline_id))


@command.command("list", epilog="muster pipeline list\nmuster pipeline list --status failed")
@click.option("--status", type=click.Choice(choices(STATUS), case_sensitive=False))
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most.")
@with_api
async def list_pipelines(api: Api, status: str | None, limit: int) -> None:
    """List pipelines, newest first."""

    def request(token: str, size: int) -> pipeline_pb2.ListPipelinesRequest:
        return pipeline_pb2.ListPipelinesRequest(
            status=pipeline_pb2.PipelineStatus.ValueType(chosen(STATUS, status)),
            page_size=size,
            page_token=token,
        )

    found = await all_pages(
        api, api.pipelines.ListPipelines, request, lambda page: page.pipelines, limit
    )
    show_all(found, lambda: print_table(PIPELINE_HEADINGS, map(pipeline_row, found)))


@command.command("get", epilog="muster pipeline get nightly")
@click.argument("pipeline", metavar="NAME|ID")
@with_api
async def get(api: Api, pipeline: str) -> None:
    """Show one pipeline with its stages and jobs."""
    request = pipeline_pb2.GetPipelineRequest(pipeline_id=await pipeline_id(api, pipeline))
    answer = await api.call(api.pipelines.GetPipeline, request)
    show(answer.pipeline, lambda: print_pipeline(answer.pipeline))


@command.command(
    "trigger", epilog="muster pipeline trigger nightly --follow --env DEPTH=full --branch main"
)
@click.argument("pipeline", metavar="NAME|ID")
@click.option("--follow", is_flag=True, help="Print all logs; exit with 1 unless it goes well.")
@click.option("-e", "--env", type=VARIABLE, multiple=True, metavar="K=V", help="Variable to set.")
@click.option("--branch", default="", help="Branch to work on instead of the pipeline's.")
@click.option("--commit", default="", metavar="SHA", help="Commit to work on.")
@with_api
async def trigger(
    api: Api,
    pipeline: str,
    follow: bool,
    env: Sequence[tuple[str, str]],
    branch: str,
    commit: str,
) -> int:
    """Start a run and print its id."""
    request = pipeline_pb2.TriggerPipelineRequest(
        pipeline_id=await pipeline_id(api, pipeline),
        branch=branch,
        commit_sha=commit,
        env=dict(env),
        request_id=str(uuid.uuid4()),
    )
    answer = await call_patiently(api, api.pipelines.TriggerPipeline, request, SUBMIT_LIMIT)
    if not follow:
        show(answer, lambda: click.echo(answer.run_id))
        return Exit.FINE
    click.echo(f"run {answer.run_id}", err=True)
    await print_run_logs(api, await get_run(api, answer.run_id), follow=True)
    run = await wait_for_run(api, answer.run_id)
    click.echo(f"run {run.number} ended: {run_status(run.status)}", err=True)
    return Exit.FINE if run.status in RUN_WENT_WELL else Exit.FAILED


@command.command(
    "stop", epilog="muster pipeline stop nightly\nmuster pipeline stop nightly --run 01928f6e-…"
)
@click.argument("pipeline", metavar="NAME|ID")
@click.option("--run", "run_id", default="", metavar="ID", help="Only this run.")
@click.option("--reason", default="", help="Why, for people.")
@with_api
async def stop(api: Api, pipeline: str, run_id: str, reason: str) -> None:
    """Stop one run, or every active run of a pipeline."""
    request = pipeline_pb2.StopPipelineRequest(
        pipeline_id=await pipeline_id(api, pipeline), run_id=run_id, reason=reason
    )
    answer = await api.call(api.pipelines.StopPipeline, request)
    show(answer, lambda: click.echo(answer.message))
