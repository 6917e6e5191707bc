"""`muster pipeline`: define pipelines and run them."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

import click
from grpc import aio

from cli.connection import Api, with_api
from cli.errors import refusal
from cli.exit_codes import Exit
from cli.failure import CommandFailed
from cli.framework import Group
from cli.names import pipeline_id
from cli.output import print_table, show, show_all
from cli.pages import all_pages
from cli.pairs import PAIR, VARIABLE
from cli.patience import call_patiently
from cli.pipeline_source import PipelineSource, first_line, name_in_file, read_pipeline, read_text
from cli.plan_print import print_plan
from cli.run_tables import PIPELINE_HEADINGS, pipeline_row, print_pipeline, run_status
from cli.run_watch import get_run, print_run_logs, wait_for_run
from cli.states import RUN_WENT_WELL, choices, chosen
from cli.times import moment
from cli.words import SUBMIT_LIMIT
from generated.pipeline.v1 import pipeline_pb2

STATUS = pipeline_pb2.PipelineStatus.DESCRIPTOR


@click.group("pipeline", cls=Group)
def command() -> None:
    """Define pipelines and run them."""


FILE = click.option(
    "-f",
    "--file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="A pipeline file, or YAML or JSON with the fields of pipeline.v1.CreatePipelineRequest.",
)


@command.command(
    "create", epilog="muster pipeline create -f muster.yaml\nmuster pipeline create -f -"
)
@FILE
@with_api
async def create(api: Api, file: Path) -> None:
    """Store a new pipeline and print its id.

    The file holds a name and stages, each with a name and jobs, each with a name and commands.
    """
    source = read_pipeline(file)
    answer = await _create(api, source)
    show(answer, lambda: click.echo(answer.pipeline_id))


async def _create(api: Api, source: PipelineSource) -> pipeline_pb2.CreatePipelineResponse:
    try:
        return await api.call(api.pipelines.CreatePipeline, source.request)
    except aio.AioRpcError as error:
        raise source.place(refusal(error, api.settings.server)) from error


@command.command("apply", epilog="muster pipeline apply -f muster.yaml")
@FILE
@with_api
async def apply(api: Api, file: Path) -> None:
    """Store a pipeline, or give the one of that name the file's definition."""
    source = read_pipeline(file)
    name = source.request.name or name_in_file(source.request.file)
    request = pipeline_pb2.ListPipelinesRequest(name=name, page_size=1)
    found = (await api.call(api.pipelines.ListPipelines, request)).pipelines
    if found:
        await _update(api, found[0].pipeline_id, source, 0)
        return
    answer = await _create(api, source)
    show(answer, lambda: click.echo(answer.pipeline_id))


@command.command("update", epilog="muster pipeline update nightly -f muster.yaml")
@click.argument("pipeline", metavar="NAME|ID")
@FILE
@click.option(
    "--expect", type=click.IntRange(1), metavar="VERSION", help="Refuse if it has another version."
)
@with_api
async def update(api: Api, pipeline: str, file: Path, expect: int | None) -> None:
    """Give a pipeline another definition; runs go on by the one they were started with."""
    await _update(api, await pipeline_id(api, pipeline), read_pipeline(file), expect or 0)


async def _update(api: Api, pipeline: str, source: PipelineSource, expect: int) -> None:
    request = pipeline_pb2.UpdatePipelineRequest(
        pipeline_id=pipeline, pipeline=source.request, expected_version=expect
    )
    try:
        answer = await api.call(api.pipelines.UpdatePipeline, request)
    except aio.AioRpcError as error:
        raise source.place(refusal(error, api.settings.server)) from error
    show(answer, lambda: click.echo(answer.message))


@command.command("delete", epilog="muster pipeline delete nightly --stop-runs")
@click.argument("pipeline", metavar="NAME|ID")
@click.option("--stop-runs", is_flag=True, help="Stop active runs; else they are in the way.")
@with_api
async def delete(api: Api, pipeline: str, stop_runs: bool) -> None:
    """Delete a pipeline; its runs can be looked at until they are old."""
    request = pipeline_pb2.DeletePipelineRequest(
        pipeline_id=await pipeline_id(api, pipeline), stop_runs=stop_runs
    )
    answer = await api.call(api.pipelines.DeletePipeline, request)
    show(answer, lambda: click.echo(answer.message))


