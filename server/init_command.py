"""`muster-server init`: a secure set-up in one command; and certificates after that."""

import asyncio
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
from uuid_utils import uuid7

from server.authority import (
    Pair,
    agent_certificate,
    make_authority,
    read_authority,
    server_certificate,
    write_file,
)
from server.domain.errors import MusterError
from server.domain.moment import DAY
from server.domain.token import TokenKind
from server.domain.tokens import CreateToken
from server.engine.clock import Clock
from server.engine.minting import mint
from server.settings import Settings
from server.stores.sql.database import DatabaseInUseError
from server.stores.sql.migrate import UnknownSchemaError
from server.tls import AGENT_URI
from server.token_commands import MAKER, admin, create

LOCAL = ("localhost", "127.0.0.1", "::1")
CONFIG = "muster.toml"
ENROL_USES = 10
_AGENT = re.compile(r"[a-z0-9-]{1,63}/[A-Za-z0-9._:-]{1,128}", re.ASCII)


class CommandError(Exception):
    """The command cannot be carried out; the message says why."""


class Folder:
    """Where everything lies that `init` makes."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.data_dir
        self.ca = self.path / "ca.pem"
        self.ca_key = self.path / "ca.key"
        self.certificate = self.path / "server.pem"
        self.key = self.path / "server.key"
        self.config = self.path / CONFIG

    @property
    def made(self) -> list[Path]:
        """The files of these that exist."""
        files = (self.ca, self.ca_key, self.certificate, self.key, self.config)
        return [path for path in files if path.exists()]


def init(arguments: list[str], settings: Settings) -> int:
    """Carry out `init [HOST]…`; return the exit code."""
    return _carry_out(lambda: _init(arguments, settings))


def certificate(arguments: list[str], settings: Settings) -> int:
    """Carry out `certificate [HOST]…`; return the exit code."""
    return _carry_out(lambda: _renew(arguments, settings))


def for_agent(arguments: list[str], settings: Settings) -> int:
    """Carry out `agent-certificate NAMESPACE/ID`; return the exit code."""
    return _carry_out(lambda: _for_agent(arguments, settings))


def _carry_out(work: Callable[[], None]) -> int:
    try:
        work()
    except CommandError as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    except (OSError, MusterError, DatabaseInUseError, UnknownSchemaError) as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    return 0


def _init(hosts: list[str], settings: Settings) -> None:
    folder = Folder(settings)
    if folder.made:
        raise CommandError(
            f"{folder.made[0]} exists: this folder is set up already. For a new certificate: "
            "muster-server certificate; to begin anew, take another --data-dir"
        )
    folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    hosts = hosts or [socket.getfqdn()]
    authority = make_authority(_now())
    served = _certificate(hosts, lambda names: server_certificate(authority, names, _now()))
    user, user_digest = mint(TokenKind.USER)
    host, host_digest = mint(TokenKind.ENROL)
    asyncio.run(create(settings, admin("root", user_digest), _enrolment(host_digest)))
    authority.write(folder.ca, folder.ca_key)
    served.write(folder.certificate, folder.key)
    for name, text in (("admin.token", user), ("enrolment.token", host)):
        write_file(folder.path / name, f"{text}\n".encode(), 0o600)
    write_file(folder.config, _config(folder, settings).encode(), 0o600)  # last: all is there now
    click.echo(_what_next(folder, hosts[0], settings))


def _renew(hosts: list[str], settings: Settings) -> None:
    folder = Folder(settings)
    if not folder.ca_key.exists():
        raise CommandError(f"there is no {folder.ca_key}: muster-server init makes one")
    authority = read_authority(folder.ca, folder.ca_key)
    hosts = hosts or [socket.getfqdn()]
    served = _certificate(hosts, lambda names: server_certificate(authority, names, _now()))
    served.write(folder.certificate, folder.key)
    until = served.certificate.not_valid_after_utc.date()
    click.echo(f"{folder.certificate} is for {', '.join(hosts)} and counts until {until}.")
    click.echo("A server that runs takes it up by itself.")


def _for_agent(arguments: list[str], settings: Settings) -> None:
    if len(arguments) != 1 or not _AGENT.fullmatch(arguments[0]):
        raise CommandError("say which: muster-server agent-certificate NAMESPACE/AGENT_ID")
    folder = Folder(settings)
    if not folder.ca_key.exists():
        raise CommandError(f"there is no {folder.ca_key}: muster-server init makes one")
    authority = read_authority(folder.ca, folder.ca_key)
    name = arguments[0].rpartition("/")[2].replace(":", "_")
    files = folder.path / f"agent-{name}.pem", folder.path / f"agent-{name}.key"
    agent_certificate(authority, AGENT_URI + arguments[0], _now()).write(*files)
    click.echo(f"{files[0]} and {files[1]} are for agent {arguments[0]}: copy them to its host,")
    click.echo(f"and start the server with --tls-client-ca {folder.ca}.")


def _certificate(hosts: list[str], make: Callable[[list[str]], Pair]) -> Pair:
    try:
        return make([*hosts, *LOCAL])
    except ValueError as error:
        raise CommandError(str(error)) from None


def _enrolment(digest: str) -> CreateToken:
    return CreateToken(
        "default",
        str(uuid7()),
        TokenKind.ENROL,
        digest,
        "first hosts",
        MAKER,
        uses=ENROL_USES,
        expires_at=Clock().now() + DAY,
    )


def _config(folder: Folder, settings: Settings) -> str:
    beyond = {"grpc_listen": "0.0.0.0:50051", "http_listen": "0.0.0.0:8080"}
    defaults = {name: Settings.model_fields[name].default for name in beyond}
    listen = {
        name: address if getattr(settings, name) == defaults[name] else getattr(settings, name)
        for name, address in beyond.items()
    }
    lines = [
        "# Made by muster-server init. Every setting: muster-server --help",
        f'data_dir = "{folder.path}"',
        'auth = "on"',
        f'tls_cert = "{folder.certificate}"',
        f'tls_key = "{folder.key}"',
        *(f'{name} = "{address}"' for name, address in listen.items()),
    ]
    if settings.sqlite_file != folder.path / "muster.db":
        lines.append(f'database_url = "{settings.database_url}"')
    return "\n".join(lines) + "\n"


def _what_next(folder: Folder, host: str, settings: Settings) -> str:
    port = settings.grpc_listen.port or 50051
    return f"""\
Set up in {folder.path}: an authority, a certificate for {host}, and two tokens.

1. Start the server:

   muster-server --config {folder.config}

2. Log in, here or elsewhere with a copy of ca.pem and admin.token (90 days, may do everything):

   cd {folder.path}
   muster login --server {host}:{port} --tls-ca ca.pem --token-stdin < admin.token

3. Start agents, on hosts with a copy of ca.pem and enrolment.token ({ENROL_USES} hosts, one day):

   muster-agent --hardened --server {host}:{port} --tls-ca ca.pem \\
       --enrolment-token-file enrolment.token

Keep {folder.ca_key} and admin.token to yourself; delete the tokens' files once they are used."""


def _now() -> datetime:
    return datetime.fromtimestamp(Clock().now() / 1000, UTC)
