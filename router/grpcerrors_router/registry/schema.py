"""The registry's tables, for queries. The migrations create them.

Every change of routing state runs in a transaction that first increments `revision`, which
serializes the writers. Revisions are totally ordered, the generation of a load is the revision that
claimed it, and a watcher that has seen revision n needs only the `changes` above n.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
)

metadata = MetaData()

revision = Table(
    "revision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("revision", BigInteger, primary_key=True),
    Column("node", String, primary_key=True),
)

nodes = Table(
    "nodes",
    metadata,
    Column("name", String, primary_key=True),
    Column("address", String, nullable=False),
    Column("backend", String, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("foreign", Boolean, nullable=False),
    Column("draining", Boolean, nullable=False),
    Column("boot_id", String, nullable=False),
    Column("inventory", BigInteger, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("tls", Boolean, nullable=False, server_default=false()),
    Column("token", String, nullable=False, server_default=""),
    Column("registered_by", String, nullable=False, server_default=""),
)

boots = Table(
    "boots",
    metadata,
    Column("node", String, primary_key=True),
    Column("boot_id", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("node", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("generation", BigInteger, nullable=False, unique=True),
    Column("held", BigInteger, nullable=False),
    Column("boot_id", String, nullable=False),
    Column("loaded_at", Float, nullable=False),
    Column("options", String, nullable=False, server_default=""),
    Column("in_flight", Integer, nullable=False, server_default="0"),
    Column("last_used", Float, nullable=False, server_default="0"),
    Index("replicas_model", "model"),
)

loads = Table(
    "loads",
    metadata,
    Column("node", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("owner", String, nullable=False),
    Column("state", String, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("lease_until", Float, nullable=False),
    Column("victim", String, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("retry_at", Float, nullable=False),
    Column("message", Text, nullable=False),
    Column("victim_generation", BigInteger, nullable=False, server_default="0"),
    Column("answered", Boolean, nullable=False, server_default=false()),
    Column("asked", Boolean, nullable=False, server_default=false()),
    Index("loads_model", "model"),
)

heals = Table(
    "heals",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("node", String, nullable=False),
    Column("model", String, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("evidence", String, nullable=False),
    Column("action", String, nullable=False),
    Column("router", String, nullable=False),
)

routers = Table(
    "routers",
    metadata,
    Column("name", String, primary_key=True),
    Column("seen_revision", BigInteger, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("session", String, nullable=False),
)
