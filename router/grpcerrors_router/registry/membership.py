"""What nodes say about themselves: registration, restarts, inventories (invariants 14 and 15).

Each function runs inside one changing transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from grpcerrors_router.entities import Heal, Heartbeat, Held, Node, Replica
from grpcerrors_router.registry.schema import boots, heals, leases, loads, nodes, replicas

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def apply(conn: Connection, beat: Heartbeat, revision: int, now: float, router: str) -> list[Heal]:
    """Bring the registry in line with a heartbeat; the rows that it disproved.

    A boot that was replaced once is never believed again, and an inventory older than the newest
    one seen says nothing about what is loaded: such a heartbeat was overtaken by later news.
    """
    known = conn.execute(sa.select(nodes).where(nodes.c.name == beat.node)).one_or_none()
    node = Node(**known._mapping) if known is not None else None  # noqa: SLF001
    dropped: list[Heal] = []
    if node is None or node.boot_id != beat.boot_id:
        if _is_past(conn, beat):
            return []
        conn.execute(
            sa.insert(boots).values(node=beat.node, boot_id=beat.boot_id, revision=revision)
        )
        if node is not None:
            dropped += [_drop(conn, row, "boot", now, router) for row in _rows(conn, beat.node)]
            conn.execute(sa.delete(loads).where(loads.c.node == beat.node))
    elif beat.inventory_version < node.inventory:
        return []
    _register(conn, beat, node, now)
    dropped += _reconcile(conn, beat, revision, now, router)
    return dropped


def _is_past(conn: Connection, beat: Heartbeat) -> bool:
    seen = sa.select(boots.c.boot_id).where(
        boots.c.node == beat.node, boots.c.boot_id == beat.boot_id
    )
    return conn.scalar(seen) is not None


def _register(conn: Connection, beat: Heartbeat, node: Node | None, now: float) -> None:
    values = {
        "address": beat.address,
        "backend": beat.backend,
        "slots": beat.slots,
        "foreign": False,
        "boot_id": beat.boot_id,
        "inventory": beat.inventory_version,
        "last_seen": now,
    }
    if node is None:
        conn.execute(sa.insert(nodes).values(name=beat.node, draining=False, **values))
    else:
        conn.execute(sa.update(nodes).where(nodes.c.name == beat.node).values(**values))


def _reconcile(
    conn: Connection, beat: Heartbeat, revision: int, now: float, router: str
) -> list[Heal]:
    """Drop what the node does not hold, adopt what the registry did not know."""
    held = {model.model: model for model in beat.models}
    dropped = []
    for row in _rows(conn, beat.node):
        model = held.get(row.model)
        if model is not None and model.generation in (0, row.held):
            del held[row.model]
        else:
            dropped.append(_drop(conn, row, "heartbeat", now, router))
    running = set(
        conn.scalars(
            sa.select(loads.c.model).where(
                loads.c.node == beat.node, loads.c.state == "running", loads.c.lease_until > now
            )
        )
    )
    unknown = [model for name, model in sorted(held.items()) if name not in running]
    # The caller has taken one revision per model that the heartbeat lists.
    for offset, model in enumerate(unknown):
        _adopt(conn, beat, model, revision - offset, now)
    return dropped


def _adopt(conn: Connection, beat: Heartbeat, held: Held, generation: int, now: float) -> None:
    conn.execute(sa.delete(loads).where(loads.c.node == beat.node, loads.c.model == held.model))
    conn.execute(
        sa.insert(replicas).values(
            node=beat.node,
            model=held.model,
            generation=generation,
            held=held.generation,
            boot_id=beat.boot_id,
            evicting=False,
            loaded_at=now,
        )
    )


def remove(conn: Connection, name: str, boot_id: str | None = None) -> bool:
    """Forget a node and all that it held; with `boot_id`, only if that boot is the current one."""
    where = [nodes.c.name == name]
    if boot_id is not None:
        where.append(nodes.c.boot_id == boot_id)
    if not conn.execute(sa.delete(nodes).where(*where)).rowcount:
        return False
    for table in (replicas, loads, leases, boots):
        conn.execute(sa.delete(table).where(table.c.node == name))
    return True


def log(conn: Connection, heal: Heal) -> None:
    """Write a line of the heal log."""
    conn.execute(
        sa.insert(heals).values(
            at=heal.at,
            node=heal.node,
            model=heal.model,
            generation=heal.generation,
            evidence=heal.evidence,
            action=heal.action,
            router=heal.router,
        )
    )


def _rows(conn: Connection, node: str) -> list[Replica]:
    rows = conn.execute(sa.select(replicas).where(replicas.c.node == node))
    return [Replica(**row._mapping) for row in rows]  # noqa: SLF001


def _drop(conn: Connection, row: Replica, evidence: str, now: float, router: str) -> Heal:
    conn.execute(sa.delete(replicas).where(replicas.c.generation == row.generation))
    heal = Heal(now, row.node, row.model, row.generation, evidence, "dropped", router)
    log(conn, heal)
    return heal
