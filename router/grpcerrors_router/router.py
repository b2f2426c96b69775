"""The router: it dispatches requests by model, loads missing models and drops stale replicas."""

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
from grpcerrors_router.config.models import Models
from grpcerrors_router.errors import InUse, RouteError, UnknownModel
from grpcerrors_router.events import Broadcast, Events
from grpcerrors_router.loads.eviction import Evictor
from grpcerrors_router.loads.flights import Flights
from grpcerrors_router.loads.job import Jobs
from grpcerrors_router.loads.load import LoadRunner
from grpcerrors_router.loads.quarantine import Quarantine
from grpcerrors_router.loads.reload import Reloader
from grpcerrors_router.nodes.client import NodeClient
from grpcerrors_router.nodes.membership import Membership
from grpcerrors_router.nodes.prober import Prober
from grpcerrors_router.operations import Operations
from grpcerrors_router.settings import Settings
from grpcerrors_router.state.fleet import FleetBuilder
from grpcerrors_router.state.recorder import Recorder
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
    from grpcerrors_router.tracing import Tracing


class SmartRouter:
    """Dispatches calls to live replicas of models.

        async with SmartRouter(NodeRegistry("sqlite:///fleet.db"), models) as router:
            stub = BackendStub(router.channel("tiny.en"))
            reply = await stub.Predict(request, timeout=5)

    Times and timeouts are seconds. All methods must be called on one event loop.

    Args:
        registry: the registry, not yet open. The router opens and closes it.
        models: the models that can be loaded, by name; see `read_models`.
        on_stale: what to do when a request meets a stale replica. `retry` heals, and sends the
            request to another replica if it provably was not executed; `return` heals, and returns
            the error; `off` only returns the error.
        settings: limits and intervals; the defaults if None.
        events: receives the router's events, such as Metrics.
        clock: the clock, for tests.
        rng: the source of jitter, for tests.
        nodes: how nodes are reached, `NodeClient.over_grpc()` by default.
        tracing: traces requests and loads (`grpcerrors_router.tracing.Tracing`); nobody does if
            None.

    Attributes:
        registry: the registry.
        models: the models, by name.
        on_stale: the default of `channel` and `route`.
        settings: the settings.
        events: where the router reports its events.
        table: the registry in memory.
        outbox: the changes that wait for the registry.
        watcher: keeps `table` in step with the registry.
        presence: this router in the registry.
        state: builds the state of the fleet, for people.
        operations: what operators change.
        tracing: the traces; None if nobody wants any.
    """

    def __init__(  # noqa: PLR0913 - options and collaborators
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
        tracing: Tracing | None = None,
    ) -> None:
        self.registry = registry
        self.models = Models(models)
        self.on_stale: OnStale = on_stale
        self.settings = settings or Settings()
        clock = clock or SystemClock()
        self.table = RoutingTable(clock)
        recorder = Recorder(self.table, clock)
        self.events = Broadcast(recorder, *filter(None, (events, tracing)))
        self.tracing = tracing
        self.outbox = Outbox(self.events, self.settings.outbox_limit)
        self._clock = clock
        rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        nodes = nodes or NodeClient.over_grpc(headers=tracing.headers if tracing else tuple)
        self._channels, control = nodes.channels, nodes.control
        self._prober = prober = Prober(self.table, nodes, self.settings, clock)
        quarantine = Quarantine(self.settings, clock)
        jobs = Jobs(self.table, registry, self.outbox, self.settings, clock)
        self._evictor = Evictor(jobs, registry, control, prober, self.events, self.settings, clock)
        runner = LoadRunner(
            jobs,
            self._evictor,
            control,
            prober,
            self.events,
            self.settings,
            clock,
            rng,
        )
        reloader = Reloader(
            self.table, control, prober, quarantine, self.events, self.settings, clock
        )
        self._flights = Flights(
            table=self.table,
            registry=registry,
            runner=runner,
            evictor=self._evictor,
            prober=prober,
            quarantine=quarantine,
            reloader=reloader,
            settings=self.settings,
            clock=clock,
        )
        self.watcher = Watcher(registry, self.table, self.outbox, self.settings, clock)
        self.presence = Presence(
            registry, self.table, self.watcher, self.outbox, self.settings, clock
        )
        reconciler = Reconciler(
            table=self.table,
            registry=registry,
            outbox=self.outbox,
            control=control,
            prober=prober,
            quarantine=quarantine,
            events=self.events,
            settings=self.settings,
            clock=clock,
            rng=rng,
        )
        self._dispatcher = Dispatcher(
            models=self.models,
            table=self.table,
            channels=self._channels,
            flights=self._flights,
            prober=prober,
            presence=self.presence,
            reconciler=reconciler,
            budget=RetryBudget(self.settings, clock),
            events=self.events,
            tracing=tracing,
            settings=self.settings,
            clock=clock,
        )
        self._membership = Membership(registry, self.table, prober, self.events, self.settings)
        self.state = FleetBuilder(
            table=self.table,
            registry=registry,
            watcher=self.watcher,
            outbox=self.outbox,
            flights=self._flights,
            quarantine=quarantine,
            causes=reconciler.causes,
            prober=prober,
            recorder=recorder,
            models=self.models,
            settings=self.settings,
            clock=clock,
        )
        self.operations = Operations(
            table=self.table,
            registry=registry,
            control=control,
            tokens=nodes.tokens,
            prober=prober,
            flights=self._flights,
            quarantine=quarantine,
            causes=reconciler.causes,
            state=self.state,
            models=self.models,
            settings=self.settings,
        )
        self._tasks: list[asyncio.Task[None]] = []
        registry.subscribe(self.table.apply)

    @property
    def name(self) -> str:
        """The name of this router in the registry."""
        return self.registry.router

    async def start(self) -> None:
        """Open the registry, read it, and start following it.

        Raises:
            RegistryUnavailable: the registry cannot be reached.
            NameTaken: another live router has this router's name.
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
        """Stop the router, end its jobs, and close the registry. Calls in flight are cut off."""
        await stop(self._tasks)
        await self._flights.close()
        await self._evictor.close()
        await self._dispatcher.close()
        await self._prober.close()
        await self._channels.close()
        with contextlib.suppress(Exception):
            await self.outbox.flush()
            await self.presence.exit()
        await self.registry.close()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
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
        """Return a channel that dispatches each call separately.

        Create a stub on it once, and keep it.

        Args:
            model: the model's name. An unknown one fails at the call, with UnknownModel.
            on_stale: overrides the router's `on_stale`.
        """
        return InFlightTrackingClient(self._dispatcher, model, on_stale or self.on_stale)

    @asynccontextmanager
    async def route(
        self, model: str, *, timeout: float | None = None, on_stale: OnStale | None = None
    ) -> AsyncIterator[InFlightTrackingClient]:
        """Pick a replica, loading the model if needed, and yield a channel that uses it.

        The first call on the channel goes to that replica, and later calls to any.

        Args:
            model: the model's name.
            timeout: seconds to wait for a replica; None for no limit. Calls have their own timeout.
            on_stale: overrides the router's `on_stale`.

        Raises:
            RouteError: UnknownModel, NoCapacity, LoadFailed, LoadTimeout, Overloaded,
                RouterStopping or RegistryUnavailable.
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
        """Return whether a node may be picked; probe it if it was silent.

        Concurrent probes are coalesced. Returns False for an unknown node.
        """
        entry = self.table.nodes.get(node)
        return entry is not None and await self._prober.probe_health(entry)

    # Nodes

    async def heartbeat(self, beat: Heartbeat) -> float:
        """Apply a node's report; return the seconds until its next heartbeat.

        Raises:
            ValueError: the heartbeat breaks a rule of `validation.check_heartbeat`.
            NameTaken: another live process has the node's name.
            RegistryUnavailable: the report changes the registry, which cannot be reached.
        """
        await self._membership.heartbeat(beat)
        return self.settings.heartbeat_interval

    async def leave(self, node: str, boot_id: str, *, registered_by: str = "") -> bool:
        """Remove a node that is stopping.

        Args:
            node: the node's name.
            boot_id: its process; another one has no effect.
            registered_by: the name of the token that asks; "" for none. If another token has
                registered the node, there is no effect either.

        Returns:
            Whether the node was removed.

        Raises:
            RegistryUnavailable: the registry cannot be reached.
        """
        return await self.registry.leave(node, boot_id, registered_by=registered_by)

    # Models

    async def load(self, model: str, *, timeout: float | None = None) -> str:
        """Load a model if no live replica exists; return the name of a node that holds it.

        Args:
            model: the model's name.
            timeout: seconds to wait; None for no limit. The load continues after that.

        Raises:
            RouteError: as for `route`.
        """
        return (await self._dispatcher.acquire(model, self._deadline(timeout))).node.name

    async def unload(
        self, model: str, *, node: str | None = None, force: bool = False
    ) -> list[str]:
        """Unload a model; return the names of the nodes that unloaded it.

        If a node refuses, the others are still asked, and the error names those that did unload it.

        Args:
            model: the model's name.
            node: the node's name; None for all nodes that hold the model.
            force: whether to unload replicas with calls in flight.

        Raises:
            UnknownModel: neither models.toml nor any node knows the model.
            InUse: a replica has calls in flight, or its node refused.
            UnloadUnsupported: the backend has no Free.
            RegistryUnavailable: the registry cannot be reached.
        """
        replicas = [r for r in self.table.replicas(model) if node in (None, r.node.name)]
        if not replicas and model not in self.models:
            raise UnknownModel(model, {*self.models, *self.table.models()})
        freed: list[str] = []
        kept: dict[str, RouteError] = {}
        for replica in replicas:
            try:
                if await self._evictor.unload(replica, "by an operator", force=force):
                    freed.append(replica.node.name)
            except RouteError as error:
                kept[replica.node.name] = error
        for name, refusal in kept.items():
            if not freed:
                raise refusal
            why = getattr(refusal, "why", refusal.details())
            raise InUse(model, name, f"{why}; it was unloaded from {', '.join(freed)}") from refusal
        return freed
