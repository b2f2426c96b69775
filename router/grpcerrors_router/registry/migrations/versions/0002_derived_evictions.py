"""Derive evictions from jobs, which routers acknowledge; share no counts of calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Drop the state that could outlive a router."""
    op.drop_table("leases")
    op.drop_table("routers")
    _create_routers(sa.Column("session", sa.String, nullable=False))
    op.drop_column("replicas", "evicting")
    for name, kind, default in (
        ("options", sa.String, ""),
        ("in_flight", sa.Integer, "0"),
        ("last_used", sa.Float, "0"),
    ):
        op.add_column("replicas", sa.Column(name, kind, nullable=False, server_default=default))
    op.add_column(
        "loads",
        sa.Column("victim_generation", sa.BigInteger, nullable=False, server_default="0"),
    )
    for name in ("answered", "asked"):
        op.add_column(
            "loads", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())
        )


def downgrade() -> None:
    """Restore the columns; evictions that are running are forgotten."""
    for name in ("asked", "answered", "victim_generation"):
        op.drop_column("loads", name)
    for name in ("last_used", "in_flight", "options"):
        op.drop_column("replicas", name)
    op.add_column(
        "replicas", sa.Column("evicting", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.drop_table("routers")
    _create_routers()
    op.create_table(
        "leases",
        sa.Column("router", sa.String, primary_key=True),
        sa.Column("node", sa.String, primary_key=True),
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("generation", sa.BigInteger, primary_key=True),
        sa.Column("in_flight", sa.Integer, nullable=False),
        sa.Column("last_used", sa.Float, nullable=False),
    )


def _create_routers(*more: sa.Column[str]) -> None:
    op.create_table(
        "routers",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("seen_revision", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        *more,
    )
