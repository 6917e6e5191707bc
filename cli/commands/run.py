"""`muster run`: look at pipelines' runs."""

import click

from cli.connection import Api, with_api
from cli.exit_codes import Exit
from cli.framework import Group
from cli.names import pipeline_id
from cli.output import print_table, show, show_all
from cli.pages import all_pages
from cli.run_tables import RUN_HEADINGS, print_run, run_row
from cli.run_watch import get_run, print_changes, print_run_logs
from cli.states import RUN_WENT_WELL, choices, chosen
from generated.pipeline.v1 import pipeline_pb2

STATUS = pipeline_pb2.PipelineStatus.DESCRIPTOR


@click.group("run", cls=Group)
def command() -> None:
    """Look at pipelines' runs."""


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


@command.command("get", epilog="muster run get 01928f6e-…\nmuster run get 01928f6e-… -o json")
@click.argument("run_id")
@with_api
async def get(api: Api, run_id: str) -> None:
    """Show one run and its jobs."""
    run = await get_run(api, run_id)
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
    """Print each change of a run until it has ended; exit with 1 unless it went well."""
    run = await print_changes(api, run_id)
    return Exit.FINE if run.status in RUN_WENT_WELL else Exit.FAILED
