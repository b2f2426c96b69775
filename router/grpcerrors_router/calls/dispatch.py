"""The dispatch of requests to replicas, and what the end of a call says about a node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors_router.calls.status import known_code
from grpcerrors_router.entities import ModelSpec
from grpcerrors_router.errors import LoadTimeout, UnknownModel
from grpcerrors_router.nodes.prober import SILENT, Prober

if TYPE_CHECKING:
    from grpcerrors_router.calls.budget import RetryBudget
    from grpcerrors_router.calls.reconcile import Reconciler
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.config.models import Models
    from grpcerrors_router.events import Events
    from grpcerrors_router.loads.flights import Flights
    from grpcerrors_router.nodes.channels import Channels
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.tracing import Tracing
    from grpcerrors_router.view.entries import ReplicaEntry
    from grpcerrors_router.view.presence import Presence
    from grpcerrors_router.view.table import RoutingTable


_ONE_AT_A_TIME = 0.25
"""Seconds for which the answer of a node that was loading a model is awaited before another try."""


class Attempt:
    """One call on a replica, counted in when it is created and counted out exactly once."""

    __slots__ = ("_dispatcher", "_released", "_since", "entry", "method", "trace_id")

    def __init__(self, dispatcher: Dispatcher, entry: ReplicaEntry) -> None:
        self._dispatcher = dispatcher
        self.entry = entry
        self.method = ""
        self.trace_id = ""
        self._released = False
        self._since = dispatcher.clock.monotonic()
        dispatcher.table.enter(entry)

    def follow(self, call: Any) -> None:
        """Count the call out when it ends, in whatever way."""
        call.add_done_callback(self._ended)

    def _ended(self, call: Any) -> None:
        if not self._released:
            self.release(known_code(call))

    def release(self, code: grpc.StatusCode | None) -> None:
        """Count the call out once. `code` is None for a call that was never made."""
        if self._released:
            return
        self._released = True
        self._dispatcher.table.leave(self.entry)
        if code is not None:
            self._dispatcher.ended(self, code, self._dispatcher.clock.monotonic() - self._since)


class Dispatcher:
    """Picks a replica for each attempt of a request, and notes how the attempt ends.

    Args:
        models: the models that can be loaded, by name.
        table: the replicas to pick from.
        channels: the connections to the nodes.
        flights: loads a model that no node holds.
        prober: finds out which nodes answer.
        presence: knows whether other routers wait for this one before they evict.
        reconciler: corrects the registry after an error.
        budget: limits the retries.
        events: receives the end of each attempt.
        tracing: traces the requests; None if nobody does.
        settings: the limits of calls.
        clock: the clock.
    """

    def __init__(  # noqa: PLR0913 - collaborators
        self,
        *,
        models: Models,
        table: RoutingTable,
        channels: Channels,
        flights: Flights,
        prober: Prober,
        presence: Presence,
        reconciler: Reconciler,
        budget: RetryBudget,
        events: Events,
        tracing: Tracing | None,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self.tracing = tracing
        self._models = models
        self._flights = flights
        self._prober = prober
        self._presence = presence
        self.table = table
        self.channels = channels
        self.reconciler = reconciler
        self.budget = budget
        self.events = events
        self.settings = settings
        self.clock = clock

    async def close(self) -> None:
        """Stop the work that outlives its requests."""
        await self.reconciler.close()
        await self.budget.close()

    async def attempt(self, model: str, deadline: float | None, *, again: bool = False) -> Attempt:
        """Acquire a replica and count a call in. Arguments and errors are those of `acquire`."""
        return Attempt(self, await self.acquire(model, deadline, again=again))

    async def acquire(
        self, model: str, deadline: float | None, *, again: bool = False
    ) -> ReplicaEntry:
        """Return a live replica; load the model first if no node holds it.

        Args:
            model: the routing key.
            deadline: seconds on the monotonic clock; None for no deadline.
            again: whether the request has met a stale replica. If so, the most recently confirmed
                replica is preferred to the least busy one.

        Raises:
            RouteError: UnknownModel, NoCapacity, LoadFailed, LoadTimeout, Overloaded,
                RouterStopping or RegistryUnavailable.
        """
        spec, since = self._models.get(model), None
        if spec is None and model in self._models.retired:
            raise UnknownModel(model, self._models)
        while True:
            entry = self.table.most_recently_confirmed(model) if again else self.table.pick(model)
            if entry is None:
                if spec is None:
                    self._refuse_unknown(model)
                await self._flights.wait(spec or ModelSpec(model, ""), deadline)
            elif entry.loading_until and not self._may_ask(entry):
                since = since or self.clock.monotonic()
                await self._loaded(spec, entry, deadline, since)
            elif await self._answers(entry, deadline) and self.table.can_pick(entry):
                if spec is not None:
                    self._flights.keep_up(spec)
                return entry

    def _may_ask(self, entry: ReplicaEntry) -> bool:
        """Return whether to send a request to a replica whose node was loading its model.

        One request at a time finds out whether it has loaded it; the others wait for its answer.
        """
        now = self.clock.monotonic()
        if entry.loading_until > now:
            return False
        entry.loading_until = now + _ONE_AT_A_TIME
        return True

    async def _loaded(
        self, spec: ModelSpec | None, entry: ReplicaEntry, deadline: float | None, since: float
    ) -> None:
        """Wait until a request, waiting `since`, may be sent to a replica of the model.

        Raises LoadTimeout or Overloaded.
        """
        left = self.remaining(deadline)
        if left is not None and left <= 0:
            raise LoadTimeout(entry.model, f'node "{entry.node.name}" is loading it, retry later')
        pause = max(entry.loading_until - self.clock.monotonic(), 0.0)
        with self._flights.queued(entry.model, since):
            if spec is not None:
                pause = min(pause, self._flights.overtake(spec, entry))
            await self.table.changed(entry.model, pause if left is None else min(pause, left))

    async def _answers(self, entry: ReplicaEntry, deadline: float | None) -> bool:
        """Return whether the node may be picked, after confirming the replica if need be.

        Raises LoadTimeout.
        """
        connection = self._connection(entry)
        if entry.node.losses != connection:
            # Of all the calls that are sent at once, none should find out that the node is gone.
            entry.node.losses = connection
            self._prober.suspect(entry.node)
        fresh, known = self._prober.is_fresh(entry.node), self._knows(entry)
        if fresh and known and self.holds(entry):
            return True
        try:
            async with asyncio.timeout(self.remaining(deadline)):
                if not self.holds(entry):
                    await self._presence.rejoin()
                    if not self.table.can_pick(entry):
                        return False
                if not fresh and not await self._prober.probe_health(entry.node):
                    return False
                if not self._knows(entry):
                    await self.reconciler.confirm(entry, self._connection(entry))
                return True
        except TimeoutError:
            raise LoadTimeout(
                entry.model, f'node "{entry.node.name}" did not answer in that time'
            ) from None

    def holds(self, entry: ReplicaEntry) -> bool:
        """Return whether other routers wait for this one before they evict the replica.

        They do not wait for a router that was paused for longer than its lease. A node that
        registers refuses a request for a model that it lost; a foreign node may answer with another
        model.
        """
        return not entry.node.info.foreign or self._presence.is_counted()

    def _connection(self, entry: ReplicaEntry) -> int:
        return self.channels.losses(entry.node.info)

    def _knows(self, entry: ReplicaEntry) -> bool:
        """Return whether the process that held the replica is known to be still running.

        A node that registers reports a restart itself. A foreign node may come back as another
        process, and the only sign of that is a lost connection.
        """
        if not entry.node.info.foreign:
            return True
        if entry.connection is None:
            entry.connection = self._connection(entry)
        return entry.connection == self._connection(entry)

    def _refuse_unknown(self, model: str) -> None:
        if not any(True for _ in self.table.replicas(model)):
            raise UnknownModel(model, {*self._models, *self.table.models()})

    def remaining(self, deadline: float | None) -> float | None:
        """Return the seconds left until a deadline on the monotonic clock."""
        return None if deadline is None else deadline - self.clock.monotonic()

    def ended(self, attempt: Attempt, code: grpc.StatusCode, seconds: float) -> None:
        """Count an attempt that ended, and note what its end says about the node."""
        entry = attempt.entry
        if code is grpc.StatusCode.UNAVAILABLE:
            self._prober.suspect(entry.node)
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._prober.missed(entry.node)
        elif code is grpc.StatusCode.UNAUTHENTICATED:
            self._prober.denied(entry.node)
        elif code not in SILENT:
            self._prober.heard(entry.node)
        self.events.request(
            entry.model, entry.node.name, attempt.method, code, seconds, attempt.trace_id
        )
