"""Brings models up: one flight per model here, one fenced job per node over all routers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from grpcerrors_router.errors import LoadFailed, LoadTimeout, NoCapacity, RouteError
from grpcerrors_router.loads.placement import Nowhere, Place, place
from grpcerrors_router.registry.jobs import Refusal, Wish

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpcerrors_router.clock import Clock
    from grpcerrors_router.entities import ModelSpec
    from grpcerrors_router.loads.job import JobRunner, Result
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.table import RoutingTable

_log = structlog.get_logger("router.load")


class Flights:
    """Single flight: callers wait for the flight, each for its own deadline.

    A flight belongs to nobody: it goes on when the caller who started it has gone.
    """

    def __init__(
        self,
        table: RoutingTable,
        registry: NodeRegistry,
        loading: JobRunner,
        quarantine: Quarantine,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._table = table
        self._registry = registry
        self._runner = loading
        self._quarantine = quarantine
        self._settings = settings
        self._clock = clock
        self._flights: dict[str, asyncio.Task[None]] = {}
        self._pauses: dict[str, float] = {}

    async def wait(self, spec: ModelSpec, deadline: float | None) -> None:
        """Return when a replica of the model can be picked.

        `deadline` is on the monotonic clock. Raises RouteError: why it cannot be had, or
        LoadTimeout when the caller's time is up.
        """
        while self._table.pick(spec.name) is None:
            left = None if deadline is None else deadline - self._clock.monotonic()
            if left is not None and left <= 0:
                raise LoadTimeout(spec.name)
            flight = self._flight(spec)
            # No polling here: thousands may wait. Should a change slip by, the flight's end wakes.
            up = asyncio.ensure_future(self._table.changed(spec.name))
            try:
                await asyncio.wait({flight, up}, timeout=left, return_when="FIRST_COMPLETED")
            finally:
                up.cancel()
            if flight.done() and not flight.cancelled():
                error = flight.exception()
                if error is not None and self._table.pick(spec.name) is None:
                    raise error

    def keep_up(self, spec: ModelSpec) -> None:
        """Start a flight in the background if fewer replicas are up than wanted."""
        if (
            self._table.live_count(spec.name) < spec.replicas
            and spec.name not in self._flights
            and self._pauses.get(spec.name, 0.0) <= self._clock.monotonic()
        ):
            self._flight(spec)

    def _flight(self, spec: ModelSpec) -> asyncio.Task[None]:
        flight = self._flights.get(spec.name)
        if flight is None:
            flight = asyncio.create_task(self._bring_up(spec))
            self._flights[spec.name] = flight
            flight.add_done_callback(lambda task: self._landed(spec.name, task))
        return flight

    def _landed(self, model: str, task: asyncio.Task[None]) -> None:
        self._flights.pop(model, None)
        if not task.cancelled() and task.exception() is not None:
            pause = getattr(task.exception(), "retry_after", None) or 1.0
            self._pauses[model] = self._clock.monotonic() + pause

    async def _bring_up(self, spec: ModelSpec) -> None:
        """Load until as many replicas are up as wanted. Raises RouteError when that fails."""
        tried: dict[str, Result] = {}
        give_up = self._clock.monotonic() + self._settings.place_timeout
        while self._table.live_count(spec.name) < spec.replicas:
            if self._elsewhere(spec):
                await self._table.changed(spec.name, self._settings.place_retry)
                continue
            choice = place(
                self._table,
                spec,
                self._clock.time(),
                self._quarantine,
                tried,
                may_evict=self._table.pick(spec.name) is None,
            )
            if isinstance(choice, Nowhere):
                if tried or not choice.soon or self._clock.monotonic() >= give_up:
                    raise self._failure(spec, tried, choice)
                await self._table.changed(spec.name, self._settings.place_retry)
                continue
            await self._load_at(spec, choice, tried)

    def _elsewhere(self, spec: ModelSpec) -> bool:
        """Whether all that is missing is being loaded already."""
        now = self._clock.time()
        coming = sum(
            load is not None and load.running(now) and load.victim != spec.name
            for load in (node.loads.get(spec.name) for node in self._table.nodes.values())
        )
        return self._table.live_count(spec.name) + coming >= spec.replicas

    async def _load_at(self, spec: ModelSpec, choice: Place, tried: dict[str, Result]) -> None:
        victim = choice.victim
        claim = await self._registry.claim_load(
            Wish(
                choice.node.name,
                spec.name,
                self._registry.router,
                spec.replicas,
                self._settings.load_lease,
                victim.model if victim is not None else "",
                victim.generation if victim is not None else 0,
                [node.name for node in self._table.nodes.values() if not node.open],
            )
        )
        if isinstance(claim, Refusal):
            # The registry knows better, and the table has just learned it.
            await self._table.changed(spec.name, self._settings.place_retry)
            return
        result = await self._runner.run(spec, claim, choice.node, victim)
        if not result.ok and not result.try_again:
            tried[choice.node.name] = result

    def _failure(
        self, spec: ModelSpec, tried: Mapping[str, Result], nowhere: Nowhere
    ) -> RouteError:
        retry_after = max(nowhere.retry_after, 0.1)
        for node, result in tried.items():
            return LoadFailed(
                spec.name, node, result.message, answered=result.answered, retry_after=retry_after
            )
        if nowhere.message:
            return LoadFailed(
                spec.name, nowhere.node, nowhere.message, answered=True, retry_after=retry_after
            )
        return NoCapacity(spec.name, nowhere.why, retry_after)

    async def close(self) -> None:
        """Stop the flights; their jobs' leases run out by themselves."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*flights, return_exceptions=True)
