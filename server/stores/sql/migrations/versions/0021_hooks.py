"""Webhooks, and what they have delivered."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_DUE = sa.text("due_at IS NOT NULL")
_NAMED = sa.text("forge_id <> ''")
_ALIKE = sa.text("digest <> ''")


def upgrade() -> None:
    """Add the tables."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "hooks",
        sa.Column("key", key, primary_key=True, autoincrement=False),
        sa.Column("namespace", sa.String(63), nullable=False),
        sa.Column("public_id", sa.String(128), nullable=False, unique=True),
        sa.Column("pipeline_key", key, sa.ForeignKey("pipelines.key"), nullable=False),
        sa.Column("pipeline_id", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("secret", sa.String(128), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("previous_secret", sa.String(128), nullable=False),
        sa.Column("header", sa.String(64), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.UniqueConstraint("pipeline_key", "kind", "header"),
    )
    op.create_table(
        "deliveries",
        sa.Column("key", key, primary_key=True, autoincrement=False),
        sa.Column("namespace", sa.String(63), nullable=False),
        sa.Column("public_id", sa.String(128), nullable=False, unique=True),
        sa.Column("hook_key", key, sa.ForeignKey("hooks.key", ondelete="CASCADE"), nullable=False),
        sa.Column("pipeline_id", sa.String(128), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("forge_id", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("event", sa.String(128), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary()),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("run_ids", sa.JSON(), nullable=False),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("redelivers", sa.String(128)),
    )
    op.create_index(
        "ix_deliveries_due", "deliveries", ["due_at"], sqlite_where=_DUE, postgresql_where=_DUE
    )
    op.create_index(
        "ix_deliveries_named",
        "deliveries",
        ["hook_key", "forge_id"],
        unique=True,
        sqlite_where=_NAMED,
        postgresql_where=_NAMED,
    )
    op.create_index(
        "ix_deliveries_alike",
        "deliveries",
        ["hook_key", "digest"],
        sqlite_where=_ALIKE,
        postgresql_where=_ALIKE,
    )
    op.create_index("ix_deliveries_pipeline", "deliveries", ["namespace", "pipeline_id", "key"])
