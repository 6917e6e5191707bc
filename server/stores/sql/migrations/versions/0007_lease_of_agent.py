"""Each agent's own time between heartbeats: a large fleet speaks less often."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; agents of before have the usual lease."""
    op.add_column(
        "agents", sa.Column("lease", sa.BigInteger(), nullable=False, server_default="30000")
    )
