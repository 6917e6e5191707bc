"""How many jobs of a run are running, and in which stage; an index of active runs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ACTIVE = sa.text("finished_at IS NULL")


def upgrade() -> None:
    """Add the columns, filled from the tasks there are, and the index."""
    for name in ("running", "stage"):
        op.add_column("runs", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE runs SET"
        " running = (SELECT count(*) FROM tasks WHERE run_key = runs.key AND status = 3),"
        " stage = (SELECT coalesce(max(tasks.stage), 0) FROM tasks"
        " JOIN attempts ON attempts.task_key = tasks.key"
        " WHERE run_key = runs.key AND attempts.started_at IS NOT NULL)"
    )
    op.create_index(
        "ix_runs_active", "runs", ["key"], sqlite_where=_ACTIVE, postgresql_where=_ACTIVE
    )
