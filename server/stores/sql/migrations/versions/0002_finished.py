"""An index of ended tasks by the moment they ended, for retention."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ENDED = sa.text("finished_at IS NOT NULL")


def upgrade() -> None:
    """Add the index."""
    op.create_index(
        "ix_tasks_finished",
        "tasks",
        ["finished_at"],
        sqlite_where=_ENDED,
        postgresql_where=_ENDED,
    )
