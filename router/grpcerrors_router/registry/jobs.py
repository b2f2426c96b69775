"""Load jobs: at most one per (node, model) over all routers, fenced by the generation they claimed.

A replica is being evicted exactly while a running job whose lease has not run out names it as its
victim. Nothing else is stored about it, so that nothing can outlive a router that dies.

Each function runs inside one changing transaction; `Store.bump` has put it after all others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

import sqlalchemy as sa

from grpcerrors_router.entities import Load, Replica
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

    `lease` is how long the job counts without a renewal, in seconds. `victim` is the replica, with
    its generation, to be evicted for it. Replicas and loads on `unreachable` nodes do not count
    towards `wanted`.
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

    `message` is empty on success, and `answered` says that it is the node's own. `freed` says that
    the victim is no longer on the node. `retry_after` is the backoff after a failure in seconds, 0
    when there is none to hold against the node. `options` is the digest of what was loaded.
    """

    message: str = ""
    boot_id: str = ""
    inventory: int = 0
    freed: bool = False
    retry_after: float = 0.0
    answered: bool = False
    options: str = ""


def claim(conn: Connection, wish: Wish, generation: int, now: float) -> Load | Refusal:
    """Grant the load, or say why not."""
    drop_expired(conn, now, wish.node)
    here = _jobs(conn, loads.c.node == wish.node)
    held = _replicas(conn, replicas.c.node == wish.node)
    if any(row.model == wish.model for row in held) or _enough(conn, wish, now):
        return Refusal.ENOUGH
    job = next((job for job in here if job.model == wish.model), None)
    if job is not None and job.state == "running":
        return Refusal.ENOUGH
    if job is not None and job.retry_at > now:
        return Refusal.BACKOFF
    if not _fits(conn, wish, held, here, now):
        return Refusal.FULL
    failures = job.failures if job is not None else 0
    return _begin(conn, wish.node, wish.model, generation, wish, now, failures)


def _enough(conn: Connection, wish: Wish, now: float) -> bool:
    silent = set(wish.unreachable)
    jobs = [job for job in _jobs(conn, _concerns(wish.model)) if job.node not in silent]
    there = [
        row
        for row in _replicas(conn, replicas.c.model == wish.model)
        if row.node not in silent
        and not any(job.node == row.node and job.evicts(row, now) for job in jobs)
    ]
    coming = [job for job in jobs if job.model == wish.model != job.victim and job.running(now)]
    return len(there) + len(coming) >= wish.wanted


def _concerns(model: str) -> sa.ColumnElement[bool]:
    return sa.or_(loads.c.model == model, loads.c.victim == model)


def _fits(conn: Connection, wish: Wish, held: list[Replica], jobs: list[Load], now: float) -> bool:
    """Whether the node has a slot for the load, that of its victim included."""
    slots = conn.scalar(sa.select(nodes.c.slots).where(nodes.c.name == wish.node))
    taken = occupied({row.model for row in held}, jobs, now)
    if wish.victim:
        victim = _victim(wish, held)
        if victim is None or any(job.evicts(victim, now) for job in jobs):
            return False
        taken.discard(wish.victim)
    return slots is not None and len(taken) < slots


def occupied(held: set[str], jobs: Collection[Load], now: float) -> set[str]:
    """The models that fill a node's slots once its running jobs have ended well."""
    running = [job for job in jobs if job.running(now)]
    given_up = {job.victim for job in running if job.victim != job.model}
    return (held - given_up) | {job.model for job in running}


def claim_unload(conn: Connection, wish: Wish, generation: int, now: float) -> Load | None:
    """Grant the eviction of `wish.victim` for its own sake: a job whose victim is its model.

    None when that generation is gone, or somebody evicts it already.
    """
    drop_expired(conn, now, wish.node)
    victim = _victim(wish, _replicas(conn, replicas.c.node == wish.node))
    jobs = _jobs(conn, loads.c.node == wish.node)
    if victim is None or any(job.evicts(victim, now) for job in jobs):
        return None
    return _begin(conn, wish.node, wish.victim, generation, wish, now, 0)


def _victim(wish: Wish, held: list[Replica]) -> Replica | None:
    wanted = (wish.victim, wish.victim_generation)
    return next((row for row in held if (row.model, row.generation) == wanted), None)


