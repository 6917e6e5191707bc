"""Alembic's entry: run the migrations on the connection that `migrate` hands over."""

from alembic import context

from server.stores.sql.migrate import VERSION_TABLE
from server.stores.sql.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
