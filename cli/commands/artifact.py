"""`muster artifact`: files that tasks left behind or others handed in."""

from pathlib import Path

import click

from cli.artifact_files import download
from cli.commands.task_artifacts import size_text
from cli.connection import Api, with_api
from cli.framework import Group
from cli.output import print_fields, print_table, show, show_all
from cli.times import age, deadline, moment
from generated.artifact.v1 import artifact_pb2

HEADINGS = ("ARTIFACT", "NAME", "PATH", "SIZE", "FROM", "STORED")
GRANT_HEADINGS = ("GRANT", "CALLER", "PREFIX", "USED", "OF", "ENDS", "BY")


@click.group("artifact", cls=Group)
def command() -> None:
    """Look at files that tasks left behind or others handed in, and let others hand in some."""


@command.command("list", epilog="muster artifact list --run 01928f6e-…\nmuster artifact list")
@click.option("--run", "run_id", default="", metavar="ID", help="Only of this run's jobs.")
@click.option("--task", "task_id", default="", metavar="ID", help="Only of this task.")
@click.option("--name", default="", help="Only of this name.")
@with_api
async def list_artifacts(api: Api, run_id: str, task_id: str, name: str) -> None:
    """List artifacts, the oldest first."""
    found: list[artifact_pb2.Artifact] = []
    token = ""
    while True:
        request = artifact_pb2.ListArtifactsRequest(
            task_id=task_id, run_id=run_id, name=name, page_size=1000, page_token=token
        )
        answer = await api.call(api.artifacts.ListArtifacts, request)
        found += answer.artifacts
        token = answer.next_page_token
        if not token:
            break
    show_all(found, lambda: print_table(HEADINGS, map(_row, found)))


@command.command("get", epilog="muster artifact get 01928f6e-… --download out")
@click.argument("artifact_id", metavar="ID")
@click.option(
    "--download",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Bring the file into this folder.",
)
@with_api
async def get(api: Api, artifact_id: str, folder: Path | None) -> None:
    """Show an artifact with a URL to fetch it, or bring it here."""
    request = artifact_pb2.GetArtifactRequest(artifact_id=artifact_id)
    found = (await api.call(api.artifacts.GetArtifact, request)).artifact
    if folder is not None:
        for path in download([(found.path, found.download_url, found.sha256, found.size)], folder):
            click.echo(path)
        return
    fields = (
        ("Artifact", found.artifact_id),
        ("Name", found.name),
        ("Path", found.path),
        ("Size", size_text(found.size)),
        ("SHA-256", found.sha256),
        ("Task", found.task_id),
        ("Job", found.task_name),
        ("Run", found.run_id),
        ("Handed in by", found.handed_in_by),
        ("Stored", moment(found.created_at / 1000)),
        ("Expires", deadline(found.expire_at / 1000)),
        ("URL", found.download_url),
    )
    show(found, lambda: print_fields(fields))


@command.command("delete", epilog="muster artifact delete 01928f6e-…")
@click.argument("artifact_id", metavar="ID")
@with_api
async def delete(api: Api, artifact_id: str) -> None:
    """Delete an artifact."""
    request = artifact_pb2.DeleteArtifactRequest(artifact_id=artifact_id)
    await api.call(api.artifacts.DeleteArtifact, request)
    click.echo(f"{artifact_id} is deleted.")


@command.group("grant", cls=Group)
def grant() -> None:
    """Let producers outside of tasks hand in files for a short time."""


@grant.command("create", epilog="muster artifact grant create camera-1 --max-bytes 1000000000")
@click.argument("caller")
@click.option("--prefix", default="", help="What the place of the files begins with.")
@click.option("--max-bytes", type=click.IntRange(1), default=None, help="In all (default: 1 GiB).")
@click.option(
    "--lifetime",
    type=click.IntRange(1, 86_400),
    default=900,
    show_default=True,
    help="Seconds that the key counts.",
)
@click.option("--expire-days", type=click.IntRange(0), default=0, help="Days the files are kept.")
@with_api
async def create_grant(
    api: Api, caller: str, prefix: str, max_bytes: int | None, lifetime: int, expire_days: int
) -> None:
    """Make a key that hands in files; it is shown once."""
    request = artifact_pb2.CreateUploadGrantRequest(
        caller=caller,
        prefix=prefix,
        max_bytes=max_bytes or 0,
        lifetime=lifetime,
        expire_days=expire_days,
    )
    answer = await api.call(api.artifacts.CreateUploadGrant, request)
    made = answer.grant
    fields = (
        ("Grant", made.grant_id),
        ("Files in", f"{made.prefix}/{made.caller}/"),
        ("Ends", deadline(made.expires_at / 1000)),
        ("Key", answer.key),
    )
    show(answer, lambda: print_fields(fields))


@grant.command("list", epilog="muster artifact grant list")
@with_api
async def list_grants(api: Api) -> None:
    """List the grants that have not ended."""
    request = artifact_pb2.ListUploadGrantsRequest()
    found = (await api.call(api.artifacts.ListUploadGrants, request)).grants
    show_all(found, lambda: print_table(GRANT_HEADINGS, map(_grant_row, found)))


@grant.command("revoke", epilog="muster artifact grant revoke 01928f6e-…")
@click.argument("grant_id", metavar="ID")
@with_api
async def revoke(api: Api, grant_id: str) -> None:
    """End a grant; what was handed in stays."""
    request = artifact_pb2.RevokeUploadGrantRequest(grant_id=grant_id)
    await api.call(api.artifacts.RevokeUploadGrant, request)
    click.echo(f"{grant_id} has ended.")


def _row(artifact: artifact_pb2.Artifact) -> tuple[str, ...]:
    return (
        artifact.artifact_id,
        artifact.name,
        artifact.path,
        size_text(artifact.size),
        artifact.task_name or artifact.handed_in_by,
        age(artifact.created_at / 1000),
    )


def _grant_row(each: artifact_pb2.UploadGrant) -> tuple[str, ...]:
    return (
        each.grant_id,
        each.caller,
        each.prefix,
        size_text(each.used_bytes),
        size_text(each.max_bytes),
        deadline(each.expires_at / 1000),
        each.created_by,
    )
