"""Priority, a limit on the time before the start, and concurrency groups."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_IN_GROUP = sa.text("group_key IS NOT NULL")


def upgrade() -> None:
    """Add the columns and the table, and put what waits in line as of the default priority."""
    for column in (
        sa.Column("priority", sa.SmallInteger(), nullable=False, server_default="5"),
        sa.Column("schedule_to_start", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("start_by", sa.BigInteger()),
        sa.Column("group_key", sa.String(128)),
        sa.Column("cancels_older", sa.Boolean(), nullable=False, server_default=sa.false()),
    ):
        op.add_column("tasks", column)
    op.execute("UPDATE tasks SET sort_key = sort_key - 3000000 WHERE finished_at IS NULL")
    op.create_index(
        "ix_tasks_group",
        "tasks",
        ["namespace", "group_key", "status", "sort_key", "key"],
        sqlite_where=_IN_GROUP,
        postgresql_where=_IN_GROUP,
    )
    op.create_table(
        "concurrency_groups",
        sa.Column("namespace", sa.String(63), primary_key=True),
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("places", sa.Integer(), nullable=False),
    )
