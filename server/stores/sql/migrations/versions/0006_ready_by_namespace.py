"""Ready tasks are found by class and namespace, so that namespaces can take turns."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_READY = sa.text("status = 2 AND lease_agent IS NULL")


def upgrade() -> None:
    """Replace the claim's index."""
    op.drop_index("ix_tasks_ready", "tasks")
    op.create_index(
        "ix_tasks_ready",
        "tasks",
        ["class_key", "namespace", "sort_key", "key"],
        sqlite_where=_READY,
        postgresql_where=_READY,
    )
