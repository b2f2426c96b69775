"""The first schema."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    number = op.create_table(
        "revision",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    # A host refuses a generation lower than one that it has seen. Numbers that begin at the time of
    # creation let a new database take over hosts that an older one has loaded.
    op.bulk_insert(number, [{"id": 1, "number": time.time_ns() // 1_000_000}])
    op.create_table(
        "changes",
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("node", sa.String, primary_key=True),
    )
    op.create_table(
        "nodes",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("backend", sa.String, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("foreign", sa.Boolean, nullable=False),
        sa.Column("draining", sa.Boolean, nullable=False),
        sa.Column("boot_id", sa.String, nullable=False),
        sa.Column("inventory", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.Float, nullable=False),
    )
    op.create_table(
        "boots",
        sa.Column("node", sa.String, primary_key=True),
        sa.Column("boot_id", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("node", sa.String, primary_key=True),
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False, unique=True),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("boot_id", sa.String, nullable=False),
        sa.Column("evicting", sa.Boolean, nullable=False),
        sa.Column("loaded_at", sa.Float, nullable=False),
    )
    op.create_index("replicas_model", "replicas", ["model"])
    op.create_table(
        "loads",
        sa.Column("node", sa.String, primary_key=True),
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("lease_until", sa.Float, nullable=False),
        sa.Column("victim", sa.String, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("retry_at", sa.Float, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("loads_model", "loads", ["model"])
    op.create_table(
        "heals",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("node", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("evidence", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("router", sa.String, nullable=False),
    )
    op.create_table(
        "routers",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("seen_revision", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("router", sa.String, primary_key=True),
        sa.Column("node", sa.String, primary_key=True),
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("generation", sa.BigInteger, primary_key=True),
        sa.Column("in_flight", sa.Integer, nullable=False),
        sa.Column("last_used", sa.Float, nullable=False),
    )


def downgrade() -> None:
    """Drop every table."""
    for table in (
        "leases",
        "routers",
        "heals",
        "loads",
        "replicas",
        "boots",
        "nodes",
        "changes",
        "revision",
    ):
        op.drop_table(table)
