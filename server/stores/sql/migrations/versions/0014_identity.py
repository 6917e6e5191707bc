"""A name of its own for each database, for the folders that belong to it."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, with the one row it will ever have."""
    table = op.create_table("identity", sa.Column("database_id", sa.String(32), primary_key=True))
    op.bulk_insert(table, [{"database_id": uuid4().hex}])
