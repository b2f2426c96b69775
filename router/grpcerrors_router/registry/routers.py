"""The routers that share a registry: their leases, acknowledgements and reports.

A live router acknowledges a revision when it has no calls in flight on replicas whose eviction had
begun by then. An eviction waits for every live router (invariant 10), and for a dead one no longer
than its lease (invariant 9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from grpcerrors_router.entities import RouterRow
from grpcerrors_router.registry.schema import nodes, replicas, routers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy.engine import Connection

    from grpcerrors_router.entities import Use


def sign_in(conn: Connection, me: RouterRow, now: float) -> RouterRow | None:
    """Renew a router's lease, or return the other live router that has its name."""
    conn.execute(sa.delete(routers).where(routers.c.expires_at <= now))
    written = conn.execute(
        sa.update(routers)
        .where(routers.c.name == me.name, routers.c.session == me.session)
        .values(seen_revision=me.seen_revision, expires_at=me.expires_at)
    )
    if written.rowcount:
        return None
    other = conn.execute(sa.select(routers).where(routers.c.name == me.name)).one_or_none()
    if other is not None:
        return RouterRow(**other._mapping)  # noqa: SLF001
    conn.execute(
        sa.insert(routers).values(
            name=me.name,
            seen_revision=me.seen_revision,
            expires_at=me.expires_at,
            session=me.session,
        )
    )
    return None


def sign_out(conn: Connection, name: str, session: str) -> None:
    """Remove a router that is stopping."""
    conn.execute(sa.delete(routers).where(routers.c.name == name, routers.c.session == session))


def alive(conn: Connection, now: float) -> list[RouterRow]:
    """Return the routers whose lease has not expired."""
    query = sa.select(routers).where(routers.c.expires_at > now).order_by(routers.c.name)
    return [RouterRow(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001


def note_heard(conn: Connection, ages: Mapping[str, float], now: float) -> None:
    """Store when nodes were last heard; `ages` in seconds. Sorted, to avoid deadlocks."""
    if ages:
        conn.execute(
            sa.update(nodes)
            .where(nodes.c.name == sa.bindparam("node"), nodes.c.last_seen < sa.bindparam("at"))
            .values(last_seen=sa.bindparam("at")),
            [{"node": name, "at": now - age} for name, age in sorted(ages.items())],
        )


def note_use(conn: Connection, uses: Iterable[Use], now: float) -> None:
    """Store how replicas are used. It must run in a transaction of its own, to avoid deadlocks."""
    values = [
        {"load": use.generation, "calls": use.in_flight, "at": now - use.idle}
        for use in sorted(uses, key=lambda use: use.generation)
    ]
    if values:
        conn.execute(
            sa.update(replicas)
            .where(replicas.c.generation == sa.bindparam("load"))
            .values(in_flight=sa.bindparam("calls"), last_used=sa.bindparam("at")),
            values,
        )
