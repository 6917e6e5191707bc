"""`muster login`, `logout` and `whoami`: who one is to a server."""

import asyncio
import sys
from pathlib import Path

import click

from cli import contexts, credentials, interrupt
from cli.connection import Api, connect, with_api
from cli.contexts import Context
from cli.failure import CommandFailed
from cli.framework import Command
from cli.output import print_fields, show
from cli.settings import Settings, current_settings
from cli.times import deadline
from generated.auth.v1 import auth_pb2

ROLE = auth_pb2.Role.DESCRIPTOR


@click.command(
    "login",
    cls=Command,
    epilog="""
    muster login --server build-host:50051
    muster login --server build-host:50051 --token-stdin < token.txt
    muster login --server build-host:50051 --oidc
    """,
)
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@click.option("--oidc", is_flag=True, help="Log in where the server says people do, in a browser.")
@click.option("--no-browser", is_flag=True, help="With --oidc: only show the address.")
@click.option(
    "--callback-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="With --oidc: the port that the issuer sends the browser back to (default: any).",
)
@click.option("--as", "name", help="What to call the server from now on (default: its host).")
def login(
    token_stdin: bool, oidc: bool, no_browser: bool, callback_port: int, name: str | None
) -> None:
    """Keep a token for a server, after trying it, and use that server from now on.

    An administrator makes tokens: muster token create NAME.
    """
    settings = current_settings()
    if oidc and token_stdin:
        raise click.UsageError("--oidc and --token-stdin are two ways to log in")
    if oidc:
        token = interrupt.run(_log_in(settings, browser=not no_browser, port=callback_port))
    else:
        token = _read_token(from_stdin=token_stdin, server=settings.server)
    answer = interrupt.run(_who(settings, token))
    if answer.kind == "anybody":
        raise CommandFailed(f"{settings.server} asks nobody who they are (auth is off)")
    vault = credentials.vault()
    vault.put(settings.server, token)
    known = contexts.load()
    name = name or known.of_server(settings.server) or settings.server.rpartition(":")[0]
    known.named[name] = Context(
        settings.server,
        settings.namespace,
        settings.tls,
        _absolute(settings.tls_ca),
        _absolute(settings.tls_cert),
        _absolute(settings.tls_key),
        settings.insecure,
    )
    known.current = name
    contexts.save(known)
    show(
        answer,
        lambda: click.echo(
            f"You are {answer.name} on {settings.server} (context {name}); "
            f"the token is in {vault.where()}."
        ),
    )


@click.command("logout", cls=Command, epilog="muster logout\nmuster logout --server build:50051")
def logout() -> None:
    """Forget the token of a server. To end it for everybody: muster token revoke ID."""
    server = current_settings().server
    if credentials.vault().drop(server):
        click.echo(f"The token for {server} is forgotten here.")
    else:
        click.echo(f"There is no token for {server} here.")


@click.command("whoami", cls=Command, epilog="muster whoami\nmuster whoami -o json")
@with_api
async def whoami(api: Api) -> None:
    """Show who you are to the server, and what you may do."""
    answer = await api.call(api.auth.WhoAmI, auth_pb2.WhoAmIRequest())
    show(answer, lambda: _print(answer, api.settings.server))


def _print(answer: auth_pb2.WhoAmIResponse, server: str) -> None:
    print_fields(
        (
            ("Name", answer.name),
            ("Kind", answer.kind),
            ("Server", server),
            ("Namespace", f"{answer.namespace} (or any other)" if answer.server_wide
             else answer.namespace),
            ("Role", auth_pb2.Role.Name(answer.role).removeprefix("ROLE_").lower()
             if answer.role else ""),
            ("May", ", ".join(answer.permissions)),
            ("Until", deadline(answer.expires_at / 1000)),
        )
    )  # fmt: skip


async def _log_in(settings: Settings, *, browser: bool, port: int) -> str:
    """Return the token of whoever logs in at the server's issuer.

    Raises:
        CommandFailed: nobody does, or the server has no issuer.
    """
    async with connect(settings, "") as api:
        where = await api.call(api.auth.GetLogin, auth_pb2.GetLoginRequest())
        if not where.issuer:
            raise CommandFailed(f"{settings.server} has no place to log in; ask for a token")
        from cli.oidc_login import log_in  # late: others need no web server

        done = await asyncio.to_thread(
            log_in,
            where.issuer,
            where.client_id,
            where.client_secret,
            browser=browser,
            port=port,
        )
        request = auth_pb2.LogInRequest(
            id_token=done.id_token, nonce=done.nonce, namespace=settings.namespace
        )
        return (await api.call(api.auth.LogIn, request)).text


async def _who(settings: Settings, token: str) -> auth_pb2.WhoAmIResponse:
    async with connect(settings, token) as api:
        return await api.call(api.auth.WhoAmI, auth_pb2.WhoAmIRequest())


def _absolute(file: str) -> str:
    return str(Path(file).absolute()) if file else ""


def _read_token(*, from_stdin: bool, server: str) -> str:
    """Return the token that was given.

    Raises:
        CommandFailed: it is empty or more than one line.
    """
    if from_stdin or not sys.stdin.isatty():
        token = sys.stdin.read().strip()
    else:
        token = click.prompt(f"Token for {server}", hide_input=True, err=True).strip()
    if not token or any(not "!" <= letter <= "~" for letter in token):
        raise CommandFailed("that is no token; an administrator makes one: muster token create")
    return token
