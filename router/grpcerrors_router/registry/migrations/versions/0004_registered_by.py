"""Record with which token a node registered, so that no other one takes its name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Take the nodes that are known for nodes that registered without a token."""
    column = sa.Column("registered_by", sa.String, nullable=False, server_default="")
    op.add_column("nodes", column)


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("nodes", "registered_by")
