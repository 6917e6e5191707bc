"""`muster secret`: values that tasks get, and nobody can read again."""

import sys
from pathlib import Path

import click

from cli.connection import Api, with_api
from cli.failure import CommandFailed
from cli.framework import Group
from cli.output import print_table, show, show_all
from cli.times import age
from generated.secret.v1 import secret_pb2

HEADINGS = ("SECRET", "VERSION", "CHANGED", "BY", "KEY")


@click.group("secret", cls=Group)
def command() -> None:
    """Keep values that tasks get in their environment, and nobody can read again."""


@command.command(
    "set",
    epilog="""
    muster secret set registry-password
    muster secret set deploy-key --from-file id_ed25519
    printf %s "$PASSWORD" | muster secret set registry-password
    """,
)
@click.argument("name")
@click.option(
    "--from-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Take the value from this file, as it is.",
)
@with_api
async def set_secret(api: Api, name: str, from_file: Path | None) -> None:
    """Keep a value: from a file, from standard input, or typed in. Never from the command line."""
    request = secret_pb2.PutSecretRequest(name=name, value=_value(name, from_file))
    secret = (await api.call(api.secrets.PutSecret, request)).secret
    show(secret, lambda: click.echo(f"{secret.name} is kept (version {secret.version})."))


@command.command("list", epilog="muster secret list")
@with_api
async def list_secrets(api: Api) -> None:
    """List secrets, without their values."""
    secrets = (await api.call(api.secrets.ListSecrets, secret_pb2.ListSecretsRequest())).secrets
    show_all(secrets, lambda: print_table(HEADINGS, map(_row, secrets)))


@command.command("delete", epilog="muster secret delete registry-password")
@click.argument("name")
@with_api
async def delete(api: Api, name: str) -> None:
    """Forget a secret; tasks that name it and start from now on fail."""
    await api.call(api.secrets.DeleteSecret, secret_pb2.DeleteSecretRequest(name=name))
    click.echo(f"{name} is forgotten.")


def _row(secret: secret_pb2.Secret) -> tuple[str, ...]:
    changed = age(secret.updated_at / 1000)
    return (secret.name, str(secret.version), changed, secret.updated_by, secret.key_version)


def _value(name: str, file: Path | None) -> str:
    """Return the value that was given.

    Raises:
        CommandFailed: it is no text.
    """
    try:
        if file is not None:
            return file.read_bytes().decode()
        if not sys.stdin.isatty():
            return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise CommandFailed("a secret is text; encode binary files, say as base64") from None
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}") from None
    prompted: str = click.prompt(f"Value of {name}", hide_input=True, err=True)
    return prompted
