"""The membership of nodes that register: what the router does with their heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from grpcerrors_router.errors import NameTaken, Overloaded

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
    """Handles heartbeats. Most bring no news, and cost no database call.

    `registry.membership` has the rules for what a heartbeat changes.
    """

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
        """Note that the node is alive, and update the registry if it reports changes.

        Raises:
            Invalid: the heartbeat breaks a rule of `validation`; this is a ValueError.
            NameTaken: another live process has the node's name.
            Overloaded: it is one node too many.
            RegistryUnavailable: a change cannot be written.
        """
        self._note(beat)
        node = self._table.nodes.get(beat.node)
        if node is not None and _no_news(node, beat):
            return
        if node is None and len(self._table.nodes) >= self._settings.max_nodes:
            raise Overloaded(f"{self._settings.max_nodes} nodes; remove those that are gone")
        correction = await self._correct(beat, node)
        for heal in correction.heals:
            _log.info(
                "dropped a stale replica", node=heal.node, model=heal.model,
                generation=heal.generation, evidence=heal.evidence,
            )  # fmt: skip
            self._events.heal(heal.model, heal.node, heal.generation, heal.evidence, "")
        if correction.restarted:
            _log.info("node restarted", node=beat.node, models=len(correction.restarted))
        for row in correction.restarted:
            self._events.restarted(row.model, row.node, row.generation)
        self._note(beat)

    async def _correct(self, beat: Heartbeat, node: NodeEntry | None) -> Correction:
        try:
            return await self._registry.heartbeat(beat, alive_for=self._settings.fresh_for)
        except NameTaken as error:
            # The known process may have been killed since it was last heard: probe it.
            if node is not None:
                self._prober.suspect(node)
                if not await self._prober.probe_health(node):
                    return await self._registry.heartbeat(beat)
            _log.warning(
                "refused a second node of the same name", node=beat.node, why=error.details()
            )
            raise

    def _note(self, beat: Heartbeat) -> None:
        node = self._table.nodes.get(beat.node)
        if node is not None and node.info.boot_id == beat.boot_id:
            self._prober.reported(node)
            if beat.inventory_version >= node.info.inventory:  # else it was overtaken
                self._table.report(node, {held.model: held.in_flight for held in beat.models})


def _no_news(node: NodeEntry, beat: Heartbeat) -> bool:
    info = node.info
    reported = (beat.boot_id, beat.address, beat.backend, beat.slots, beat.tls, beat.registered_by)
    known_as = (info.boot_id, info.address, info.backend, info.slots, info.tls, info.registered_by)
    if reported != known_as or info.foreign:
        return False
    if beat.inventory_version < info.inventory:
        return True
    if beat.inventory_version > info.inventory:
        return False
    held = {model.model: model.generation for model in beat.models}
    known = {name: replica.row.held for name, replica in node.replicas.items()}
    return held.keys() == known.keys() and all(g in (0, known[m]) for m, g in held.items())
