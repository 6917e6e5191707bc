"""Since when a task is ready."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of what is ready already, its submission is known."""
    op.add_column("tasks", sa.Column("ready_at", sa.BigInteger()))
    op.execute("UPDATE tasks SET ready_at = created_at WHERE status = 2 AND lease_agent IS NULL")
