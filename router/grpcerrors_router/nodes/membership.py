"""Nodes that announce themselves: most heartbeats bring no news and cost no database call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.entities import Heartbeat
    from grpcerrors_router.events import Events
    from grpcerrors_router.nodes.prober import Prober
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.view.table import NodeEntry, RoutingTable
    from grpcerrors_router.view.watcher import Watcher


class Membership:
    """Takes heartbeats in. The rules on rows are in `router.inventory`."""

    def __init__(
        self,
        registry: NodeRegistry,
        table: RoutingTable,
        prober: Prober,
        watcher: Watcher,
        events: Events,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._table = table
        self._prober = prober
        self._watcher = watcher
        self._events = events
        self._clock = clock

    async def heartbeat(self, beat: Heartbeat) -> None:
        """Note the sign of life, and bring the registry in line when there is news.

        Raises ValueError, RegistryUnavailable.
        """
        node = self._table.nodes.get(beat.node)
        if node is not None and node.info.boot_id == beat.boot_id:
            self._prober.heard(node)
        if node is None or not _no_news(node, beat):
            for heal in await self._registry.heartbeat(beat):
                self._events.heal(heal.model, heal.node, heal.generation, heal.evidence)
            node = self._table.nodes.get(beat.node)
            if node is not None and node.info.boot_id == beat.boot_id:
                self._prober.heard(node)
        self._watcher.heard[beat.node] = self._clock.time()


def _no_news(node: NodeEntry, beat: Heartbeat) -> bool:
    info = node.info
    said = (beat.boot_id, beat.address, beat.backend, beat.slots)
    if said != (info.boot_id, info.address, info.backend, info.slots) or info.foreign:
        return False
    if beat.inventory_version < info.inventory:
        return True
    if beat.inventory_version > info.inventory:
        return False
    held = {model.model: model.generation for model in beat.models}
    known = {name: replica.row.held for name, replica in node.replicas.items()}
    return held.keys() == known.keys() and all(g in (0, known[m]) for m, g in held.items())
