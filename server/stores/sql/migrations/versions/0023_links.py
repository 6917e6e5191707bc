"""Which pipelines start when another's run has ended."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "pipeline_links",
        sa.Column("pipeline_key", key, sa.ForeignKey("pipelines.key"), primary_key=True),
        sa.Column("after_name", sa.String(256), primary_key=True),
        sa.Column("namespace", sa.String(63), nullable=False),
    )
    op.create_index("ix_pipeline_links_after", "pipeline_links", ["namespace", "after_name"])
