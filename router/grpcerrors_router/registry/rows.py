"""Queries that read the registry's tables into entities."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import sqlalchemy as sa

from grpcerrors_router.entities import Heal, Load, Node, NodeView, Replica, Snapshot, Vitals
from grpcerrors_router.registry import routers
from grpcerrors_router.registry.schema import changes, heals, loads, nodes, replicas, revision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.engine import Connection


def current(conn: Connection) -> int:
    """Return the latest revision."""
    return int(conn.scalar(sa.select(revision.c.number)) or 0)


def view(conn: Connection, at: int, now: float, names: Iterable[str]) -> tuple[NodeView, ...]:
    """Return some nodes with their replicas and jobs, as of revision `at` and time `now`."""
    names = list(names)
    return _views(conn, at, now, names, lambda column: column.in_(names)) if names else ()


def snapshot(conn: Connection, now: float) -> Snapshot:
    """Return all nodes, as of one revision."""
    at = current(conn)
    return Snapshot(at, _views(conn, at, now, None, lambda _: sa.true()), now)


def _views(
    conn: Connection,
    at: int,
    now: float,
    names: Iterable[str] | None,
    where: Callable[[sa.Column[str]], sa.ColumnElement[bool]],
) -> tuple[NodeView, ...]:
    found = {
        row.name: Node(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented spelling
        for row in conn.execute(sa.select(nodes).where(where(nodes.c.name)))
    }
    held: dict[str, list[Replica]] = defaultdict(list)
    for row in conn.execute(sa.select(replicas).where(where(replicas.c.node))):
        held[row.node].append(Replica(**row._mapping))  # noqa: SLF001
    jobs: dict[str, list[Load]] = defaultdict(list)
    for row in conn.execute(sa.select(loads).where(where(loads.c.node))):
        jobs[row.node].append(Load(**row._mapping))  # noqa: SLF001
    return tuple(
        NodeView(at, name, found.get(name), tuple(held[name]), tuple(jobs[name]), now)
        for name in (names if names is not None else found)
    )


def since(conn: Connection, seen: int, now: float) -> Snapshot | None:
    """Return the nodes that changed after revision `seen`; None if those changes are pruned."""
    at = current(conn)
    if at == seen:
        return Snapshot(at, (), now)
    oldest = conn.scalar(sa.select(sa.func.min(changes.c.revision)))
    if seen == 0 or at < seen or oldest is None or oldest > seen + 1:
        return None
    touched = conn.scalars(
        sa.select(changes.c.node).where(changes.c.revision > seen).distinct()
    ).all()
    return Snapshot(at, view(conn, at, now, touched), now)


def latest_heals(conn: Connection, limit: int, model: str = "", node: str = "") -> list[Heal]:
    """Return the latest entries of the heal log, newest first: all, or those of a model or node."""
    columns = [column for column in heals.c if column is not heals.c.id]
    query = sa.select(*columns).order_by(heals.c.id.desc()).limit(limit)
    if model:
        query = query.where(heals.c.model == model)
    if node:
        query = query.where(heals.c.node == node)
    return [Heal(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001


RECENT = 60.0
"""Seconds for which the use of an idle replica is news; there may be very many."""


def vitals(conn: Connection, now: float, limit: int) -> Vitals:
    """Return what changes without a new revision, with the latest `limit` heals."""
    seen = sa.select(nodes.c.name, nodes.c.last_seen)
    uses = sa.select(replicas.c.generation, replicas.c.in_flight, replicas.c.last_used).where(
        (replicas.c.in_flight > 0) | (replicas.c.last_used > now - RECENT)
    )
    return Vitals(
        now,
        tuple(routers.alive(conn, now)),
        tuple(latest_heals(conn, limit)),
        {row.name: row.last_seen for row in conn.execute(seen)},
        {generation: (calls, at) for generation, calls, at in conn.execute(uses)},
    )
