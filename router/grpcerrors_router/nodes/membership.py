"""Nodes that announce themselves: most heartbeats bring no news and cost no database call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from grpcerrors_router.errors import NameTaken

if TYPE_CHECKING:
    from grpcerrors_router.entities import Correction, Heartbeat
    from grpcerrors_router.events import Events
    from grpcerrors_router.nodes.prober import Prober
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.entries import NodeEntry
    from grpcerrors_router.view.table import RoutingTable


_log = structlog.get_logger("router.nodes")


class Membership:
    """Takes heartbeats in. The rules on rows are in `registry.membership`."""

    def __init__(
        self,
        registry: NodeRegistry,
        table: RoutingTable,
        prober: Prober,
        events: Events,
        settings: Settings,
    ) -> None:
        self._registry = registry
        self._table = table
        self._prober = prober
        self._events = events
        self._settings = settings

    async def heartbeat(self, beat: Heartbeat) -> None:
        """Note the sign of life, and bring the registry in line when there is news.

        Raises ValueError, NameTaken, RegistryUnavailable.
        """
        self._note(beat)
        node = self._table.nodes.get(beat.node)
        if node is not None and _no_news(node, beat):
            return
        correction = await self._correct(beat, node)
        for heal in correction.heals:
            _log.info(
                "dropped a stale row", node=heal.node, model=heal.model,
                generation=heal.generation, evidence=heal.evidence,
            )  # fmt: skip
            self._events.heal(heal.model, heal.node, heal.generation, heal.evidence)
        if correction.restarted:
            _log.info("a node restarted", node=beat.node, models=len(correction.restarted))
        for row in correction.restarted:
            self._events.restarted(row.model, row.node, row.generation)
        self._note(beat)

    async def _correct(self, beat: Heartbeat, node: NodeEntry | None) -> Correction:
        try:
            return await self._registry.heartbeat(beat, alive_for=self._settings.fresh_for)
        except NameTaken as error:
            # A process that was killed was heard a moment ago as well: ask.
            if node is not None:
                self._prober.suspect(node)
                if not await self._prober.probe_health(node):
                    return await self._registry.heartbeat(beat)
            _log.warning("a second node claims a name", node=beat.node, why=error.details())
            raise

    def _note(self, beat: Heartbeat) -> None:
        node = self._table.nodes.get(beat.node)
        if node is not None and node.info.boot_id == beat.boot_id:
            self._prober.heard(node)
            self._table.report(node, {held.model: held.in_flight for held in beat.models})


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