def _begin(
    conn: Connection, node: str, model: str, generation: int, wish: Wish, now: float, failures: int
) -> Load:
    load = Load(
        node,
        model,
        generation,
        wish.owner,
        "running",
        started_at=now,
        lease_until=now + wish.lease,
        victim=wish.victim,
        failures=failures,
        victim_generation=wish.victim_generation,
    )
    conn.execute(sa.delete(loads).where(*_at(loads, node, model)))
    conn.execute(sa.insert(loads).values(**asdict(load)))
    return load


def renew(conn: Connection, load: Load, until: float) -> bool:
    """Extend the lease; False when the job is no longer this owner's."""
    return bool(
        conn.execute(sa.update(loads).where(*_mine(load)).values(lease_until=until)).rowcount
    )


def finish(conn: Connection, load: Load, outcome: Outcome, now: float) -> str | None:
    """End the job and publish the replica; return why it was not published, "" when it was.

    None, and nothing changed, when the token is stale.
    """
    if not conn.execute(sa.delete(loads).where(*_mine(load))).rowcount:
        return None
    boot = conn.scalar(sa.select(nodes.c.boot_id).where(nodes.c.name == load.node))
    message = outcome.message
    same = not (boot and outcome.boot_id) or boot == outcome.boot_id
    if not message and boot is None:
        message = "the node was removed during the load"
    elif not message and not same:
        message = "the node restarted during the load"
    if load.victim and outcome.freed:
        conn.execute(
            sa.delete(replicas).where(
                *_at(replicas, load.node, load.victim),
                replicas.c.generation == load.victim_generation,
            )
        )
    if same:
        note_inventory(conn, load.node, outcome.inventory)
    if message:
        if outcome.retry_after > 0:
            failed = replace(
                load,
                state="failed",
                victim="",
                victim_generation=0,
                failures=load.failures + 1,
                retry_at=now + outcome.retry_after,
                message=message,
                answered=outcome.answered,
            )
            conn.execute(sa.insert(loads).values(**asdict(failed)))
        return message
    row = Replica(
        load.node,
        load.model,
        load.generation,
        held=load.generation,
        boot_id=outcome.boot_id or str(boot),
        loaded_at=now,
        options=outcome.options,
        last_used=now,
    )
    conn.execute(sa.delete(replicas).where(*_at(replicas, load.node, load.model)))
    conn.execute(sa.insert(replicas).values(**asdict(row)))
    return ""


def note_inventory(conn: Connection, node: str, inventory: int) -> None:
    """Remember the newest inventory counter that the node has reported."""
    conn.execute(
        sa.update(nodes)
        .where(nodes.c.name == node, nodes.c.inventory < inventory)
        .values(inventory=inventory)
    )


def drop_expired(conn: Connection, now: float, node: str) -> bool:
    """Delete the jobs of routers that died on a node; whether there were any.

    Their victims are deleted with them on foreign nodes, which never say whether they still hold
    what a router was about to free.
    """
    where = (*_expired(now), loads.c.node == node)
    foreign = sa.select(nodes.c.name).where(nodes.c.foreign)
    for job in _jobs(conn, sa.and_(*where, loads.c.victim != "", loads.c.node.in_(foreign))):
        conn.execute(
            sa.delete(replicas).where(
                *_at(replicas, job.node, job.victim),
                replicas.c.generation == job.victim_generation,
            )
        )
    return bool(conn.execute(sa.delete(loads).where(*where)).rowcount)


def abandoned(conn: Connection, now: float) -> list[str]:
    """The nodes with jobs of routers that died."""
    query = sa.select(loads.c.node).where(*_expired(now)).distinct().order_by(loads.c.node)
    return list(conn.scalars(query))


def _expired(now: float) -> tuple[sa.ColumnElement[bool], ...]:
    return loads.c.state == "running", loads.c.lease_until <= now


def _at(table: sa.Table, node: str, model: str) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.node == node, table.c.model == model


def _mine(load: Load) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        *_at(loads, load.node, load.model),
        loads.c.generation == load.generation,
        loads.c.state == "running",
    )


def _jobs(conn: Connection, where: sa.ColumnElement[bool]) -> list[Load]:
    return [Load(**row._mapping) for row in conn.execute(sa.select(loads).where(where))]  # noqa: SLF001


def _replicas(conn: Connection, where: sa.ColumnElement[bool]) -> list[Replica]:
    return [Replica(**row._mapping) for row in conn.execute(sa.select(replicas).where(where))]  # noqa: SLF001
