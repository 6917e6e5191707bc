"""What is to be done with logs once they are closed."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; logs that were closed before have no chores."""
    op.create_table(
        "log_chores",
        sa.Column("kind", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column(
            "task_key",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.ForeignKey("tasks.key", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("attempt", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("batch", sa.String(64)),
    )
    op.create_index("ix_log_chores_due", "log_chores", ["kind", "due"])
    op.create_index("ix_log_chores_batch", "log_chores", ["batch"])
    op.create_index("ix_log_chores_task", "log_chores", ["task_key"])
