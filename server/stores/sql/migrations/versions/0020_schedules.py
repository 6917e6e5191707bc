"""Schedules, and the times of theirs that have come."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_DUE = sa.text("due_at IS NOT NULL")
_ACTIVE = sa.text("schedule_key IS NOT NULL AND finished_at IS NULL")


def upgrade() -> None:
    """Add the tables, and whose a run is."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "schedules",
        sa.Column("key", key, primary_key=True, autoincrement=False),
        sa.Column("namespace", sa.String(63), nullable=False),
        sa.Column("public_id", sa.String(128), nullable=False, unique=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("pipeline_key", key, sa.ForeignKey("pipelines.key"), nullable=False),
        sa.Column("pipeline_id", sa.String(128), nullable=False),
        sa.Column("owner", sa.String(8), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("jitter", sa.Integer(), nullable=False),
        sa.Column("starts_at", sa.BigInteger()),
        sa.Column("ends_at", sa.BigInteger()),
        sa.Column("catch_up", sa.String(8), nullable=False),
        sa.Column("catch_up_window", sa.Integer(), nullable=False),
        sa.Column("catch_up_limit", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.String(16), nullable=False),
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("next_at", sa.BigInteger()),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("pending_at", sa.BigInteger()),
        sa.Column("last_at", sa.BigInteger()),
        sa.Column("paused_at", sa.BigInteger()),
        sa.Column("note", sa.Text(), nullable=False),
        sa.UniqueConstraint("namespace", "name"),
    )
    op.create_index(
        "ix_schedules_due", "schedules", ["due_at"], sqlite_where=_DUE, postgresql_where=_DUE
    )
    op.create_index("ix_schedules_pipeline", "schedules", ["pipeline_key"])
    op.create_table(
        "schedule_fires",
        sa.Column(
            "schedule_key",
            key,
            sa.ForeignKey("schedules.key", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("at", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("namespace", sa.String(63), nullable=False),
        sa.Column("struck_at", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(128)),
        sa.Column("outcome", sa.Text(), nullable=False),
    )
    op.create_index("ix_schedule_fires_struck", "schedule_fires", ["struck_at"])
    op.add_column("runs", sa.Column("schedule_key", key))
    op.create_index(
        "ix_runs_schedule", "runs", ["schedule_key"], sqlite_where=_ACTIVE, postgresql_where=_ACTIVE
    )
