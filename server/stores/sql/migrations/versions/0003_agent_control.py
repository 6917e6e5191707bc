"""Agents that are paused or drained, and tasks that they are asked to give up."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_DUE = sa.text("due_at IS NOT NULL")


def upgrade() -> None:
    """Add the columns, and the index for the timers."""
    op.add_column(
        "agents", sa.Column("scheduling", sa.String(8), nullable=False, server_default="active")
    )
    op.add_column("agents", sa.Column("note", sa.Text(), nullable=False, server_default=""))
    op.add_column("agents", sa.Column("scheduling_since", sa.BigInteger()))
    op.add_column("agents", sa.Column("drain_until", sa.BigInteger()))
    op.add_column("agents", sa.Column("control", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("agents", sa.Column("due_at", sa.BigInteger()))
    op.create_index("ix_agents_due", "agents", ["due_at"], sqlite_where=_DUE, postgresql_where=_DUE)
    op.add_column("tasks", sa.Column("release_requested_at", sa.BigInteger()))
