"""Retention: old rows are deleted, so that no table grows without limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from grpcerrors_router.registry.schema import boots, changes, heals, nodes, revision

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

KEPT_CHANGES = 10_000
"""Revisions that a router may lag behind before it must list everything."""

KEPT_HEALS = 100_000
"""Entries that the heal log keeps at most, whatever their age."""


def prune(conn: Connection, now: float, heal_retention: float) -> None:
    """Delete heals older than `heal_retention` seconds, old changes and old boots."""
    newest = conn.scalar(sa.select(sa.func.max(heals.c.id))) or 0
    conn.execute(
        sa.delete(heals).where(
            sa.or_(heals.c.at < now - heal_retention, heals.c.id <= newest - KEPT_HEALS)
        )
    )
    oldest = (conn.scalar(sa.select(revision.c.number)) or 0) - KEPT_CHANGES
    conn.execute(sa.delete(changes).where(changes.c.revision < oldest))
    current = sa.select(nodes.c.boot_id)
    conn.execute(sa.delete(boots).where(boots.c.revision < oldest, boots.c.boot_id.not_in(current)))
