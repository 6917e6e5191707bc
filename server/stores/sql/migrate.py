"""Bringing a database's schema up to date, with Alembic inside one transaction.

Alembic is imported only when there is something to do: it takes as long as the rest of a start.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, inspect, select, text

VERSION_TABLE = "muster_schema"
# Servers that start together on one PostgreSQL take turns; any number that nobody else uses.
MIGRATING = 0x6D7573746572


MIGRATIONS = Path(__file__).with_name("migrations")

if TYPE_CHECKING:
    from alembic.config import Config


class UnknownSchemaError(Exception):
    """The database is not ours, or newer than this program; it is left as it is."""


def config() -> "Config":
    """Return Alembic's configuration."""
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS))
    return settings


def revisions() -> list[str]:
    """Return every revision, the newest last; a migration's file begins with its revision."""
    return sorted(path.name.partition("_")[0] for path in MIGRATIONS.glob("versions/[0-9]*.py"))


def migrate(connection: Connection) -> None:
    """Create or upgrade the schema.

    Raises:
        UnknownSchemaError: the database holds something else.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(MIGRATING)))
    refuse_unknown(connection)
    if current_version(connection) == revisions()[-1]:
        return
    from alembic import command

    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")


def refuse_unknown(connection: Connection) -> None:
    """Look whether the database is empty or ours; nothing is written.

    Raises:
        UnknownSchemaError: the database holds something else.
    """
    version = current_version(connection)
    if version is not None and version not in revisions():
        raise UnknownSchemaError(
            f"the database has schema {version!r}, which this program does not know; "
            "use the newer muster-server that wrote it"
        )
    if version is None and (foreign := inspect(connection).get_table_names()):
        raise UnknownSchemaError(
            f"the database holds tables that are not Muster's ({', '.join(sorted(foreign)[:5])}); "
            "choose an empty one"
        )


def current_version(connection: Connection) -> str | None:
    """Return the schema's revision, or None in a database without one."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    query = select(text("version_num")).select_from(text(VERSION_TABLE))
    version: str | None = connection.scalar(query)
    return version
