"""What an agent's enrolment says of it: locked labels, and whether its namespace confines it."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; agents that came before are as free as they were."""
    op.add_column("agents", sa.Column("locked", sa.JSON(), nullable=False, server_default="{}"))
    confined: sa.Column[bool] = sa.Column(
        "confined", sa.Boolean(), nullable=False, server_default=sa.false()
    )
    op.add_column("agents", confined)
