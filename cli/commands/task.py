"""`muster task`: look at tasks and end them."""

from collections.abc import Sequence

import click
from google.protobuf.field_mask_pb2 import FieldMask

from cli.commands import task_artifacts, task_create, task_explain
from cli.connection import Api, with_api
from cli.framework import Group
from cli.log_follow import LogFollower
from cli.log_print import print_lines, remark
from cli.output import print_table, show, show_all
from cli.pages import all_pages
from cli.pairs import VARIABLE
from cli.since import SINCE
from cli.states import choices, chosen
from cli.task_tables import HEADINGS, print_task, task_row
from generated.task.v1 import task_pb2

STATUS = task_pb2.TaskStatus.DESCRIPTOR


@click.group("task", cls=Group)
def command() -> None:
    """Submit tasks, look at them, end them."""


command.add_command(task_artifacts.command)
command.add_command(task_create.command)
command.add_command(task_explain.command)


@command.command(
    "list",
    epilog="""
    muster task list --status running
    muster task list --pipeline 01928f6e-… --limit 100 -o json
    """,
)
@click.option("--status", type=click.Choice(choices(STATUS), case_sensitive=False))
@click.option("--pipeline", default="", metavar="ID", help="Only tasks of this pipeline.")
@click.option("--run", "run_id", default="", metavar="ID", help="Only tasks of this run.")
@click.option("--agent", default="", metavar="ID", help="Only tasks of this agent.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most.")
@with_api
async def list_tasks(
    api: Api, status: str | None, pipeline: str, run_id: str, agent: str, limit: int
) -> None:
    """List tasks, newest first."""

    def request(token: str, size: int) -> task_pb2.ListTasksRequest:
        return task_pb2.ListTasksRequest(
            status=task_pb2.TaskStatus.ValueType(chosen(STATUS, status)),
            pipeline_id=pipeline,
            run_id=run_id,
            agent_id=agent,
            page_size=size,
            page_token=token,
        )

    tasks = await all_pages(api, api.tasks.ListTasks, request, lambda page: page.tasks, limit)
    show_all(tasks, lambda: print_table(HEADINGS, map(task_row, tasks)))


@command.command("get", epilog="muster task get 01928f6e-…\nmuster task get 01928f6e-… -o yaml")
@click.argument("task_id")
@with_api
async def get(api: Api, task_id: str) -> None:
    """Show one task, its attempts, and why it waits."""
    answer = await api.call(api.tasks.GetTask, task_pb2.GetTaskRequest(task_id=task_id))
    show(answer.task, lambda: print_task(answer.task))


@command.command(
    "logs",
    epilog="""
    muster task logs 01928f6e-…
    muster task logs -f --tail 20 01928f6e-…
    muster task logs --since 10m --timestamps 01928f6e-…
    """,
)
@click.argument("task_id")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option("--attempt", type=click.IntRange(1), help="Which attempt's log (default: latest).")
@click.option("--from-line", type=click.IntRange(1), help="First line to show.")
@click.option("--tail", type=click.IntRange(1), metavar="N", help="Begin with the last N lines.")
@click.option(
    "--since", type=SINCE, metavar="T", help="Begin with lines read since: 10m ago, or a moment."
)
@click.option("--timestamps", is_flag=True, help="Show when each line was read.")
@with_api
async def logs(
    api: Api,
    task_id: str,
    follow: bool,
    attempt: int | None,
    from_line: int | None,
    tail: int | None,
    since: int | None,
    timestamps: bool,
) -> None:
    """Print a task's log: its output to standard output, its errors to standard error."""
    if from_line and (tail or since):
        raise click.UsageError("--from-line does not go with --tail or --since")
    follower = LogFollower(
        api,
        task_id,
        follow=follow,
        attempt=attempt or 0,
        from_line=from_line or 0,
        tail=tail or 0,
        since=since or 0,
    )
    async for _, lines in follower.batches():
        print_lines(lines, timestamps=timestamps)
    if follower.log_state == task_pb2.LOG_STATE_INCOMPLETE:
        remark("the log is not whole: lines were lost with the agent")
    elif not follower.complete and await _is_late(api, task_id, follower.place.attempt):
        remark("the last lines are still on their way; -f waits for them")


async def _is_late(api: Api, task_id: str, number: int) -> bool:
    """Whether an attempt (0: the latest) has ended and its log may still grow."""
    answer = await api.call(api.tasks.GetTask, task_pb2.GetTaskRequest(task_id=task_id))
    number = number or answer.task.attempt
    return any(
        attempt.ended_at and attempt.log_state == task_pb2.LOG_STATE_OPEN
        for attempt in answer.task.attempts
        if attempt.number == number
    )


@command.command("cancel", epilog="muster task cancel 01928f6e-… --reason 'wrong branch'")
@click.argument("task_id")
@click.option("--reason", default="", help="Why, for people.")
@with_api
async def cancel(api: Api, task_id: str, reason: str) -> None:
    """End a task."""
    request = task_pb2.CancelTaskRequest(task_id=task_id, reason=reason)
    answer = await api.call(api.tasks.CancelTask, request)
    show(answer, lambda: click.echo(answer.message))


@command.command("retry", epilog="muster task retry 01928f6e-…")
@click.argument("task_id")
@with_api
async def retry(api: Api, task_id: str) -> None:
    """Submit an ended task again; prints the new task's id."""
    answer = await api.call(api.tasks.RetryTask, task_pb2.RetryTaskRequest(task_id=task_id))
    show(answer, lambda: click.echo(answer.new_task_id))


@command.command("delete", epilog="muster task delete 01928f6e-…")
@click.argument("task_id")
@with_api
async def delete(api: Api, task_id: str) -> None:
    """Remove a task that has ended or still waits, with its log."""
    answer = await api.call(api.tasks.DeleteTask, task_pb2.DeleteTaskRequest(task_id=task_id))
    show(answer, lambda: click.echo(answer.message))


@command.command(
    "update",
    epilog="""
    muster task update 01928f6e-… --timeout 600
    muster task update 01928f6e-… --command 'make clean' --command make --clear env
    """,
)
@click.argument("task_id")
@click.option("--name", default="", help="New name.")
@click.option("-c", "--command", "commands", multiple=True, help="New script, one line each.")
@click.option(
    "-e", "--env", type=VARIABLE, multiple=True, metavar="K=V", help="New environment, all of it."
)
@click.option("--timeout", "time_limit", type=click.IntRange(1), default=None, help="Seconds.")
@click.option(
    "--clear",
    type=click.Choice(["name", "env", "timeout"]),
    multiple=True,
    help="Set a field back to its default.",
)
@with_api
async def update(
    api: Api,
    task_id: str,
    name: str,
    commands: Sequence[str],
    env: Sequence[tuple[str, str]],
    time_limit: int | None,
    clear: Sequence[str],
) -> None:
    """Change a task that no agent has taken yet."""
    given = {"name": name, "commands": commands, "env": env, "timeout": time_limit}
    fields = [field for field, value in given.items() if value]
    if not fields and not clear:
        raise click.UsageError("say what to change, with --name, --command, --env or --timeout")
    if both := set(fields) & set(clear):
        raise click.UsageError(f"cannot set and clear {', '.join(sorted(both))}")
    request = task_pb2.UpdateTaskRequest(
        task_id=task_id,
        name=name,
        commands=commands,
        env=dict(env),
        timeout=time_limit or 0,
        update_mask=FieldMask(paths=[*fields, *clear]),
    )
    answer = await api.call(api.tasks.UpdateTask, request)
    show(answer, lambda: click.echo(answer.message))
