"""What operators change in a running fleet: nodes, drains, pauses and models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpcerrors_router.errors import InvalidNode, UnknownModel, UnknownNode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpcerrors_protocol.fleet_pb2 import PauseState
    from grpcerrors_router.calls.causes import Causes
    from grpcerrors_router.config.models import Changes, Models
    from grpcerrors_router.entities import ModelSpec, Node
    from grpcerrors_router.loads.flights import Flights
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.nodes.control import ControlPlane
    from grpcerrors_router.nodes.prober import Prober
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.security.node_tokens import NodeTokens
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.state.fleet import FleetBuilder
    from grpcerrors_router.view.entries import NodeEntry
    from grpcerrors_router.view.table import RoutingTable


class Operations:
    """The commands of operators, besides `SmartRouter.load` and `SmartRouter.unload`.

    Methods that change the registry raise RegistryUnavailable if it cannot be reached.
    """

    def __init__(  # noqa: PLR0913 - the parts of a router
        self,
        *,
        table: RoutingTable,
        registry: NodeRegistry,
        control: ControlPlane,
        tokens: NodeTokens,
        prober: Prober,
        flights: Flights,
        quarantine: Quarantine,
        causes: Causes,
        state: FleetBuilder,
        models: Models,
        settings: Settings,
    ) -> None:
        self._table = table
        self._registry = registry
        self._control = control
        self._tokens = tokens
        self._prober = prober
        self._flights = flights
        self._quarantine = quarantine
        self._causes = causes
        self._state = state
        self._models = models
        self._settings = settings

    async def add_node(self, node: Node) -> tuple[bool, str]:
        """Add or update a node that does not register itself.

        Returns:
            Whether it accepts a connection and the router's token, and why not.

        Raises:
            Invalid: a value breaks a rule of `validation.check_node`, or there is no such token.
            InvalidNode: a router answers at its address.
        """
        if node.token:
            self._tokens.check(node.token)
        await self._registry.add_node(
            node.address,
            node.backend,
            name=node.name,
            slots=node.slots,
            tls=node.tls,
            token=node.token,
        )
        entry = self._table.nodes[node.name]
        answers = await self._prober.probe_health(entry)
        if answers and await self._control.is_router(entry.info, self._settings.probe_timeout):
            await self._registry.remove_node(node.name)
            raise InvalidNode(
                f"{node.address} is a router, which cannot be a node of another router"
            )
        if entry.denial:
            return False, entry.denial
        return answers, "" if answers else entry.trouble

    async def remove_node(self, name: str) -> None:
        """Remove a node and its replicas. Raises UnknownNode."""
        self._known(name)
        await self._registry.remove_node(name)

    async def drain(self, name: str, *, off: bool = False) -> int:
        """Send a node no new requests and no loads, or send them again.

        Returns:
            Its calls in flight from this router.

        Raises:
            UnknownNode: there is no such node.
        """
        entry = self._known(name)
        await self._registry.set_draining(name, not off)
        return sum(replica.in_flight for replica in entry.replicas.values())

    async def forgive(self, model: str = "", node: str = "") -> list[PauseState]:
        """End quarantines, back-offs and pauses of a model, on a node, or all.

        Returns:
            What it ended.

        Raises:
            UnknownModel, UnknownNode: there is no such model or node.
        """
        if node:
            self._known(node)
        known = {*self._models, *self._table.models()}
        pauses = self._state.pauses()
        if model and model not in known | {pause.model for pause in pauses}:
            raise UnknownModel(model, known)
        ended = [
            pause
            for pause in pauses
            if model in ("", pause.model) and (not node or pause.node in (node, ""))
        ]
        for pause in ended:
            self._quarantine.forgive(pause.node, pause.model)
            self._causes.forgive(pause.node, pause.model)
            self._flights.forgive(pause.model)
        # A load that failed keeps its model from evicting others even after the back-off.
        failed = [
            job
            for entry in self._table.nodes.values()
            for job in entry.loads.values()
            if job.state == "failed" and model in ("", job.model) and node in ("", job.node)
        ]
        for job in failed:
            await self._registry.forgive(job.node, job.model)
        return ended

    def replace_models(self, models: Mapping[str, ModelSpec]) -> Changes:
        """Serve other models from now on, and return what changed.

        Replicas with changed options are replaced one by one. Models that are not listed any more
        are refused, and unloaded once they are idle.
        """
        return self._models.replace(models)

    def _known(self, name: str) -> NodeEntry:
        entry = self._table.nodes.get(name)
        if entry is None:
            raise UnknownNode(name, self._table.nodes)
        return entry
