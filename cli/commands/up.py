"""`muster up`: a server and an agent for one machine."""

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from platformdirs import user_data_path

from cli.alongside import alongside
from cli.connection import connect
from cli.event_watch import Wanted, events_from_now, print_event
from cli.failure import CommandFailed
from cli.framework import Command
from cli.interrupt import Interrupt, StopAskedFor
from cli.log_print import remark
from cli.machine import Machine
from cli.pairs import LABEL
from cli.settings import DEFAULT_SERVER, Settings

EXAMPLES = """
muster up
muster up --data-dir ./data --slots 4 --label role=build
muster up --grpc-listen 0.0.0.0:50051 --insecure
"""


@click.command("up", cls=Command, epilog=EXAMPLES)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: user_data_path("muster"),
    show_default="the user's data folder",
    help="Where server and agent keep their data.",
)
@click.option("--grpc-listen", default="127.0.0.1:50051", show_default=True, metavar="HOST:PORT")
@click.option("--http-listen", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT")
@click.option(
    "--insecure",
    is_flag=True,
    help="Allow listening beyond this machine: whoever reaches it can run commands here.",
)
@click.option("--name", default="", metavar="ID", help="The agent's id; made once when missing.")
@click.option(
    "-l", "--label", "--labels", type=LABEL, multiple=True, metavar="K=V", help="Agent's label."
)
@click.option(
    "--slots",
    type=click.IntRange(1),
    show_default="one a processor",
    help="Tasks the agent runs at once.",
)
def command(
    data_dir: Path,
    grpc_listen: str,
    http_listen: str,
    insecure: bool,
    name: str,
    label: Sequence[tuple[str, str]],
    slots: int | None,
) -> None:
    """Start a server and an agent on this machine; Ctrl-C stops both."""
    listen = ["--grpc-listen", grpc_listen, "--http-listen", http_listen]
    listen += ["--insecure"] if insecure else []
    if any("," in value for _, value in label):
        raise click.UsageError("a label's value cannot hold a comma here")
    labels = ",".join(f"{name}={value}" for name, value in label)
    agent = ["--labels", labels] if labels else []
    agent += ["--name", name] if name else []
    if slots:
        agent += ["--slots", str(slots)]
    asyncio.run(_up(data_dir.absolute(), listen, agent))


async def _up(data: Path, listen: Sequence[str], agent: Sequence[str]) -> None:
    """Run server and agent until a signal comes or one of them ends."""
    machine = Machine(_made(data))
    with Interrupt() as interrupt:
        try:
            async with alongside(interrupt.raise_when_asked()):
                places = await machine.start("server", *listen)
                await machine.start("agent", "--server", places["grpc"], *agent)
                _tell_how_to_use(places, data)
                async with alongside(_tell_what_happens(places["grpc"])):
                    await machine.watch()
        except StopAskedFor:
            remark("stopping")
        finally:
            await machine.stop(interrupt)


async def _tell_what_happens(server: str) -> None:
    """Print what happens on a terminal; a pipe stays quiet."""
    if not sys.stdout.isatty():
        return
    with contextlib.suppress(CommandFailed):  # nobody waits for these lines
        async with connect(Settings(server=server)) as api:
            async for event in events_from_now(api, Wanted()):
                print_event(event)


def _made(data: Path) -> Path:
    """Return the data folder, made when it is missing."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"cannot use {data}: {error.strerror}") from error
    return data


def _tell_how_to_use(places: Mapping[str, str], data: Path) -> None:
    """Say where everything is and what to try."""
    grpc = places["grpc"]
    elsewhere = "" if grpc == DEFAULT_SERVER else f" --server {grpc}"
    click.echo(
        f"Muster is up.\n"
        f"  gRPC  {grpc}\n"
        f"  HTTP  http://{places.get('http', '')}\n"
        f"  data  {data} (logs: server.log, agent.log)\n"
        f"\n"
        f"Try:   muster exec{elsewhere} -- uname -a\n"
        f"Stop:  Ctrl-C"
    )
