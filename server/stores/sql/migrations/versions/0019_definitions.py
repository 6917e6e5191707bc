"""Versions of pipelines; what a run and its jobs need to be judged by; gates between stages."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_BEHIND = sa.text("gate IS NOT NULL")
_IN_GROUP = sa.text("group_key IS NOT NULL AND finished_at IS NULL")


def _add(table: str, *columns: sa.Column[Any]) -> None:
    for column in columns:
        op.add_column(table, column)


def upgrade() -> None:
    """Add columns and tables; each pipeline that came before has one version."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    _add(
        "pipelines",
        sa.Column("version", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("deleted_at", sa.BigInteger()),
    )
    op.create_table(
        "pipeline_versions",
        sa.Column("pipeline_key", key, sa.ForeignKey("pipelines.key"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("namespace", sa.String(63), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
    )
    op.execute(
        "INSERT INTO pipeline_versions"
        " (pipeline_key, number, namespace, definition, source, created_at, created_by)"
        " SELECT key, 1, namespace, definition, '', updated_at, created_by FROM pipelines"
    )
    _add(
        "runs",
        sa.Column("version", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("facts", sa.Text(), nullable=False, server_default=""),
        sa.Column("retry_of", sa.String(128)),
        sa.Column("left_out", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("group_key", sa.String(128)),
        sa.Column("turn", key),
    )
    op.create_index(
        "ix_runs_group",
        "runs",
        ["namespace", "group_key", "key"],
        sqlite_where=_IN_GROUP,
        postgresql_where=_IN_GROUP,
    )
    op.create_table(
        "gates",
        sa.Column("key", key, primary_key=True, autoincrement=False),
        sa.Column("namespace", sa.String(63), nullable=False),
        sa.Column("run_key", key, sa.ForeignKey("runs.key", ondelete="CASCADE"), nullable=False),
        sa.Column("unmet", sa.Integer(), nullable=False),
        sa.Column("spoiled", sa.Text(), nullable=False),
    )
    op.create_index("ix_gates_run", "gates", ["run_key"])
    _add(
        "tasks",
        sa.Column("rules", sa.Text(), nullable=False, server_default=""),
        sa.Column("judged", sa.SmallInteger(), nullable=False, server_default="0"),
        sa.Column("gate", key),
        sa.Column("opens", key),
    )
    op.create_index(
        "ix_tasks_gate", "tasks", ["gate"], sqlite_where=_BEHIND, postgresql_where=_BEHIND
    )
