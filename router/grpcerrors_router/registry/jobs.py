"""Load jobs: at most one per (node, model) over all routers, fenced by the generation they claimed.

Each function runs inside one changing transaction; `Store.bump` has put it after all others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

import sqlalchemy as sa

from grpcerrors_router.entities import Load
from grpcerrors_router.registry.schema import loads, nodes, replicas

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.engine import Connection


class Refusal(Enum):
    """Why a load was not granted."""

    ENOUGH = "the wanted replicas are there or being loaded"
    FULL = "the node has no free slot, or the replica to evict is gone"
    BACKOFF = "the last load of the model there failed a moment ago"


@dataclass(frozen=True, slots=True)
class Wish:
    """A load that a router would like to start.

    `victim` is the replica, with its generation, to be evicted for it. Replicas and loads on
    `unreachable` nodes do not count towards `wanted`.
    """

    node: str
    model: str
    owner: str
    wanted: int
    lease: float
    victim: str = ""
    victim_generation: int = 0
    unreachable: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a load ended.

    `message` is empty on success. `freed` says that the victim is no longer on the node.
    `retry_after` is the backoff after a failure, 0 when there is none to hold against the node.
    """

    message: str = ""
    boot_id: str = ""
    inventory: int = 0
    freed: bool = False
    retry_after: float = 0.0


def claim(conn: Connection, wish: Wish, generation: int, now: float) -> Load | Refusal:
    """Grant the load, or say why not."""
    _take_over_expired(conn, wish.node, now)
    running = (loads.c.state == "running") & (loads.c.lease_until > now)
    silent = list(wish.unreachable)
    there = _count(
        conn,
        replicas,
        replicas.c.model == wish.model,
        sa.not_(replicas.c.evicting),
        replicas.c.node.not_in(silent),
    )
    coming = _count(conn, loads, loads.c.model == wish.model, running, loads.c.node.not_in(silent))
    here = _count(conn, replicas, *_at(replicas, wish.node, wish.model))
    if here or there + coming >= wish.wanted:
        return Refusal.ENOUGH
    job = conn.execute(sa.select(loads).where(*_at(loads, wish.node, wish.model))).one_or_none()
    if job is not None and job.state == "running":
        return Refusal.ENOUGH
    if job is not None and job.retry_at > now:
        return Refusal.BACKOFF
    slots = conn.scalar(sa.select(nodes.c.slots).where(nodes.c.name == wish.node))
    used = _count(conn, replicas, replicas.c.node == wish.node) + _count(
        conn, loads, loads.c.node == wish.node, running
    )
    if slots is None or used - bool(wish.victim) >= slots:
        return Refusal.FULL
    if wish.victim and not _mark(conn, wish.node, wish.victim, wish.victim_generation):
        return Refusal.FULL
    failures = job.failures if job is not None else 0
    return _begin(conn, wish.node, wish.model, generation, wish, now, failures)


def claim_unload(conn: Connection, wish: Wish, generation: int, now: float) -> Load | None:
    """Grant the eviction of `wish.victim` for its own sake: a job whose victim is its model.

    None when that generation is gone, or somebody evicts it already.
    """
    _take_over_expired(conn, wish.node, now)
    if not _mark(conn, wish.node, wish.victim, wish.victim_generation):
        return None
    return _begin(conn, wish.node, wish.victim, generation, wish, now, 0)


def _begin(
    conn: Connection, node: str, model: str, generation: int, wish: Wish, now: float, failures: int
) -> Load:
    until = now + wish.lease
    load = Load(node, model, generation, wish.owner, "running", now, until, wish.victim, failures)
    conn.execute(sa.delete(loads).where(*_at(loads, node, model)))
    conn.execute(sa.insert(loads).values(**asdict(load)))
    return load


def renew(conn: Connection, load: Load, until: float) -> bool:
    """Hold the lease on; False when the job is no longer this owner's."""
    return bool(
        conn.execute(sa.update(loads).where(*_mine(load)).values(lease_until=until)).rowcount
    )


def finish(conn: Connection, load: Load, outcome: Outcome, now: float) -> bool:
    """End the job and publish the replica; False, and nothing changed, when the token is stale."""
    if not conn.execute(sa.delete(loads).where(*_mine(load))).rowcount:
        return False
    boot = conn.scalar(sa.select(nodes.c.boot_id).where(nodes.c.name == load.node))
    message = outcome.message
    if not message and boot is None:
        message = "the node was removed during the load"
    elif not message and boot and outcome.boot_id and boot != outcome.boot_id:
        message = "the node restarted during the load"
    if load.victim:
        _settle_victim(conn, load, gone=outcome.freed)
    if message:
        if outcome.retry_after > 0:
            failed = replace(
                load,
                state="failed",
                victim="",
                failures=load.failures + 1,
                retry_at=now + outcome.retry_after,
                message=message,
            )
            conn.execute(sa.insert(loads).values(**asdict(failed)))
        return True
    conn.execute(sa.delete(replicas).where(*_at(replicas, load.node, load.model)))
    conn.execute(
        sa.insert(replicas).values(
            node=load.node,
            model=load.model,
            generation=load.generation,
            held=load.generation,
            boot_id=outcome.boot_id or boot,
            evicting=False,
            loaded_at=now,
        )
    )
    note_inventory(conn, load.node, outcome.inventory)
    return True


def note_inventory(conn: Connection, node: str, inventory: int) -> None:
    """Remember the newest inventory counter that the node has told."""
    conn.execute(
        sa.update(nodes)
        .where(nodes.c.name == node, nodes.c.inventory < inventory)
        .values(inventory=inventory)
    )


def _mark(conn: Connection, node: str, model: str, generation: int) -> bool:
    marked = conn.execute(
        sa.update(replicas)
        .where(
            *_at(replicas, node, model),
            replicas.c.generation == generation,
            sa.not_(replicas.c.evicting),
        )
        .values(evicting=True)
    )
    return bool(marked.rowcount)


def _settle_victim(conn: Connection, load: Load, *, gone: bool) -> None:
    where = (*_at(replicas, load.node, load.victim), replicas.c.evicting)
    if gone:
        conn.execute(sa.delete(replicas).where(*where))
    else:
        conn.execute(sa.update(replicas).where(*where).values(evicting=False))


def _take_over_expired(conn: Connection, node: str, now: float) -> None:
    """Clear away what routers that died in a load have left on the node."""
    expired = (loads.c.node == node, loads.c.state == "running", loads.c.lease_until <= now)
    for job in conn.execute(sa.select(loads).where(*expired)).all():
        if job.victim:
            spared = _at(replicas, node, job.victim)
            conn.execute(sa.update(replicas).where(*spared).values(evicting=False))
    conn.execute(sa.delete(loads).where(*expired))


def _at(table: sa.Table, node: str, model: str) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.node == node, table.c.model == model


def _mine(load: Load) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        *_at(loads, load.node, load.model),
        loads.c.generation == load.generation,
        loads.c.state == "running",
    )


def _count(conn: Connection, table: sa.Table, *where: object) -> int:
    return int(
        conn.scalar(sa.select(sa.func.count()).select_from(table).where(*where)) or 0  # type: ignore[arg-type]
    )
