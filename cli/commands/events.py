"""`muster events`: what happened, and what happens."""

from collections.abc import Sequence

import click

from cli.connection import Api, with_api
from cli.event_watch import Wanted, events_from_now, events_until_now, print_event
from cli.framework import Command
from cli.names import pipeline_id
from cli.states import choices, chosen
from generated.stream.v1 import stream_pb2

TYPE = stream_pb2.EventType.DESCRIPTOR
RESOURCES = ("task", "run", "pipeline", "agent")

EXAMPLES = """
muster events
muster events -f --type job_failed --type pipeline_failed
muster events -f --about agent -o json
muster events --after 1042 --run 01928f6e-…
"""


@click.command("events", cls=Command, epilog=EXAMPLES)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--after", default="", metavar="CURSOR", help="Only what came after this cursor.")
@click.option("--all", "everything", is_flag=True, help="With -f: begin with the oldest kept.")
@click.option(
    "--type",
    "types",
    type=click.Choice(choices(TYPE), case_sensitive=False),
    multiple=True,
    help="Only events of this type; may be given again.",
)
@click.option(
    "--about",
    type=click.Choice(RESOURCES),
    multiple=True,
    help="Only events about this kind of thing; may be given again.",
)
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only events about this thing.")
@click.option("--run", "runs", multiple=True, metavar="ID", help="Only this run and its tasks.")
@click.option(
    "--pipeline",
    "pipelines",
    multiple=True,
    metavar="NAME|ID",
    help="Only this pipeline, its runs and their tasks.",
)
@with_api
async def command(
    api: Api,
    follow: bool,
    after: str,
    everything: bool,
    types: Sequence[str],
    about: Sequence[str],
    ids: Sequence[str],
    runs: Sequence[str],
    pipelines: Sequence[str],
) -> None:
    """Print what happened, oldest first; with -f what happens from now on.

    With -o json each event has a `cursor` to go on after. Events are kept for a week unless the
    server is set otherwise; a cursor older than that is refused with the oldest that works.
    """
    if everything and after:
        raise click.UsageError("--all goes without --after")
    request = stream_pb2.StreamEventsRequest(
        event_types=[stream_pb2.EventType.ValueType(chosen(TYPE, name)) for name in types],
        resource_types=about,
        resource_ids=ids,
        run_ids=runs,
        pipeline_ids=[await pipeline_id(api, name) for name in pipelines],
    )
    wanted = Wanted(request, after, oldest=everything or not (follow or after))
    events = events_from_now if follow else events_until_now
    async for event in events(api, wanted):
        print_event(event)