@command.command("versions", epilog="muster pipeline versions nightly")
@click.argument("pipeline", metavar="NAME|ID")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@with_api
async def versions(api: Api, pipeline: str, limit: int) -> None:
    """List the definitions a pipeline has had, newest first."""
    request = pipeline_pb2.ListPipelineVersionsRequest(
        pipeline_id=await pipeline_id(api, pipeline), page_size=limit
    )
    found = (await api.call(api.pipelines.ListPipelineVersions, request)).versions
    rows = (
        (str(each.number), moment(each.created_at / 1000), each.created_by, first_line(each.file))
        for each in found
    )
    show_all(found, lambda: print_table(("VERSION", "SINCE", "BY", "FILE"), rows))


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


@command.command(
    "get", epilog="muster pipeline get nightly\nmuster pipeline get nightly --version 2 --as-file"
)
@click.argument("pipeline", metavar="NAME|ID")
@click.option("--version", type=click.IntRange(1), help="Show this definition, not the newest.")
@click.option("--as-file", is_flag=True, help="Print the file it was read from.")
@with_api
async def get(api: Api, pipeline: str, version: int | None, as_file: bool) -> None:
    """Show one pipeline with its stages and jobs."""
    request = pipeline_pb2.GetPipelineRequest(
        pipeline_id=await pipeline_id(api, pipeline), version=version or 0
    )
    answer = await api.call(api.pipelines.GetPipeline, request)
    if not as_file:
        show(answer.pipeline, lambda: print_pipeline(answer.pipeline))
    elif answer.pipeline.file:
        click.echo(answer.pipeline.file, nl=not answer.pipeline.file.endswith("\n"))
    else:
        raise CommandFailed(f"version {answer.pipeline.version} was not read from a file")


@command.command(
    "trigger", epilog="muster pipeline trigger nightly --follow --env DEPTH=full --branch main"
)
@click.argument("pipeline", metavar="NAME|ID")
@click.option("--follow", is_flag=True, help="Print all logs; exit with 1 unless it goes well.")
@click.option("-e", "--env", type=VARIABLE, multiple=True, metavar="K=V", help="Variable to set.")
@click.option("--branch", default="", help="Branch to work on instead of the pipeline's.")
@click.option("--commit", default="", metavar="SHA", help="Commit to work on.")
@click.option("-i", "--input", "inputs", type=PAIR, multiple=True, metavar="K=V", help="An input.")
@with_api
async def trigger(
    api: Api,
    pipeline: str,
    follow: bool,
    env: Sequence[tuple[str, str]],
    branch: str,
    commit: str,
    inputs: Sequence[tuple[str, str]],
) -> int:
    """Start a run and print its id."""
    request = pipeline_pb2.TriggerPipelineRequest(
        pipeline_id=await pipeline_id(api, pipeline),
        branch=branch,
        commit_sha=commit,
        env=dict(env),
        inputs=dict(inputs),
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


@command.command("lint", epilog="muster pipeline lint muster.yaml")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path)
)
def lint(files: Sequence[Path]) -> None:
    """Check pipeline files without a server; tell each problem's line and column."""
    from server.definition.expanding import read_definition
    from server.definition.problem import Refused

    problems = []
    for path in files:
        name, text = read_text(path)
        try:
            file, definition = read_definition(text)
        except Refused as refused:
            problems += refused.describe(name)
        else:
            jobs = sum(1 for _ in definition.jobs())
            noun = "job" if jobs == 1 else "jobs"
            click.echo(f"{name}: {file.name} is fine ({jobs} {noun})")
    if problems:
        raise CommandFailed("\n".join(problems))


@command.command("plan", epilog="muster pipeline plan muster.yaml --event push.json")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--event",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What starts the run, as JSON: kind, branch, commit, paths, …; else a person does.",
)
@click.option("--branch", default="", help="Branch to work on.")
@click.option("-i", "--input", "inputs", type=PAIR, multiple=True, metavar="K=V", help="An input.")
def plan(file: Path, event: Path | None, branch: str, inputs: Sequence[tuple[str, str]]) -> int:
    """Tell what a run would do, and why the rest would not run; no server is needed.

    Exits with 1 when the event would start nothing.
    """
    return print_plan(file, event, branch, dict(inputs))


@command.command("schema", epilog="muster pipeline schema > pipeline.schema.json")
def schema() -> None:
    """Print the JSON Schema of pipeline files, for editors."""
    from server.definition.schema import pipeline_schema

    click.echo(json.dumps(pipeline_schema(), indent=2, ensure_ascii=False))
