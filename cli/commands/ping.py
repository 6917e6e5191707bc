"""`muster ping`: check that the server answers."""

import time

import click

from cli.connection import Api, with_api
from cli.framework import Command
from cli.output import show
from generated.task.v1 import task_pb2


@click.command(
    "ping",
    cls=Command,
    epilog="muster ping\nmuster ping --server build-host:50051",
)
@with_api
async def command(api: Api) -> None:
    """Check that the server answers, and how fast."""
    started = time.perf_counter()
    answer = await api.call(api.tasks.Ping, task_pb2.PingRequest())
    took = (time.perf_counter() - started) * 1000
    show(answer, lambda: click.echo(f"{api.settings.server} answers in {took:.1f} ms"))
