"""Alembic's entry point; `Store.migrate` runs it with an open connection."""

from __future__ import annotations

from alembic import context

from grpcerrors_router.registry.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="router_version",
)
with context.begin_transaction():
    context.run_migrations()
