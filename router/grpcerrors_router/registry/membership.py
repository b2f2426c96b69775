"""What a node reports: registration, restarts and inventories (invariants 14 and 15).

Each function runs in a write transaction.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import sqlalchemy as sa

from grpcerrors_router.entities import Correction, Heal, Heartbeat, Held, Load, Node, Replica
from grpcerrors_router.errors import NameTaken
from grpcerrors_router.registry.schema import boots, heals, loads, nodes, replicas

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.engine import Connection

_CHUNK = 500  # values in one IN list


def apply(
    conn: Connection, beat: Heartbeat, revision: int, now: float, router: str, alive_for: float
) -> Correction:
    """Apply a heartbeat to the registry.

    A name belongs to one live process: a new one at another address, or with another token, is
    refused while the process that has the name was heard within `alive_for` seconds. A node that
    was added by hand is not silent because it sends no heartbeats, so it is refused in any case
    unless `alive_for` is 0. A process may change its own address and token.

    A heartbeat that was overtaken changes nothing: its boot has been replaced at the same address,
    or its inventory is older than the newest one seen.

    Raises:
        NameTaken: another live process has the name.
    """
    known = conn.execute(sa.select(nodes).where(nodes.c.name == beat.node)).one_or_none()
    node = Node(**known._mapping) if known is not None else None  # noqa: SLF001
    restarted: tuple[Replica, ...] = ()
    if node is None or node.boot_id != beat.boot_id:
        moved = node is not None and node.address != beat.address
        stranger = node is not None and _is_stranger(node, beat)
        if node is not None and (moved or stranger) and _is_alive(node, now, alive_for):
            refused = beat.address if moved else f"{beat.address} with another token"
            raise NameTaken("node", beat.node, node.address, refused)
        if not moved and _is_past(conn, beat):
            return Correction()
        _note_boot(conn, beat, revision)
        if node is not None:
            restarted = tuple(_rows(conn, beat.node))
            conn.execute(sa.delete(replicas).where(replicas.c.node == beat.node))
            conn.execute(sa.delete(loads).where(loads.c.node == beat.node))
    elif beat.inventory_version < node.inventory:
        return Correction()
    _register(conn, beat, node, now)
    return Correction(_reconcile(conn, beat, revision, now, router), restarted)


def _is_stranger(node: Node, beat: Heartbeat) -> bool:
    """Return whether a heartbeat has another token than the one that registered the node."""
    owner = node.registered_by
    return bool(owner and beat.registered_by) and owner != beat.registered_by


def _is_alive(node: Node, now: float, alive_for: float) -> bool:
    return alive_for > 0 and (node.foreign or now - node.last_seen < alive_for)


def _is_past(conn: Connection, beat: Heartbeat) -> bool:
    seen = sa.select(boots.c.boot_id).where(*_boot(beat))
    return conn.scalar(seen) is not None


def _note_boot(conn: Connection, beat: Heartbeat, revision: int) -> None:
    conn.execute(sa.delete(boots).where(*_boot(beat)))
    conn.execute(sa.insert(boots).values(node=beat.node, boot_id=beat.boot_id, revision=revision))


def _boot(beat: Heartbeat) -> tuple[sa.ColumnElement[bool], ...]:
    return boots.c.node == beat.node, boots.c.boot_id == beat.boot_id


def _register(conn: Connection, beat: Heartbeat, node: Node | None, now: float) -> None:
    values = {
        "address": beat.address,
        "backend": beat.backend,
        "slots": beat.slots,
        "foreign": False,
        "tls": beat.tls,
        "registered_by": beat.registered_by,
        "token": "",  # whoever registers an address must not get the token of another node
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
) -> tuple[Heal, ...]:
    """Drop what the node does not hold, adopt what the registry did not know; return the heals.

    A replica that a job is evicting is dropped without a heal, since a router asked for it.
    """
    held = {model.model: model for model in beat.models}
    gone: list[Replica] = []
    for row in _rows(conn, beat.node):
        model = held.get(row.model)
        if model is not None and model.generation in (0, row.held):
            del held[row.model]
        else:
            gone.append(row)
    jobs = [
        Load(**row._mapping)  # noqa: SLF001
        for row in conn.execute(
            sa.select(loads).where(loads.c.node == beat.node, loads.c.state == "running")
        )
    ]
    evicted = {(job.victim, job.victim_generation) for job in jobs}
    found = tuple(
        Heal(now, row.node, row.model, row.generation, "heartbeat", "dropped", router)
        for row in gone
        if (row.model, row.generation) not in evicted
    )
    for some in _chunks([row.generation for row in gone]):
        conn.execute(sa.delete(replicas).where(replicas.c.generation.in_(some)))
    log(conn, found)
    running = {job.model for job in jobs if job.running(now) and job.victim != job.model}
    unknown = [model for name, model in sorted(held.items()) if name not in running]
    _adopt(conn, beat, unknown, revision, now)
    return found


def _adopt(
    conn: Connection, beat: Heartbeat, models: Sequence[Held], revision: int, now: float
) -> None:
    for some in _chunks([model.model for model in models]):
        conn.execute(sa.delete(loads).where(loads.c.node == beat.node, loads.c.model.in_(some)))
    # The caller has reserved one revision for each model in the heartbeat.
    rows = [
        asdict(
            Replica(
                beat.node,
                model.model,
                revision - offset,
                held=model.generation,
                boot_id=beat.boot_id,
                loaded_at=now,
                last_used=now,
            )
        )
        for offset, model in enumerate(models)
    ]
    if rows:
        conn.execute(sa.insert(replicas), rows)


def leave(conn: Connection, name: str, boot_id: str, revision: int, registered_by: str) -> bool:
    """Remove a node that is stopping, if that boot is the current one, and its token registered it.

    The boot is kept, so that a late heartbeat does not bring the node back.
    """
    where = [nodes.c.name == name, nodes.c.boot_id == boot_id, sa.not_(nodes.c.foreign)]
    if registered_by:
        where.append(nodes.c.registered_by.in_(["", registered_by]))
    if not boot_id or conn.scalar(sa.select(nodes.c.name).where(*where)) is None:
        return False
    remove(conn, name)
    conn.execute(sa.insert(boots).values(node=name, boot_id=boot_id, revision=revision))
    return True


def remove(conn: Connection, name: str) -> bool:
    """Remove a node and its rows. Its next heartbeat registers it again."""
    if not conn.execute(sa.delete(nodes).where(nodes.c.name == name)).rowcount:
        return False
    for table in (replicas, loads, boots):
        conn.execute(sa.delete(table).where(table.c.node == name))
    return True


def silent(conn: Connection, before: float) -> list[str]:
    """Return the nodes that registered themselves and were last heard before that time."""
    query = sa.select(nodes.c.name).where(nodes.c.last_seen < before, sa.not_(nodes.c.foreign))
    return list(conn.scalars(query.order_by(nodes.c.name)))


def log(conn: Connection, found: Iterable[Heal]) -> None:
    """Append entries to the heal log."""
    rows = [asdict(heal) for heal in found]
    if rows:
        conn.execute(sa.insert(heals), rows)


def _rows(conn: Connection, node: str) -> list[Replica]:
    rows = conn.execute(sa.select(replicas).where(replicas.c.node == node))
    return [Replica(**row._mapping) for row in rows]  # noqa: SLF001


def _chunks(values: list[int] | list[str]) -> Iterable[list[int] | list[str]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))
