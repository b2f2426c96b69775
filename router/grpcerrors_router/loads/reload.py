"""Loads without the registry: a node that has lost a model loads it again, as the same generation.

That needs no claim. The registry still has the replica, so other routers leave its slot alone, and
a node that registers refuses what is not true any more: a load that a newer one has superseded, and
requests for a model that it does not hold. A foreign node has no such fence, and neither has a
model that was loaded without a generation: these wait for the registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import structlog

from grpcerrors_router.loads.placement import has_slot

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.entities import ModelSpec
    from grpcerrors_router.events import Events
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.nodes.control import ControlPlane
    from grpcerrors_router.nodes.prober import Prober
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.entries import ReplicaEntry
    from grpcerrors_router.view.table import RoutingTable

_log = structlog.get_logger("router.load")


class Reloader:
    """Restores dropped replicas while the registry cannot record a load."""

    def __init__(
        self,
        table: RoutingTable,
        control: ControlPlane,
        prober: Prober,
        quarantine: Quarantine,
        events: Events,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._table = table
        self._control = control
        self._prober = prober
        self._quarantine = quarantine
        self._events = events
        self._settings = settings
        self._clock = clock

    async def reload(self, spec: ModelSpec) -> bool:
        """Load a model on a node that has lost it; return False if none can. Never raises.

        Each loss is tried once: a node that refuses it is left to the registry.
        """
        for entry in self._table.dropped(spec.name):
            if self._may_reload(entry):
                entry.reloadable = False
                if await self._load(spec, entry):
                    return True
        return False

    def _may_reload(self, entry: ReplicaEntry) -> bool:
        node, now = entry.node, self._clock.monotonic()
        return (
            entry.reloadable
            and not node.info.foreign
            and bool(entry.row.held)
            and node.open
            and has_slot(node, now)
            and not self._quarantine.left(node.name, entry.model)
        )

    async def _load(self, spec: ModelSpec, entry: ReplicaEntry) -> bool:
        node, generation, since = entry.node, entry.generation, self._clock.monotonic()
        self._events.load_started(spec.name, node.name, generation)
        timeout = self._settings.load_timeout if spec.load_timeout is None else spec.load_timeout
        why = "the load was abandoned"
        try:
            answer = await self._control.load(node.info, spec, entry.row.held, timeout)
            why = "" if answer.ok else answer.message or "the node gave no reason"
        except grpc.aio.AioRpcError as error:
            self._prober.answered(node, error)
            why = error.details() or error.code().name
        finally:
            seconds = self._clock.monotonic() - since
            self._events.load_finished(spec.name, node.name, generation, seconds, why)
        _log.info(
            "load failed without the registry" if why else "loaded again without the registry",
            model=spec.name,
            node=node.name,
            generation=generation,
            reason=why,
        )
        return not why and self._table.revive(entry, spec.digest)
