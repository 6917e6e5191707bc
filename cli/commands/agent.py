"""`muster agent`: look at the worker machines, and say which are given work."""

from collections.abc import Mapping, Sequence

import click

from cli.agent_words import measured_of, settings_of, status_of, work_of
from cli.commands import agent_control
from cli.connection import Api, with_api
from cli.framework import Group
from cli.output import print_fields, print_table, show, show_all
from cli.pages import all_pages
from cli.pairs import LABEL
from cli.requirements import label_selector, selector_options
from cli.states import choices, chosen, short_name
from cli.times import age, moment
from generated.agent.v1 import agent_pb2
from server.definition.selector import Requirement

STATUS = agent_pb2.AgentStatus.DESCRIPTOR
HEADINGS = ("AGENT", "HOST", "STATUS", "TASKS", "LABELS", "SEEN", "VERSION")


@click.group("agent", cls=Group)
def command() -> None:
    """Look at the worker machines, pause and drain them."""


command.add_command(agent_control.pause)
command.add_command(agent_control.resume)
command.add_command(agent_control.configure)
command.add_command(agent_control.drain)
command.add_command(agent_control.revoke)
command.add_command(agent_control.watch)


@command.command(
    "list", epilog="muster agent list\nmuster agent list --status idle --label role=build"
)
@selector_options
@click.option("--status", type=click.Choice(choices(STATUS), case_sensitive=False))
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most.")
@with_api
async def list_agents(
    api: Api,
    label: Sequence[tuple[str, str]],
    selector: Sequence[list[Requirement]],
    status: str | None,
    limit: int,
) -> None:
    """List agents by name; a selector lists those that fit."""

    def request(token: str, size: int) -> agent_pb2.ListAgentsRequest:
        return agent_pb2.ListAgentsRequest(
            status=agent_pb2.AgentStatus.ValueType(chosen(STATUS, status)),
            label_selector=label_selector(label, selector),
            page_size=size,
            page_token=token,
        )

    agents = await all_pages(api, api.agents.ListAgents, request, lambda page: page.agents, limit)
    show_all(agents, lambda: print_table(HEADINGS, map(_row, agents)))


@command.command("get", epilog="muster agent get builder-1")
@click.argument("agent_id")
@with_api
async def get(api: Api, agent_id: str) -> None:
    """Show one agent and the tasks it holds."""
    agent = (
        await api.call(api.agents.GetAgent, agent_pb2.GetAgentRequest(agent_id=agent_id))
    ).agent
    show(agent, lambda: _print(agent))


@command.command(
    "labels",
    epilog="""
    muster agent labels builder-1
    muster agent labels builder-1 disk=ssd zone=a
    muster agent labels builder-1 --replace zone=b
    """,
)
@click.argument("agent_id")
@click.argument("labels", nargs=-1, type=LABEL, metavar="[K=V]...")
@click.option("--replace", is_flag=True, help="Drop labels set here before.")
@with_api
async def change_labels(
    api: Api, agent_id: str, labels: Sequence[tuple[str, str]], replace: bool
) -> None:
    """Set labels over those an agent reports; without labels, show them."""
    if not labels and not replace:
        request = agent_pb2.GetAgentRequest(agent_id=agent_id)
        agent = (await api.call(api.agents.GetAgent, request)).agent
        answer = agent_pb2.UpdateLabelsResponse(success=True, labels=agent.labels)
    else:
        change = agent_pb2.UpdateLabelsRequest(
            agent_id=agent_id, labels=dict(labels), merge=not replace
        )
        answer = await api.call(api.agents.UpdateLabels, change)
    show(answer, lambda: click.echo(_pairs(answer.labels, "\n")))


def _row(agent: agent_pb2.AgentDetail) -> tuple[str, ...]:
    return (
        agent.agent_id,
        agent.hostname,
        status_of(agent),
        f"{agent.running_jobs_count}/{agent.max_concurrent_jobs}",
        _pairs({k: v for k, v in agent.labels.items() if not k.startswith(PLUGIN)}, ","),
        age(agent.last_seen / 1000),
        agent.version,
    )


def _print(agent: agent_pb2.AgentDetail) -> None:
    print_fields(
        (
            ("Agent", agent.agent_id),
            ("Status", short_name(STATUS, agent.status)),
            ("Work", work_of(agent)),
            ("Host", f"{agent.hostname} {agent.ip}".strip()),
            ("System", f"{agent.os} {agent.arch}".strip()),
            ("Version", agent.version),
            ("Slots", f"{agent.running_jobs_count} of {agent.max_concurrent_jobs} taken"),
            ("Labels", _pairs(agent.labels, "\n")),
            ("Settings", settings_of(agent)),
            ("Measured", measured_of(agent)),
            ("First seen", moment(agent.created_at)),
            ("Last seen", moment(agent.last_seen / 1000)),
            ("Tasks", "\n".join(agent.task_ids)),
        )
    )


PLUGIN = "plugin/"
"""Beginning of the labels that say which plugins an agent has: too many for a table."""


def _pairs(labels: Mapping[str, str], between: str) -> str:
    return between.join(f"{key}={value}" for key, value in sorted(labels.items()))
