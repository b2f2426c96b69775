"""The router: routes by model, loads what is missing, heals what turns out stale."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from grpcerrors_router.calls.budget import RetryBudget
from grpcerrors_router.calls.channel import InFlightTrackingClient
from grpcerrors_router.calls.dispatch import Dispatcher
from grpcerrors_router.calls.reconcile import Reconciler
from grpcerrors_router.clock import Clock, SystemClock
from grpcerrors_router.errors import InUse, RouteError, UnknownModel
from grpcerrors_router.events import Events
from grpcerrors_router.loads.flight import Flights
from grpcerrors_router.loads.job import JobRunner
from grpcerrors_router.loads.quarantine import Quarantine
from grpcerrors_router.nodes.client import NodeClient
from grpcerrors_router.nodes.membership import Membership
from grpcerrors_router.nodes.prober import Prober
from grpcerrors_router.settings import Settings
from grpcerrors_router.tasks import stop
from grpcerrors_router.view.outbox import Outbox
from grpcerrors_router.view.presence import Presence
from grpcerrors_router.view.table import RoutingTable
from grpcerrors_router.view.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

    from grpcerrors_router.calls.retry import OnStale
    from grpcerrors_router.entities import Heartbeat, ModelSpec
    from grpcerrors_router.registry.registry import NodeRegistry


class SmartRouter:
    """Routes calls to live replicas of models.

        async with SmartRouter(NodeRegistry("sqlite:///fleet.db"), models) as router:
            stub = BackendStub(router.channel("tiny.en"))
            reply = await stub.Predict(request, timeout=5)

    `models` says what to load under which name. `on_stale` says what happens to a request that
    meets a stale replica: `retry` sends it to a fresh one, `return` gives the caller the original
    error and heals for the next, `off` heals nothing. `nodes` replaces the way to nodes, for tests.
    """

    def __init__(
        self,
        registry: NodeRegistry,
        models: Mapping[str, ModelSpec],
        *,
        on_stale: OnStale = "retry",
        settings: Settings | None = None,
        events: Events | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        nodes: NodeClient | None = None,
    ) -> None:
        self.registry = registry
        self.models = dict(models)
        self.on_stale: OnStale = on_stale
        self.settings = settings or Settings()
        self.events = events or Events()
        clock = clock or SystemClock()
        self.table = RoutingTable(clock)
        self.outbox = Outbox(self.events, self.settings.outbox_limit)
        self._clock = clock
        nodes = nodes or NodeClient.over_grpc()
        self._channels, control = nodes.channels, nodes.control
        self._prober = prober = Prober(self.table, nodes, self.settings, clock)
        quarantine = Quarantine(self.settings, clock)
        self._runner = JobRunner(
            self.table,
            registry,
            self.outbox,
            control,
            prober,
            self.events,
            self.settings,
            clock,
            rng or random.Random(),  # noqa: S311 - jitter, not secrets
        )
        self._flights = Flights(
            self.table, registry, self._runner, quarantine, self.settings, clock
        )
        self._dispatcher = Dispatcher(
            models=self.models,
            table=self.table,
            channels=self._channels,
            flights=self._flights,
            prober=prober,
            reconciler=Reconciler(
                table=self.table,
                registry=registry,
                outbox=self.outbox,
                control=control,
                prober=prober,
                quarantine=quarantine,
                events=self.events,
                settings=self.settings,
                clock=clock,
            ),
            budget=RetryBudget(self.settings, clock),
            events=self.events,
            settings=self.settings,
            clock=clock,
        )
        self.watcher = Watcher(registry, self.table, self.outbox, self.settings, clock)
        self.presence = Presence(
            registry, self.table, self.watcher, self.outbox, self.settings, clock
        )
        self._membership = Membership(registry, self.table, prober, self.events, self.settings)
        self._tasks: list[asyncio.Task[None]] = []
        registry.subscribe(self.table.apply)

    @property
    def name(self) -> str:
        """This router's name among those that share the registry."""
        return self.registry.router

    async def start(self) -> None:
        """Open the registry, read it, and start following it.

        Raises RegistryUnavailable, and NameTaken when another living router has this one's name.
        """
        await self.registry.open()
        await self.watcher.relist()
        await self.presence.enter()
        self._tasks = [
            asyncio.create_task(self.watcher.follow()),
            asyncio.create_task(self.watcher.listen()),
            asyncio.create_task(self.presence.run()),
            asyncio.create_task(self.presence.prune()),
            asyncio.create_task(self._prober.watch()),
            asyncio.create_task(self._flights.keep_current(self.models)),
        ]

    async def close(self) -> None:
        """Stop, and end what this router has begun. The registry is closed too."""
        await stop(self._tasks)
        await self._flights.close()
        await self._runner.close()
        await self._dispatcher.close()
        await self._prober.close()
        await self._channels.close()
        with contextlib.suppress(Exception):
            await self.outbox.flush()
            await self.presence.exit()
        await self.registry.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # Routing

    def channel(self, model: str, *, on_stale: OnStale | None = None) -> InFlightTrackingClient:
        """A channel that routes each call by itself; make a stub on it once and keep it."""
        return InFlightTrackingClient(self._dispatcher, model, on_stale or self.on_stale)

    @asynccontextmanager
    async def route(
        self, model: str, *, timeout: float | None = None, on_stale: OnStale | None = None
    ) -> AsyncIterator[InFlightTrackingClient]:
        """A channel with a replica picked, and loaded if need be, before the body runs.

        `timeout` in seconds bounds the wait for a replica; a call's own timeout bounds the call.
        Raises RouteError: UnknownModel, NoCapacity, LoadFailed, LoadTimeout, RegistryUnavailable.
        """
        reserved = await self._dispatcher.attempt(model, self._deadline(timeout))
        client = InFlightTrackingClient(
            self._dispatcher, model, on_stale or self.on_stale, reserved
        )
        try:
            yield client
        finally:
            client.release_reservation()

    def _deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else self._clock.monotonic() + timeout

    async def probe_health(self, node: str) -> bool:
        """Whether a node's process answers (cached, coalesced); False for an unknown node."""
        entry = self.table.nodes.get(node)
        return entry is not None and await self._prober.probe_health(entry)

    # Nodes

    async def heartbeat(self, beat: Heartbeat) -> float:
        """Take in what a node says of itself; seconds until it should say so again.

        Raises ValueError for a heartbeat that makes no sense, NameTaken when another living process
        has the node's name, RegistryUnavailable when it brings news that cannot be written down.
        """
        await self._membership.heartbeat(beat)
        return self.settings.heartbeat_interval

    async def leave(self, node: str, boot_id: str) -> bool:
        """A node stops: forget it and its rows, unless another boot has taken its place."""
        return await self.registry.leave(node, boot_id)

    # Models

    async def load(self, model: str, *, timeout: float | None = None) -> str:
        """Have a model loaded somewhere; the node that has it. Raises RouteError."""
        return (await self._dispatcher.acquire(model, self._deadline(timeout))).node.name

    async def unload(
        self, model: str, *, node: str | None = None, force: bool = False
    ) -> list[str]:
        """Free a model on one node, or wherever it is; the nodes that have freed it.

        Every node is asked, also when an earlier one refuses. Raises UnknownModel, InUse (unless
        forced), UnloadUnsupported, RegistryUnavailable; the text names the nodes that did free it.
        """
        replicas = [r for r in self.table.replicas(model) if node in (None, r.node.name)]
        if not replicas and model not in self.models:
            raise UnknownModel(model, {*self.models, *self.table.models()})
        freed: list[str] = []
        kept: dict[str, RouteError] = {}
        for replica in replicas:
            try:
                if await self._runner.unload(replica, force=force):
                    freed.append(replica.node.name)
            except RouteError as error:
                kept[replica.node.name] = error
        for name, refusal in kept.items():
            if not freed:
                raise refusal
            why = getattr(refusal, "why", refusal.details())
            raise InUse(model, name, f"{why}; it was unloaded from {', '.join(freed)}") from refusal
        return freed
