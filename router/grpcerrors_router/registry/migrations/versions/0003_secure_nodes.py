"""Record how to connect to a node: over TLS or not, and with which token."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Take the nodes that are known for nodes in plain text, without a token of their own."""
    op.add_column("nodes", sa.Column("tls", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("nodes", sa.Column("token", sa.String, nullable=False, server_default=""))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("nodes", "token")
    op.drop_column("nodes", "tls")
