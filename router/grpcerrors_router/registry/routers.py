"""The routers that share a registry: which are alive, and what each has to say, written behind.

A router that is alive says how far it has followed the registry, once it has nothing in flight on
what was being evicted by then. An eviction waits until every living router has said so
(invariant 10); one that died is waited for no longer than its lease (invariant 9).
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
    """Write that a router is alive; or return the other router of its name that is alive."""
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
    """Forget a router that stops."""
    conn.execute(sa.delete(routers).where(routers.c.name == name, routers.c.session == session))


def alive(conn: Connection, now: float) -> list[RouterRow]:
    """The routers whose lease has not run out."""
    query = sa.select(routers).where(routers.c.expires_at > now).order_by(routers.c.name)
    return [RouterRow(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001


def note_heard(conn: Connection, ages: Mapping[str, float], now: float) -> None:
    """Write when nodes were last heard; `ages` in seconds. One order, so that none deadlock."""
    if ages:
        conn.execute(
            sa.update(nodes)
            .where(nodes.c.name == sa.bindparam("node"), nodes.c.last_seen < sa.bindparam("at"))
            .values(last_seen=sa.bindparam("at")),
            [{"node": name, "at": now - age} for name, age in sorted(ages.items())],
        )


def note_use(conn: Connection, uses: Iterable[Use], now: float) -> None:
    """Write how replicas are used. A transaction of its own: others lock these rows first."""
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
