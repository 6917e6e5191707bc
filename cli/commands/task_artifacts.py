"""`muster task artifacts`: the files that a task left behind."""

from pathlib import Path

import click

from cli.artifact_files import download
from cli.connection import Api, with_api
from cli.framework import Command
from cli.output import print_table, show_all
from cli.times import age, until
from generated.task.v1 import task_pb2

HEADINGS = ("ARTIFACT", "NAME", "PATH", "SIZE", "STORED", "EXPIRES")


@click.command(
    "artifacts",
    cls=Command,
    epilog="muster task artifacts 01928f6e-…\nmuster task artifacts 01928f6e-… --download out",
)
@click.argument("task_id", metavar="ID")
@click.option(
    "--download",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Bring the files into this folder.",
)
@with_api
async def command(api: Api, task_id: str, folder: Path | None) -> None:
    """List the files that a task left behind, or bring them here."""
    request = task_pb2.ListTaskArtifactsRequest(task_id=task_id)
    found = (await api.call(api.tasks.ListTaskArtifacts, request)).artifacts
    if folder is None:
        show_all(found, lambda: print_table(HEADINGS, map(_row, found)))
        return
    names = {each.name for each in found}
    files = [
        # Files of several artifacts may have one path; each gets a folder of its own then.
        (f"{each.name}/{each.path}" if len(names) > 1 else each.path, each.download_url,
         each.sha256, each.size)
        for each in found
    ]  # fmt: skip
    for path in download(files, folder):
        click.echo(path)


def _row(artifact: task_pb2.Artifact) -> tuple[str, ...]:
    expires = until(artifact.expire_at) if artifact.expire_at else ""
    return (
        artifact.artifact_id,
        artifact.name,
        artifact.path,
        size_text(artifact.size),
        age(artifact.created_at),
        expires,
    )


def size_text(size: int) -> str:
    """Return a number of bytes for people: `512 B`, `3.4 MiB`."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("the last unit takes all")
