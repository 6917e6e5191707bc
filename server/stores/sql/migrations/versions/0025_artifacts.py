"""Artifacts: files that tasks leave behind, and files that others hand in."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_DUE = sa.text("due_at IS NOT NULL")


def upgrade() -> None:
    """Add the table."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "artifacts",
        sa.Column("key", key, primary_key=True, autoincrement=False),
        sa.Column("namespace", sa.String(63), nullable=False),
        sa.Column("public_id", sa.String(128), nullable=False, unique=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.Column("part_size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("task_id", sa.String(128), nullable=False),
        sa.Column("task_name", sa.Text(), nullable=False),
        sa.Column("run_id", sa.String(128), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_id", sa.String(256), nullable=False),
        sa.Column("grant_id", sa.String(128), nullable=False),
        sa.Column("handed_in_by", sa.String(128), nullable=False),
        sa.Column("upload", sa.Text(), nullable=False),
        sa.Column("stored_at", sa.BigInteger()),
        sa.Column("expire_at", sa.BigInteger()),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("deleted", sa.Boolean(), nullable=False),
    )
    op.create_index("ix_artifacts_task", "artifacts", ["task_id", "attempt"])
    op.create_index("ix_artifacts_run", "artifacts", ["run_id"])
    op.create_index("ix_artifacts_grant", "artifacts", ["grant_id"])
    op.create_index("ix_artifacts_namespace", "artifacts", ["namespace", "key"])
    op.create_index(
        "ix_artifacts_due", "artifacts", ["due_at"], sqlite_where=_DUE, postgresql_where=_DUE
    )
