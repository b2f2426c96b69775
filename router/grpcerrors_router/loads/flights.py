"""The single flight of loads: one flight per model in this router.

Across routers, the registry allows one fenced job per model and node.
"""

from __future__ import annotations

import asyncio
import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from grpcerrors_router.errors import (
    LoadTimeout,
    NoCapacity,
    Overloaded,
    RegistryUnavailable,
    RouteError,
    RouterStopping,
)
from grpcerrors_router.loads.flight import Flight, Planner, failure
from grpcerrors_router.loads.load import Result
from grpcerrors_router.loads.placement import Later, Nowhere, Place
from grpcerrors_router.registry.jobs import JobRequest, Refusal
from grpcerrors_router.tasks import stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from grpcerrors_router.clock import Clock
    from grpcerrors_router.config.models import Models
    from grpcerrors_router.entities import ModelSpec
    from grpcerrors_router.loads.eviction import Evictor
    from grpcerrors_router.loads.load import LoadRunner
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.loads.reload import Reloader
    from grpcerrors_router.nodes.prober import Prober
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.entries import ReplicaEntry
    from grpcerrors_router.view.table import RoutingTable

_log = structlog.get_logger("router.load")


class Flights:
    """Loads models, with one flight per model, for which all its callers wait.

    A flight belongs to no caller: it continues when the one that started it is cancelled. Flights
    that wait for slots are served in the order in which they began, so that models take fair turns.

    A request fails only on news: a flight that was already running when it came may have failed for
    a reason that is gone, so such a failure starts another flight. With that, each request is
    answered within its deadline once a node can serve it (invariant 17).
    """

    def __init__(  # noqa: PLR0913 - collaborators
        self,
        *,
        table: RoutingTable,
        registry: NodeRegistry,
        runner: LoadRunner,
        evictor: Evictor,
        prober: Prober,
        quarantine: Quarantine,
        reloader: Reloader,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._table = table
        self._registry = registry
        self._runner = runner
        self._evictor = evictor
        self._prober = prober
        self._reloader = reloader
        self._settings = settings
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._flights: dict[str, Flight] = {}
        self._loads: set[asyncio.Task[Result]] = set()
        self._planner = Planner(table, self._flights, quarantine, settings, clock)
        self._waiting: dict[str, dict[object, float]] = {}
        self._pauses: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._closed = False

    async def wait(self, spec: ModelSpec, deadline: float | None) -> None:
        """Wait until a replica of the model can be picked.

        Args:
            spec: the model; its backend is "" if it is not in models.toml, and is not loaded then.
            deadline: seconds on the monotonic clock; None for no deadline.

        Raises:
            LoadTimeout: the deadline passed.
            Overloaded: too many requests wait for the model.
            RouteError: the model cannot be loaded: NoCapacity, LoadFailed, RegistryUnavailable or
                RouterStopping.
        """
        if not spec.backend:
            raise self._only_adopted(spec.name)
        with self.queued(spec.name):
            await self._wait(spec, deadline)

    @contextmanager
    def queued(self, model: str, since: float | None = None) -> Iterator[None]:
        """Count a request that waits for a model, `since` now or an earlier time.

        Raises Overloaded.
        """
        waiting = self._waiting.get(model, {})
        if len(waiting) >= self._settings.max_waiting:
            text = f'{self._settings.max_waiting} requests wait for model "{model}"'
            raise Overloaded(text, model=model, retry_after=self._seconds.get(model, 1.0))
        request = object()
        self._waiting[model] = waiting
        waiting[request] = self._clock.monotonic() if since is None else since
        try:
            yield
        finally:
            del waiting[request]
            if not waiting:
                del self._waiting[model]

    def forgive(self, model: str) -> None:
        """End the pause after a failed flight."""
        self._pauses.pop(model, None)

    # For the state of the fleet

    @property
    def flights(self) -> Mapping[str, Flight]:
        """The flights, by model."""
        return self._flights

    def waiting(self) -> dict[str, tuple[int, float]]:
        """Return how many requests wait for each model, and since when the oldest does."""
        return {model: (len(each), min(each.values())) for model, each in self._waiting.items()}

    def usual(self, model: str) -> float:
        """Return how many seconds the last load of a model took; 0 if there was none."""
        return self._seconds.get(model, 0.0)

    def pauses(self) -> dict[str, float]:
        """Return the models whose last flight failed, and until when none starts in advance."""
        now = self._clock.monotonic()
        return {model: until for model, until in self._pauses.items() if until > now}

    async def _wait(self, spec: ModelSpec, deadline: float | None) -> None:
        earlier = self._tasks.get(spec.name)
        while self._table.pick(spec.name) is None:
            left = None if deadline is None else deadline - self._clock.monotonic()
            if left is not None and left <= 0:
                raise self._too_late(spec.name)
            flight = self._task(spec)
            # Thousands may wait, so none of them polls. The end of the flight wakes them all.
            up = asyncio.ensure_future(self._table.changed(spec.name))
            try:
                await asyncio.wait({flight, up}, timeout=left, return_when="FIRST_COMPLETED")
            finally:
                up.cancel()
            if flight.done() and not flight.cancelled():
                error = flight.exception()
                stale = flight is earlier and not self._closed
                if error is not None and not stale and self._table.pick(spec.name) is None:
                    # A copy for each: a shared error would collect the frames of all waiters.
                    raise copy.copy(error)

    def _too_late(self, model: str) -> LoadTimeout:
        if self._table.loads(model):
            return LoadTimeout(model)
        flight = self._flights.get(model)
        waits = (flight.waits if flight is not None else "") or Later().why
        return LoadTimeout(model, f"{waits}, retry later")

    def _only_adopted(self, model: str) -> RouteError:
        where = sorted(replica.node.name for replica in self._table.replicas(model))
        nodes = ", ".join(f'"{name}"' for name in where) or "no node"
        why = f"it is not in models.toml, and is held by {nodes}, which takes no requests now"
        return NoCapacity(model, why, 2.0)

    def keep_up(self, spec: ModelSpec) -> None:
        """Start a flight in the background if the model has fewer replicas than wanted."""
        if (
            spec.name not in self._tasks
            and self._pauses.get(spec.name, 0.0) <= self._clock.monotonic()
            and self._table.lacks(spec.name, spec.replicas)
            and not self._closed
        ):
            self._task(spec)

    def overtake(self, spec: ModelSpec, entry: ReplicaEntry) -> float:
        """Load a model elsewhere too if its replica's node has been loading it for too long.

        Returns how many seconds its caller should wait at most before it calls this again.
        """
        now = self._clock.monotonic()
        left = entry.loading_since + self._planner.patience(self.usual(spec.name)) - now
        if left > 0:
            return left
        entry.overdue = True
        self.keep_up(spec)
        return max(self._pauses.get(spec.name, 0.0) - now, 1.0)

    async def keep_current(self, models: Models) -> None:
        """Replace replicas whose options are outdated, and unload retired models, until cancelled.

        Replaces one idle replica of a model at a time, unless the model's last load failed.
        """
        while True:
            await self._clock.sleep(self._settings.replace_interval)
            try:
                for spec in [*models.values()]:
                    await self.replace_outdated(spec)
                for model in [*models.retired]:
                    if await self._retire(model):
                        models.retired.discard(model)
            except RegistryUnavailable:
                continue
            except Exception:  # noqa: BLE001 - the router must not stop replacing
                _log.exception("replacing outdated replicas failed; retrying")

    async def replace_outdated(self, spec: ModelSpec) -> None:
        """Replace one idle replica whose options are outdated, if there is one."""
        if spec.name in self._tasks or self._table.is_failing(spec.name):
            return
        for entry in list(self._table.replicas(spec.name)):
            known = entry.row.options
            if (
                known
                and known != spec.digest
                and not entry.in_flight
                and self._table.can_pick(entry)
            ):
                _log.info("replacing an outdated replica", model=spec.name, node=entry.node.name)
                if await self._evictor.replace(entry, "since its options have changed"):
                    self._task(spec)
                return

    async def _retire(self, model: str) -> bool:
        """Unload the idle replicas of a model; return whether no node holds it or loads it."""
        for entry in list(self._table.replicas(model)):
            if not entry.in_flight and self._table.can_pick(entry):
                await self._evictor.replace(entry, "since models.toml no longer lists it")
        return model not in self._tasks and not any(True for _ in self._table.replicas(model))

    def _task(self, spec: ModelSpec) -> asyncio.Task[None]:
        if self._closed:
            raise RouterStopping
        task = self._tasks.get(spec.name)
        if task is None:
            task = asyncio.create_task(self._fly(spec))
            self._tasks[spec.name] = task
            task.add_done_callback(lambda task: self._landed(spec.name, task))
        return task

    def _landed(self, model: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(model, None)
        if not task.cancelled() and task.exception() is not None:
            pause = getattr(task.exception(), "retry_after", None) or 1.0
            self._pauses[model] = self._clock.monotonic() + pause

    async def _fly(self, spec: ModelSpec) -> None:
        """Load the model until it has the wanted replicas. Raises RouteError if that fails."""
        flight = Flight(spec, self._clock.monotonic())
        self._flights[spec.name] = flight
        try:
            while self._table.lacks(spec.name, spec.replicas):
                choice = self._planner.next_step(
                    flight,
                    waiting=spec.name in self._waiting,
                    usual=self.usual(spec.name),
                )
                if isinstance(choice, Nowhere):
                    if await self._someone_is_back(flight):
                        continue
                    if not self._may_be_unknown(flight):
                        raise failure(flight, choice)
                    await self._pause(flight)
                    continue
                if isinstance(choice, Place) and not self._prober.is_fresh(choice.node):
                    await self._prober.probe_health(choice.node)
                elif isinstance(choice, Later) or not await self._start(flight, choice):
                    await self._pause(flight)
        except RegistryUnavailable:
            if not await self._reloader.reload(spec):
                raise
        finally:
            del self._flights[spec.name]

    async def _someone_is_back(self, flight: Flight) -> bool:
        """Probe the silent nodes that were not probed since the flight began."""
        silent = [
            node
            for node in self._table.nodes.values()
            if node.info.backend == flight.spec.backend
            and not node.reachable
            and node.probed_at < flight.since
        ]
        return any(await asyncio.gather(*map(self._prober.probe_health, silent)))

    def _may_be_unknown(self, flight: Flight) -> bool:
        """Return whether a first node of the backend may have been added, and not been read yet."""
        nodes = self._table.nodes.values()
        read_by = flight.since + 2 * self._settings.poll_interval
        known = any(node.info.backend == flight.spec.backend for node in nodes)
        return not known and self._clock.monotonic() < read_by

    async def _start(self, flight: Flight, choice: Place) -> bool:
        """Claim a load and start it; return False if the registry refuses the claim."""
        spec, victim = flight.spec, choice.victim
        asked_at = self._clock.monotonic()
        claim = await self._registry.claim_load(
            JobRequest(
                choice.node.name,
                spec.name,
                self._registry.router,
                spec.replicas,
                self._settings.load_lease,
                victim.model if victim is not None else "",
                victim.generation if victim is not None else 0,
                [node.name for node in self._table.nodes.values() if not node.open],
                choice.hedges,
            )
        )
        if isinstance(claim, Refusal):
            return False
        load = asyncio.create_task(
            self._runner.run(spec, claim, choice.node, victim, asked_at=asked_at)
        )
        self._loads.add(load)
        flight.loads[load] = choice.node.name
        load.add_done_callback(lambda task: self._ended(flight, task, asked_at))
        return True

    def _ended(self, flight: Flight, task: asyncio.Task[Result], since: float) -> None:
        self._loads.discard(task)
        node = flight.loads.pop(task)
        if task.cancelled():
            return
        if task.exception() is not None:
            _log.error("load failed: internal error", exc_info=task.exception())
            message = "internal error of the router"
            flight.tried[node] = Result(ok=False, message=message, answered=False)
            return
        result, model = task.result(), flight.spec.name
        if result.ok:
            self._seconds[model] = self._clock.monotonic() - since
            entry = self._table.nodes[node].replicas.get(model) if self._has(node) else None
            if entry is not None and entry in self._table.surplus(model, flight.spec.replicas):
                # Both hedged loads succeeded, and this one ended later.
                self._evictor.unload_soon(entry)
        elif result.try_again:
            # The node is not to blame, but the obstacle is probably still there.
            flight.resumes_at = self._clock.monotonic() + result.pause
            if result.loading:
                flight.loading.setdefault(node, self._clock.monotonic())
        else:
            flight.tried[node] = result

    def _has(self, node: str) -> bool:
        return node in self._table.nodes

    async def _pause(self, flight: Flight) -> None:
        """Wait for a change that may let the flight proceed."""
        about = "" if flight.waits else flight.spec.name
        change = asyncio.ensure_future(self._table.changed(about, self._settings.place_retry))
        try:
            await asyncio.wait({change, *flight.loads}, return_when="FIRST_COMPLETED")
        finally:
            change.cancel()

    async def close(self) -> None:
        """Stop the flights and their jobs. Callers that wait get RouterStopping."""
        self._closed = True
        await stop((*self._tasks.values(), *self._loads))
