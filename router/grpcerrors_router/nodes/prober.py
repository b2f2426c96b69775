"""Is the process behind a node alive? Cached, coalesced, and never a reason to delete anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.nodes.control import ControlPlane
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.table import NodeEntry, RoutingTable

SILENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)


class Prober:
    """Probes nodes with Health, one probe at a time for each.

    A heartbeat or a finished call is as good as a probe: both make the node fresh, so a busy node
    is never probed. A node that does not answer is not picked until it does (invariant 14).
    """

    def __init__(
        self, table: RoutingTable, control: ControlPlane, settings: Settings, clock: Clock
    ) -> None:
        self._table = table
        self._control = control
        self._settings = settings
        self._clock = clock
        self._probes: dict[str, asyncio.Task[bool]] = {}

    def is_fresh(self, node: NodeEntry) -> bool:
        """Whether the node gave a sign of life so recently that no probe is needed."""
        return node.fresh_until > self._clock.monotonic()

    def heard(self, node: NodeEntry) -> None:
        """The node gave a sign of life."""
        node.fresh_until = self._clock.monotonic() + self._settings.fresh_for
        if not node.reachable:
            self._table.set_reachable(node, reachable=True)

    def suspect(self, node: NodeEntry) -> None:
        """A call to the node met silence: ask before it is picked again."""
        node.fresh_until = 0.0

    async def probe_health(self, node: NodeEntry) -> bool:
        """Whether the node answers; asks only when it has not given a sign of life lately."""
        if self.is_fresh(node):
            return True
        probe = self._probes.get(node.name)
        if probe is None:
            probe = asyncio.create_task(self._probe(node))
            self._probes[node.name] = probe
            probe.add_done_callback(lambda _: self._probes.pop(node.name, None))
        return await asyncio.shield(probe)

    async def _probe(self, node: NodeEntry) -> bool:
        try:
            await self._control.health(node.info.address, self._settings.probe_timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() in SILENT:
                self._table.set_reachable(node, reachable=False)
                return False
        self.heard(node)
        return True

    async def watch(self) -> None:
        """Ask the silent nodes again and again, until they are back. Runs until cancelled."""
        while True:
            await self._clock.sleep(self._settings.probe_interval)
            silent = [node for node in self._table.nodes.values() if not node.reachable]
            await asyncio.gather(*(self.probe_health(node) for node in silent))
