"""What agents measured of their hosts, and the settings that were made for them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for name in ("config", "measured"):
        op.add_column("agents", sa.Column(name, sa.JSON(), nullable=False, server_default="{}"))
