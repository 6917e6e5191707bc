"""Agents whose attempts keep failing by their fault."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("agents", sa.Column("faults", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("agents", sa.Column("fault", sa.Text(), nullable=False, server_default=""))
    for name in ("faulted_at", "quarantined_at", "quarantined_until"):
        op.add_column("agents", sa.Column(name, sa.BigInteger()))
