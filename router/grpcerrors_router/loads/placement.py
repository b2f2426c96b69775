"""Where to load a model: a free slot first, else the slot of an idle replica."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from grpcerrors_router.entities import ModelSpec
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.view.table import NodeEntry, ReplicaEntry, RoutingTable


@dataclass(frozen=True, slots=True)
class Place:
    """A node for a load, and the idle replica that has to go for it, if any."""

    node: NodeEntry
    victim: ReplicaEntry | None = None


@dataclass(frozen=True, slots=True)
class Nowhere:
    """Why no node can take the model, and when it is worth asking again.

    `message` is what `node` itself said at its last try. `soon`: a slot may come free any moment.
    """

    why: str
    retry_after: float
    message: str = ""
    node: str = ""
    soon: bool = False


def place(
    table: RoutingTable,
    spec: ModelSpec,
    now: float,
    quarantine: Quarantine,
    tried: Collection[str] = (),
    *,
    may_evict: bool = True,
) -> Place | Nowhere:
    """Choose a node for `spec`; `now` is in unix seconds, nodes in `tried` are left out.

    A model that runs elsewhere already (`may_evict` False) evicts nobody for one more replica.
    Free slots come first, the emptiest node before others. Then the least recently used replica
    without a call in flight on any router gives way.
    """
    offering = [node for node in table.nodes.values() if node.info.backend == spec.backend]
    if not offering:
        return Nowhere(f'no node offers backend "{spec.backend}"', 5.0)
    awake = [node for node in offering if node.open]
    if not awake:
        return Nowhere(f'all {len(offering)} nodes of backend "{spec.backend}" are silent', 2.0)
    eligible: list[NodeEntry] = []
    waits: list[Nowhere] = []
    for node in awake:
        blocked = _blocked(node, spec, now, quarantine)
        if blocked is not None:
            waits.append(blocked)
        elif node.name not in tried and spec.name not in node.replicas:
            eligible.append(node)
    free = [node for node in eligible if _used(node, now) < node.info.slots]
    if free:
        return Place(min(free, key=lambda node: (_used(node, now) - node.info.slots, node.name)))
    idle = [
        replica
        for node in eligible
        for replica in node.replicas.values()
        if not (replica.in_flight or replica.others or replica.row.evicting)
    ]
    if idle and may_evict:
        victim = min(idle, key=lambda replica: (replica.last_used, replica.node.name))
        return Place(victim.node, victim)
    if waits:
        return min(waits, key=lambda wait: wait.retry_after)
    return Nowhere("every slot is in use", 1.0, soon=bool(eligible) and may_evict)


def _used(node: NodeEntry, now: float) -> int:
    return len(node.replicas) + sum(load.running(now) for load in node.loads.values())


def _blocked(
    node: NodeEntry, spec: ModelSpec, now: float, quarantine: Quarantine
) -> Nowhere | None:
    left = quarantine.left(node.name, spec.name)
    if left > 0:
        why = f'node "{node.name}" lost it again and again, and is left alone for {left:.0f} s'
        return Nowhere(why, left)
    load = node.loads.get(spec.name)
    if load is not None and load.backing_off(now):
        why = f'node "{node.name}" failed to load it a moment ago'
        return Nowhere(why, load.retry_at - now, load.message, node.name)
    return None
