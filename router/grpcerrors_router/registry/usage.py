"""Calls in flight, shared among routers: each router leases its own counts and they expire with it.

Written behind the traffic, never in its way.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from grpcerrors_router.entities import RouterRow, Usage
from grpcerrors_router.registry.schema import leases, nodes, replicas, routers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy.engine import Connection


def publish(
    conn: Connection,
    router: str,
    seen_revision: int,
    expires_at: float,
    usage: Iterable[Usage],
    heard: Mapping[str, float],
) -> None:
    """Write a router's changed counts, how far it has followed the registry, and whom it heard."""
    conn.execute(sa.delete(routers).where(routers.c.name == router))
    conn.execute(
        sa.insert(routers).values(name=router, seen_revision=seen_revision, expires_at=expires_at)
    )
    values = [asdict(row) | {"router": router} for row in usage]
    if values:
        insert = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
        upsert = insert(leases)
        conn.execute(
            upsert.on_conflict_do_update(
                index_elements=["router", "node", "model", "generation"],
                set_={
                    "in_flight": upsert.excluded.in_flight,
                    "last_used": upsert.excluded.last_used,
                },
            ),
            values,
        )
    for name, at in heard.items():
        conn.execute(sa.update(nodes).where(nodes.c.name == name).values(last_seen=at))


def retire(conn: Connection, router: str) -> None:
    """Forget a router that stops, with its counts."""
    conn.execute(sa.delete(leases).where(leases.c.router == router))
    conn.execute(sa.delete(routers).where(routers.c.name == router))


def expire(conn: Connection, now: float) -> None:
    """Forget routers whose lease ran out, with their counts; and counts of loads long gone."""
    dead = sa.select(routers.c.name).where(routers.c.expires_at <= now)
    if conn.scalar(sa.select(sa.func.count()).select_from(dead.subquery())):
        conn.execute(sa.delete(routers).where(routers.c.expires_at <= now))
        conn.execute(sa.delete(leases).where(leases.c.router.not_in(sa.select(routers.c.name))))
        loaded = sa.select(replicas.c.generation)
        conn.execute(
            sa.delete(leases).where(leases.c.in_flight == 0, leases.c.generation.not_in(loaded))
        )


def current(conn: Connection, now: float) -> list[Usage]:
    """The counts of all routers that are alive."""
    query = (
        sa.select(leases)
        .join(routers, routers.c.name == leases.c.router)
        .where(routers.c.expires_at > now)
    )
    return [Usage(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001


def alive(conn: Connection, now: float) -> list[RouterRow]:
    """The routers whose lease has not run out."""
    query = sa.select(routers).where(routers.c.expires_at > now).order_by(routers.c.name)
    return [RouterRow(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001
