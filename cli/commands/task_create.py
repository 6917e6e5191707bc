"""`muster task create`: submit a task and come back at once."""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import click

from cli.connection import Api, with_api
from cli.framework import Command
from cli.keeping import artifacts, keeping_options
from cli.message_file import read_message
from cli.output import show
from cli.pairs import LABEL, VARIABLE
from cli.patience import call_patiently
from cli.requirements import label_selector, selector_options
from cli.scheduling import concurrency_group, scheduling_options
from cli.since import DURATION
from cli.words import SUBMIT_LIMIT, command_line
from generated.task.v1 import task_pb2
from server.definition.selector import Requirement

EXAMPLES = """
muster task create --label role=build -- make -j4
muster task create --name nightly -c 'cd repo' -c 'make test' --retry 2
muster task create -f task.yaml
"""


@click.command(
    "create", cls=Command, epilog=EXAMPLES, context_settings={"allow_interspersed_args": False}
)
@selector_options
@click.option(
    "-f",
    "--file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="YAML or JSON with the fields of task.v1.CreateTaskRequest; options go over it.",
)
@click.option("-c", "--command", "lines", multiple=True, help="A line of the script, in order.")
@click.option("-e", "--env", type=VARIABLE, multiple=True, metavar="K=V", help="Variable to set.")
@click.option("--name", default="", help="What to call the task.")
@click.option(
    "--timeout", "time_limit", type=click.IntRange(1), metavar="SECONDS", help="Time it may take."
)
@click.option("--retry", type=click.IntRange(0, 100), default=0, help="Further tries if it fails.")
@scheduling_options
@keeping_options
@click.option("--depends-on", multiple=True, metavar="ID", help="A task that must succeed first.")
@click.option("--allow-failure", is_flag=True, help="Let dependents go on when it fails.")
@click.option("--pipeline", default="", metavar="ID", help="Pipeline to file it under.")
@click.option("--workspace", default="", metavar="PATH", help="Where in the workspace to start.")
@click.option("--image", default="", help="Container image to run in.")
@click.option(
    "--task-label", type=LABEL, multiple=True, metavar="K=V", help="A label of the task itself."
)
@click.option(
    "--sign-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Sign the task with the key in this file, for agents that run nothing else.",
)
@click.option(
    "--sign-for", type=DURATION, default="1h", show_default=True, help="How long that counts."
)
@click.option("--request-id", default="", help="Makes repeating this very call safe.")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@with_api
async def command(
    api: Api,
    label: Sequence[tuple[str, str]],
    selector: Sequence[list[Requirement]],
    file: Path | None,
    lines: Sequence[str],
    env: Sequence[tuple[str, str]],
    name: str,
    time_limit: int | None,
    retry: int,
    priority: int | None,
    start_within: int | None,
    concurrency: task_pb2.ConcurrencyGroup | None,
    cancel_running: bool,
    kept: Sequence[str],
    keep_workspace: bool,
    depends_on: Sequence[str],
    allow_failure: bool,
    pipeline: str,
    workspace: str,
    image: str,
    task_label: Sequence[tuple[str, str]],
    sign_key: Path | None,
    sign_for: timedelta,
    request_id: str,
    words: Sequence[str],
) -> None:
    """Submit a task and print its id."""
    source = read_message(file, task_pb2.CreateTaskRequest) if file else None
    options = task_pb2.CreateTaskRequest(
        name=name,
        env=dict(env),
        timeout=time_limit or 0,
        retry_count=retry,
        depends_on=depends_on,
        allow_failure=allow_failure,
        pipeline_id=pipeline,
        workspace=workspace,
        image=image,
        label_selector=label_selector(label, selector),
        priority=priority,
        schedule_to_start=start_within or 0,
        concurrency=concurrency_group(concurrency, cancel_running=cancel_running),
        artifacts=artifacts(kept),
        keep_workspace=keep_workspace,
        labels=dict(task_label),
    )
    request = source.message if source else task_pb2.CreateTaskRequest()
    request.MergeFrom(options)
    if script := [*lines, *([command_line(words)] if words else [])]:
        request.commands[:] = script
    if not request.commands and not request.executor:
        raise click.UsageError("say what to run, after -- or with --command or --file")
    if sign_key is not None:
        from cli.task_signing import sign  # late: only signing needs it

        sign(request, sign_key, sign_for)
    request.request_id = request_id or request.request_id or str(uuid.uuid4())
    answer = await call_patiently(api, api.tasks.CreateTask, request, SUBMIT_LIMIT)
    show(answer, lambda: click.echo(answer.task_id))
