"""Blocks of logs whose data lies in a blob."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_IN_BLOB = sa.text("blob IS NOT NULL")


def upgrade() -> None:
    """Let a row say where its data lies instead of having it."""
    with op.batch_alter_table("logs") as table:
        table.alter_column("data", existing_type=sa.LargeBinary(), nullable=True)
        table.alter_column("text_bytes", existing_type=sa.Integer(), type_=sa.BigInteger())
        table.add_column(sa.Column("blob", sa.String(128)))
        for name, kind in (("blob_offset", sa.BigInteger()), ("blob_size", sa.Integer())):
            table.add_column(sa.Column(name, kind, nullable=False, server_default="0"))
    with op.batch_alter_table("logs") as table:
        for name in ("blob_offset", "blob_size"):
            table.alter_column(name, server_default=None)
    op.create_index(
        "ix_logs_blob", "logs", ["blob"], sqlite_where=_IN_BLOB, postgresql_where=_IN_BLOB
    )
