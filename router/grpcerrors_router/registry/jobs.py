"""Load jobs: at most one per node and model across all routers, fenced by their generation.

A replica is being evicted exactly while a running job with an unexpired lease names it as its
victim. Nothing else is stored about an eviction, so nothing outlives a router that dies.

Each function runs in a write transaction, which `Store.bump` has serialized.
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
    """Why a claim was refused."""

    ENOUGH = "the wanted replicas exist or are being loaded"
    FULL = "the node has no free slot, or the replica to evict is gone"
    BACKOFF = "the last load of the model on the node has just failed"


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A router's request for a load job.

    Attributes:
        node: where to load the model.
        model: the model.
        owner: the router.
        wanted: how many replicas the fleet should hold, this one included.
        lease: seconds until the job expires unless it is renewed.
        victim: the model to evict for it; "" for none.
        victim_generation: the generation of the victim.
        unreachable: the nodes whose replicas and loads do not count towards `wanted`.
        hedges: the generations that do not count either: the loads that take too long. Another
            load, of which the router does not know yet, does count.
    """

    node: str
    model: str
    owner: str
    wanted: int
    lease: float
    victim: str = ""
    victim_generation: int = 0
    unreachable: Collection[str] = ()
    hedges: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended, for the registry.

    Attributes:
        message: why nothing was loaded; "" on success.
        boot_id: the process that answered; "" when unknown.
        inventory: the node's inventory counter; 0 when unknown.
        freed: whether the node no longer holds the victim.
        retry_after: the backoff after a failure, in seconds; 0 if the node is not to blame.
        answered: whether `message` came from the node itself.
        options: the digest of the options that were loaded.
    """

    message: str = ""
    boot_id: str = ""
    inventory: int = 0
    freed: bool = False
    retry_after: float = 0.0
    answered: bool = False
    options: str = ""


def claim(conn: Connection, request: JobRequest, generation: int, now: float) -> Load | Refusal:
    """Return the job, or why the claim was refused."""
    drop_expired(conn, now, request.node)
    here = _jobs(conn, loads.c.node == request.node)
    held = _replicas(conn, replicas.c.node == request.node)
    if any(row.model == request.model for row in held) or _enough(conn, request, now):
        return Refusal.ENOUGH
    job = next((job for job in here if job.model == request.model), None)
    if job is not None and job.state == "running":
        return Refusal.ENOUGH
    if job is not None and job.retry_at > now:
        return Refusal.BACKOFF
    if not _fits(conn, request, held, here, now):
        return Refusal.FULL
    failures = job.failures if job is not None else 0
    return _begin(conn, request.node, request.model, generation, request, now, failures)


def _enough(conn: Connection, request: JobRequest, now: float) -> bool:
    silent, slow = set(request.unreachable), set(request.hedges)
    jobs = [job for job in _jobs(conn, _concerns(request.model)) if job.node not in silent]
    there = [
        row
        for row in _replicas(conn, replicas.c.model == request.model)
        if row.node not in silent
        and row.generation not in slow
        and not any(job.node == row.node and job.evicts(row, now) for job in jobs)
    ]
    coming = [
        job
        for job in jobs
        if job.model == request.model != job.victim
        and job.running(now)
        and job.generation not in slow
    ]
    return len(there) + len(coming) >= request.wanted


def _concerns(model: str) -> sa.ColumnElement[bool]:
    return sa.or_(loads.c.model == model, loads.c.victim == model)


def _fits(
    conn: Connection, request: JobRequest, held: list[Replica], jobs: list[Load], now: float
) -> bool:
    """Return whether the node has a slot for the load, once its victim is gone."""
    slots = conn.scalar(sa.select(nodes.c.slots).where(nodes.c.name == request.node))
    taken = occupied({row.model for row in held}, jobs, now)
    if request.victim:
        victim = _victim(request, held)
        if victim is None or any(job.evicts(victim, now) for job in jobs):
            return False
        taken.discard(request.victim)
    return slots is not None and len(taken) < slots


def occupied(held: set[str], jobs: Collection[Load], now: float) -> set[str]:
    """Return the models that fill a node's slots once its running jobs have succeeded."""
    running = [job for job in jobs if job.running(now)]
    given_up = {job.victim for job in running if job.victim != job.model}
    return (held - given_up) | {job.model for job in running}


