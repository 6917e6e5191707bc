"""`muster task explain`: why a task stands where it stands."""

import click

from cli.connection import Api, with_api
from cli.framework import Command
from cli.output import print_fields, print_table, show
from cli.states import short_name, task_status
from cli.times import until
from generated.task.v1 import task_pb2

WAITING_FOR = task_pb2.WaitingFor.DESCRIPTOR
FIT = task_pb2.Fit.DESCRIPTOR
HEADINGS = ("AGENT", "SAYS", "WHY")


@click.command(
    "explain",
    cls=Command,
    epilog="muster task explain 01928f6e-…\nmuster task explain 01928f6e-… -o json",
)
@click.argument("task_id")
@with_api
async def command(api: Api, task_id: str) -> None:
    """Say why a task stands where it stands, and what each agent says to it."""
    request = task_pb2.ExplainTaskRequest(task_id=task_id)
    answer = await api.call(api.tasks.ExplainTask, request)
    show(answer, lambda: _print(answer))


def _print(answer: task_pb2.ExplainTaskResponse) -> None:
    click.echo(answer.message)
    click.echo()
    agents = [f"{count.agents} {short_name(FIT, count.fit)}" for count in answer.agent_counts]
    print_fields(
        (
            ("Status", task_status(answer.status)),
            ("Waits for", short_name(WAITING_FOR, answer.waiting_for)),
            ("Tasks", "\n".join(map(_dependency, answer.dependencies))),
            ("Places", f"{answer.places_taken} of {answer.places}" if answer.places else ""),
            ("Held by", "\n".join(f"{each.name} {each.task_id}" for each in answer.holders)),
            ("Next try", until(answer.not_before / 1000) if answer.not_before else ""),
            ("Before it", _tasks(answer.tasks_before)),
            ("Of others", _tasks(answer.tasks_of_others)),
            ("Agents", ", ".join(agents)),
        )
    )
    if answer.agents:
        click.echo()
        rows = ((each.agent_id, short_name(FIT, each.fit), each.reason) for each in answer.agents)
        print_table(HEADINGS, rows)


def _dependency(task: task_pb2.UnmetDependency) -> str:
    return f"{task.name} {task_status(task.status)} {task.task_id}"


def _tasks(count: int) -> str:
    if not count:
        return ""
    return "1 ready task" if count == 1 else f"{count} ready tasks"
