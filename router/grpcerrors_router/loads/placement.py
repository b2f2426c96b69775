"""The placement of loads: a free slot if there is one, else the slot of an idle replica."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpcerrors_router.registry.jobs import occupied

if TYPE_CHECKING:
    from collections.abc import Collection

    from grpcerrors_router.entities import ModelSpec
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.entries import NodeEntry, ReplicaEntry
    from grpcerrors_router.view.table import RoutingTable


@dataclass(frozen=True, slots=True)
class Place:
    """A node for a load, the replica to evict for it, if any, and the generations it hedges."""

    node: NodeEntry
    victim: ReplicaEntry | None = None
    hedges: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Later:
    """No node can take the model now, but one may soon; `why` says what the model waits for."""

    why: str = "it waits for a slot"


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No node can take the model, and waiting for a slot would not help.

    Attributes:
        why: the reason, for the caller.
        retry_after: in how many seconds to try again.
        message: why the last load on `node` failed; "" if none did.
        node: the node of that load.
        answered: whether `message` came from the node itself.
    """

    why: str
    retry_after: float
    message: str = ""
    node: str = ""
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Terms:
    """What a load may do to get a slot: `evict` an idle replica, `drain` one that is in use."""

    evict: bool = True
    drain: bool = False


def place(
    table: RoutingTable,
    spec: ModelSpec,
    now: float,
    quarantine: Quarantine,
    settings: Settings,
    terms: Terms,
    tried: Collection[str] = (),
) -> Place | Later | Nowhere:
    """Choose a node for a load.

    A free slot on the emptiest node comes first, one that has been heard before one that has not;
    then the slot of the least recently used idle replica. A model that a node has recently refused
    to load evicts nothing: it would evict healthy models on one node after the other, and fail on
    each. A node that did not answer its last load is tried again after its back-off: what kept it
    from answering may be over.

    Args:
        table: the nodes and their replicas.
        spec: the model.
        now: seconds on the monotonic clock.
        quarantine: which nodes must not load the model.
        settings: `min_residency` and `failure_memory`.
        terms: whether to evict or drain.
        tried: the names of nodes to leave out.
    """
    offering = [node for node in table.nodes.values() if node.info.backend == spec.backend]
    awake = [node for node in offering if node.open]
    if not awake:
        return _no_open_node(spec.backend, offering)
    eligible, refusals, later = _sift(awake, spec, now, quarantine, tried)
    free = _free(eligible, now)
    if free is not None:
        return Place(free)
    failure = _failure(table, spec.name, now, settings)
    if failure is not None:
        refusals.append(failure)
    elif terms.evict and eligible:
        victim = _victim(eligible, now, settings, drain=terms.drain)
        return Later() if victim is None else Place(victim.node, victim)
    if later is not None:
        return later
    full = Nowhere("every slot is in use", 1.0)
    return min(refusals, key=lambda refusal: refusal.retry_after, default=full)


def _sift(
    nodes: list[NodeEntry],
    spec: ModelSpec,
    now: float,
    quarantine: Quarantine,
    tried: Collection[str],
) -> tuple[list[NodeEntry], list[Nowhere], Later | None]:
    """Return the nodes that may load the model, why others may not, and what may change soon."""
    eligible: list[NodeEntry] = []
    refusals: list[Nowhere] = []
    later: Later | None = None
    for node in nodes:
        refusal = _refusal(node, spec, now, quarantine)
        if refusal is not None and (refusal.answered or node.name in tried):
            refusals.append(refusal)
        elif refusal is not None:
            later = later or Later(f"{refusal.why}: {refusal.message}; it is tried again")
        elif _has(node, spec.name, now):
            later = Later()
        elif node.name not in tried:
            eligible.append(node)
    return eligible, refusals, later


def _no_open_node(backend: str, offering: list[NodeEntry]) -> Nowhere:
    if not offering:
        return Nowhere(f'no node offers backend "{backend}"', 5.0)
    denying = [node.name for node in offering if node.denial]
    return Nowhere(none_open(backend, len(offering), denying), 2.0)


def none_open(backend: str, total: int, denying: list[str]) -> str:
    """Return why none of the `total` nodes of a backend can be used.

    `denying` names those that refuse the router's token.
    """
    whose, be, verb = f"all {total} nodes", "are", "refuse"
    if total == 1:
        whose, be, verb = "the only node", "is", "refuses"
    but = f", or {verb} the router's token ({', '.join(denying[:3])})" if denying else ""
    return f'{whose} of backend "{backend}" {be} silent or draining{but}'


def _victim(
    eligible: list[NodeEntry], now: float, settings: Settings, *, drain: bool
) -> ReplicaEntry | None:
    may_go = [
        replica
        for node in eligible
        for replica in node.replicas.values()
        if replica.evicting_until <= now
        and replica.row.loaded_at + settings.min_residency <= now
        and (not replica.in_flight or (drain and replica.spared_until <= now))
    ]
    return min(
        may_go,
        key=lambda replica: (
            replica.in_flight,
            bool(replica.reported),
            replica.last_used,
            replica.node.name,
        ),
        default=None,
    )


def _free(eligible: list[NodeEntry], now: float) -> NodeEntry | None:
    """Return the emptiest node with a free slot, if possible one that has been heard."""
    return min(
        (node for node in eligible if has_slot(node, now)),
        key=lambda node: (not node.was_heard, _used(node, now) - node.info.slots, node.name),
        default=None,
    )


def has_slot(node: NodeEntry, now: float) -> bool:
    """Return whether a node has a free slot."""
    return _used(node, now) < node.info.slots


def _used(node: NodeEntry, now: float) -> int:
    return len(occupied(set(node.replicas), node.loads.values(), now))


def _has(node: NodeEntry, model: str, now: float) -> bool:
    """Return whether the node holds the model or is loading it."""
    replica, load = node.replicas.get(model), node.loads.get(model)
    if replica is not None and not replica.abandoned(now):
        return True
    return load is not None and load.running(now)


def _refusal(
    node: NodeEntry, spec: ModelSpec, now: float, quarantine: Quarantine
) -> Nowhere | None:
    left = quarantine.left(node.name, spec.name)
    if left > 0:
        why = f'node "{node.name}" lost it again and again, and does not load it for {left:.0f} s'
        return Nowhere(why, left)
    load = node.loads.get(spec.name)
    if load is not None and load.backing_off(now):
        why = f'node "{node.name}" has just failed to load it'
        return Nowhere(why, load.retry_at - now, load.message, node.name, load.answered)
    return None


def _failure(table: RoutingTable, model: str, now: float, settings: Settings) -> Nowhere | None:
    """Return a recent failure to load the model, if a node answered it or it happened twice.

    A single load without an answer says more about the node than about the model.
    """
    for node in table.nodes.values():
        load = node.loads.get(model)
        if (
            load is not None
            and load.state == "failed"
            and (load.answered or load.failures > 1)
            and load.retry_at + settings.failure_memory > now
        ):
            why = f'node "{node.name}" failed to load it, so it takes free slots only'
            return Nowhere(why, 5.0, load.message, node.name, load.answered)
    return None