def claim_unload(conn: Connection, request: JobRequest, generation: int, now: float) -> Load | None:
    """Return a job that only evicts `request.victim`: its model and its victim are the same.

    Returns None if that generation is gone, or another job is evicting it.
    """
    drop_expired(conn, now, request.node)
    victim = _victim(request, _replicas(conn, replicas.c.node == request.node))
    jobs = _jobs(conn, loads.c.node == request.node)
    if victim is None or any(job.evicts(victim, now) for job in jobs):
        return None
    return _begin(conn, request.node, request.victim, generation, request, now, 0)


def _victim(request: JobRequest, held: list[Replica]) -> Replica | None:
    wanted = (request.victim, request.victim_generation)
    return next((row for row in held if (row.model, row.generation) == wanted), None)


def _begin(
    conn: Connection,
    node: str,
    model: str,
    generation: int,
    request: JobRequest,
    now: float,
    failures: int,
) -> Load:
    load = Load(
        node,
        model,
        generation,
        request.owner,
        "running",
        started_at=now,
        lease_until=now + request.lease,
        victim=request.victim,
        failures=failures,
        victim_generation=request.victim_generation,
    )
    conn.execute(sa.delete(loads).where(*_at(loads, node, model)))
    conn.execute(sa.insert(loads).values(**asdict(load)))
    return load


def renew(conn: Connection, load: Load, until: float) -> bool:
    """Extend the lease of a job; return False if its owner no longer has it."""
    return bool(
        conn.execute(sa.update(loads).where(*_mine(load)).values(lease_until=until)).rowcount
    )


def note_asked(conn: Connection, load: Load, until: float) -> bool:
    """Renew a job, and record that its node is asked to give up the victim.

    Returns False if its owner no longer has it.
    """
    values = {"lease_until": until, "asked": True}
    return bool(conn.execute(sa.update(loads).where(*_mine(load)).values(values)).rowcount)


def finish(conn: Connection, load: Load, outcome: Outcome, now: float) -> str | None:
    """End the job and publish its replica; return why it was not published, "" if it was.

    Returns None, and changes nothing, if the fencing token is stale.
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
    """Store the newest inventory counter that the node has reported."""
    conn.execute(
        sa.update(nodes)
        .where(nodes.c.name == node, nodes.c.inventory < inventory)
        .values(inventory=inventory)
    )


def drop_expired(conn: Connection, now: float, node: str) -> bool:
    """Delete a node's expired jobs, whose routers have died; return whether there were any.

    A foreign node does not report whether it still holds a victim that it was asked to give up:
    such victims are deleted too. The other victims may be in use, and stay.
    """
    where = (*_expired(now), loads.c.node == node)
    foreign = sa.select(nodes.c.name).where(nodes.c.foreign)
    for job in _jobs(conn, sa.and_(*where, loads.c.asked, loads.c.node.in_(foreign))):
        conn.execute(
            sa.delete(replicas).where(
                *_at(replicas, job.node, job.victim),
                replicas.c.generation == job.victim_generation,
            )
        )
    return bool(conn.execute(sa.delete(loads).where(*where)).rowcount)


def forget_failures(conn: Connection, before: float, node: str) -> bool:
    """Delete a node's failed loads that could be retried before then; return if there were any."""
    where = (_failed(before), loads.c.node == node)
    return bool(conn.execute(sa.delete(loads).where(*where)).rowcount)


def forgive(conn: Connection, node: str, model: str) -> bool:
    """Delete the failed load of a model on a node; return whether there was one."""
    where = (*_at(loads, node, model), loads.c.state == "failed")
    return bool(conn.execute(sa.delete(loads).where(*where)).rowcount)


def over(conn: Connection, now: float, before: float) -> list[str]:
    """Return the nodes with expired jobs, or with failed loads that could be retried `before`."""
    where = sa.or_(sa.and_(*_expired(now)), _failed(before))
    return list(conn.scalars(sa.select(loads.c.node).where(where).distinct().order_by("node")))


def _failed(before: float) -> sa.ColumnElement[bool]:
    return sa.and_(loads.c.state == "failed", loads.c.retry_at <= before)


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
