"""What every tracked call needs: the table to pick from, and what is to happen when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from grpcerrors_router.entities import ModelSpec
from grpcerrors_router.errors import LoadTimeout, UnknownModel
from grpcerrors_router.nodes.prober import SILENT, Prober

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpcerrors_router.calls.budget import RetryBudget
    from grpcerrors_router.calls.reconcile import Reconciler
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.events import Events
    from grpcerrors_router.loads.flight import Flights
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.nodes.control import Channels
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.table import ReplicaEntry, RoutingTable


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """The parts of a router that lie on the path of a request."""

    models: Mapping[str, ModelSpec]
    table: RoutingTable
    channels: Channels
    flights: Flights
    prober: Prober
    reconciler: Reconciler
    budget: RetryBudget
    quarantine: Quarantine
    events: Events
    settings: Settings
    clock: Clock

    async def acquire(
        self, model: str, deadline: float | None, *, last_try: bool = False
    ) -> ReplicaEntry:
        """A live replica, loaded first where none is; no waiting where one is at hand.

        `deadline` is on the monotonic clock. With `last_try` the replica confirmed last comes
        first, not the least busy. Raises RouteError.
        """
        spec = self.models.get(model)
        while True:
            if spec is not None:
                self.flights.keep_up(spec)
            entry = (
                self.table.most_recently_confirmed(model) if last_try else self.table.pick(model)
            )
            if entry is None:
                if spec is None:
                    self._refuse_unknown(model)
                await self.flights.wait(spec or ModelSpec(model, ""), deadline)
            elif self.prober.is_fresh(entry.node) or await self.prober.probe_health(entry.node):
                if entry.live and entry.node.open and not entry.row.evicting:
                    return entry
            elif deadline is not None and deadline <= self.clock.monotonic():
                raise LoadTimeout(model)

    def _refuse_unknown(self, model: str) -> None:
        if not any(True for _ in self.table.replicas(model)):
            raise UnknownModel(model, {*self.models, *self.table.models()})

    def ended(self, entry: ReplicaEntry, code: grpc.StatusCode, seconds: float) -> None:
        """A call at a node ended: what that says about the node, and the count of it."""
        if code is grpc.StatusCode.UNAVAILABLE:
            self.prober.suspect(entry.node)
        elif code not in SILENT:
            self.prober.heard(entry.node)
        if code is grpc.StatusCode.OK:
            if not entry.has_served:
                entry.has_served = True
                self.quarantine.worked(entry.node.name, entry.model)
            entry.confirmed_at = self.clock.monotonic()
        self.events.request(entry.model, entry.node.name, code, seconds)
