"""`muster-server token`: an administrator's token, for whoever can reach the database itself.

For the first one, and for the day when nobody has one that counts.
"""

import asyncio

import click
from uuid_utils import uuid7

from server.auth import DEFAULT_NAMESPACE
from server.domain.access import Role
from server.domain.audit import Origin
from server.domain.auditing import Witness
from server.domain.errors import MusterError
from server.domain.ledger import Ledger
from server.domain.moment import DAY
from server.domain.policy import Policy
from server.domain.source import Source
from server.domain.token import EVERYWHERE, Token, TokenKind
from server.domain.tokens import CreateToken
from server.engine.clock import Clock
from server.engine.minting import mint
from server.settings import Settings
from server.stores.sql.database import DatabaseInUseError, open_url
from server.stores.sql.migrate import UnknownSchemaError

LIFETIME_DAYS = 90
MAKER = "muster-server"
HOST = Origin(DEFAULT_NAMESPACE, MAKER, "host", "", "this host", "", "muster-server")
"""What the audit log says of who can reach the database itself."""


async def create(settings: Settings, *wanted: CreateToken) -> list[Token]:
    """Keep tokens in the database, all or none.

    Raises:
        DatabaseInUseError: a server works on the SQLite file.
        MusterError, UnknownSchemaError: as `SqliteDatabase.open` and the commands say.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = open_url(settings.database_url)

    def work(source: Source) -> list[Token]:
        ledger = Ledger(source, Clock().now(), Policy())
        made = []
        for command in wanted:
            witness = Witness(command, HOST, ledger)
            made.append(command.decide(ledger))
            witness.tell(ledger, made[-1])
        ledger.finish()
        return made

    await database.open()
    try:
        return await database.transact(work)
    finally:
        await database.close()


def admin(name: str, digest: str, days: int = LIFETIME_DAYS) -> CreateToken:
    """Return the command that keeps an administrator's token, which counts in every namespace."""
    return CreateToken(
        EVERYWHERE,
        str(uuid7()),
        TokenKind.USER,
        digest,
        name,
        MAKER,
        role=Role.ADMIN,
        expires_at=Clock().now() + days * DAY,
    )


def run(arguments: list[str], settings: Settings) -> int:
    """Carry out `token NAME`; return the exit code."""
    if len(arguments) != 1:
        click.echo("Usage: muster-server [OPTIONS] token NAME", err=True)
        return 2
    text, digest = mint(TokenKind.USER)
    try:
        asyncio.run(create(settings, admin(arguments[0], digest)))
    except DatabaseInUseError as error:
        hint = "or ask an administrator: muster token create"
        click.echo(f"Error: {error}, {hint}", err=True)
        return 1
    except (OSError, MusterError, UnknownSchemaError) as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    note = f"It may do everything, in every namespace, for {LIFETIME_DAYS} days; shown this once:"
    click.echo(note, err=True)
    click.echo(text)
    return 0
