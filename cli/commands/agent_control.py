"""`muster agent pause|resume|drain|watch`: whether agents are given work, and how they fare."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import click

from cli.agent_words import DRAINING, status_of
from cli.connection import Api, with_api
from cli.failure import CommandFailed
from cli.framework import Command
from cli.output import as_data, print_line, show
from cli.patience import call_patiently
from cli.stream_follow import Answers, follow
from cli.times import clock
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2

LOOK_AGAIN = timedelta(milliseconds=500)


@click.command("pause", cls=Command, epilog="muster agent pause builder-1 --note 'disk swap'")
@click.argument("agent_id")
@click.option("--note", default="", help="Why, for people.")
@with_api
async def pause(api: Api, agent_id: str, note: str) -> None:
    """Give an agent no new work; what runs goes on."""
    await _set(api, agent_id, agent_pb2.AGENT_ACTION_PAUSE, note=note)


@click.command("resume", cls=Command, epilog="muster agent resume builder-1")
@click.argument("agent_id")
@with_api
async def resume(api: Api, agent_id: str) -> None:
    """Give an agent work again."""
    await _set(api, agent_id, agent_pb2.AGENT_ACTION_RESUME)


@click.command(
    "drain",
    cls=Command,
    epilog="""
    muster agent drain builder-1
    muster agent drain builder-1 --deadline 600 --note upgrade --wait
    """,
)
@click.argument("agent_id")
@click.option(
    "--deadline",
    type=click.IntRange(0),
    metavar="SECONDS",
    help="Stop what still runs after this time; it is queued again (default: never).",
)
@click.option("--note", default="", help="Why, for people.")
@click.option("--wait", is_flag=True, help="Return when it holds nothing any more.")
@with_api
async def drain(api: Api, agent_id: str, deadline: int | None, note: str, wait: bool) -> None:
    """Give an agent no new work, hand back what has not started, let the rest end."""
    action = agent_pb2.AGENT_ACTION_DRAIN
    await _set(api, agent_id, action, note=note, deadline=deadline, wait=wait)


@click.command(
    "revoke", cls=Command, epilog="muster agent revoke builder-1 --reason 'host was lost'"
)
@click.argument("agent_id")
@click.option("--reason", default="", help="Why, for people.")
@with_api
async def revoke(api: Api, agent_id: str, reason: str) -> None:
    """Let an agent's credentials count no more and end its session; its tasks are queued again."""
    request = agent_pb2.RevokeAgentRequest(agent_id=agent_id, reason=reason)
    answer = await api.call(api.agents.RevokeAgent, request)
    show(answer, lambda: click.echo(answer.message))


@click.command(
    "watch", cls=Command, epilog="muster agent watch\nmuster agent watch builder-1 -o json"
)
@click.argument("agent_ids", nargs=-1, metavar="[AGENT_ID]...")
@with_api
async def watch(api: Api, agent_ids: Sequence[str]) -> None:
    """Print how agents stand, and each change of them, until Ctrl-C."""
    seen: dict[str, str] = {}

    def look(after: str) -> Answers[stream_pb2.StreamAgentStatusResponse]:
        request = stream_pb2.StreamAgentStatusRequest(agent_ids=agent_ids, after=after)
        return api.streams.StreamAgentStatus(request, metadata=api.metadata)

    async for agent in follow(look):
        status = status_of(agent)
        taken = f"{agent.running_jobs_count}/{agent.max_concurrent_jobs}"
        line = "  ".join(filter(None, (agent.agent_id, status, taken, agent.note)))
        if seen.get(agent.agent_id) != line:
            seen[agent.agent_id] = line
            print_line(as_data(agent), f"{clock()}  {line}")


@click.command(
    "configure",
    cls=Command,
    epilog="""
    muster agent configure builder-1 --slots 4 --interval 5
    muster agent configure builder-1 --slots 0
    """,
)
@click.argument("agent_id")
@click.option("--slots", type=click.IntRange(0), help="Tasks it runs at most.")
@click.option("--interval", type=click.IntRange(0), metavar="SECONDS", help="Between heartbeats.")
@click.option(
    "--log-delay",
    type=click.IntRange(0),
    metavar="MILLISECONDS",
    help="How long output is gathered before it is sent.",
)
@with_api
async def configure(
    api: Api, agent_id: str, slots: int | None, interval: int | None, log_delay: int | None
) -> None:
    """Change an agent's settings, now and for later; 0 takes a setting away."""
    if slots is interval is log_delay is None:
        raise click.UsageError("say what to change: --slots, --interval or --log-delay")
    request = agent_pb2.ConfigureAgentRequest(
        agent_id=agent_id,
        heartbeat_interval=interval,
        max_concurrent_jobs=slots,
        log_delay_ms=log_delay,
    )
    answer = await api.call(api.agents.ConfigureAgent, request)
    show(answer, lambda: click.echo(answer.message))


async def _set(
    api: Api,
    agent_id: str,
    action: "agent_pb2.AgentAction.ValueType",
    *,
    note: str = "",
    deadline: int | None = None,
    wait: bool = False,
) -> None:
    request = agent_pb2.SetAgentStateRequest(
        agent_id=agent_id, action=action, note=note, deadline_seconds=deadline
    )
    answer = await api.call(api.agents.SetAgentState, request)
    if not wait:
        show(answer, lambda: click.echo(answer.message))
        return
    agent = await _drained(api, answer.agent)
    if agent.scheduling != agent_pb2.SCHEDULING_STATE_DRAINED:
        raise CommandFailed("the drain was ended by somebody")
    show(agent, lambda: click.echo("The agent is drained."))


async def _drained(api: Api, agent: agent_pb2.AgentDetail) -> agent_pb2.AgentDetail:
    """Return an agent once it is not draining any more."""
    request = agent_pb2.GetAgentRequest(agent_id=agent.agent_id)
    while agent.scheduling == DRAINING:
        await asyncio.sleep(LOOK_AGAIN.total_seconds())
        agent = (await call_patiently(api, api.agents.GetAgent, request)).agent
    return agent
