"""What a flight does next: it loads the model somewhere, waits, or gives up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from grpcerrors_router.errors import LoadFailed, NoCapacity, RouteError
from grpcerrors_router.loads.placement import Later, Nowhere, Place, Terms, place

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping

    from grpcerrors_router.clock import Clock
    from grpcerrors_router.entities import Load, ModelSpec
    from grpcerrors_router.loads.load import Result
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.table import RoutingTable

_HEDGES = 2


@dataclass(eq=False)
class Flight:
    """The effort to bring one model to its wanted replicas.

    `since` is its place in the queue for slots. `tried` are the nodes that failed, and `loads` the
    jobs that run, with their nodes. `loading` are the nodes that refuse it while they load a model
    for someone else, and since when. `waits` says what it waits for before it can start a load.
    """

    spec: ModelSpec
    since: float
    tried: dict[str, Result] = field(default_factory=dict)
    loads: dict[asyncio.Task[Result], str] = field(default_factory=dict)
    loading: dict[str, float] = field(default_factory=dict)
    waits: str = ""
    resumes_at: float = 0.0


class Planner:
    """Plans the next step of each flight, and lets the flights take turns for slots.

    Args:
        table: the nodes and their replicas.
        flights: all flights, by model.
        quarantine: which nodes must not load a model.
        settings: the limits of loads.
        clock: the clock.
    """

    def __init__(
        self,
        table: RoutingTable,
        flights: Mapping[str, Flight],
        quarantine: Quarantine,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._table = table
        self._flights = flights
        self._quarantine = quarantine
        self._settings = settings
        self._clock = clock

    def next_step(self, flight: Flight, *, waiting: bool, usual: float) -> Place | Later | Nowhere:
        """Return what to do now: load the model at a place, wait, or give up.

        Args:
            flight: the flight.
            waiting: whether requests wait for it.
            usual: how many seconds the last load of the model took; 0 if there was none.
        """
        spec, now = flight.spec, self._clock.monotonic()
        live, coming = self._table.live_count(spec.name), self._table.loads(spec.name)
        flight.waits = ""
        overtakes = bool(self._late(flight, self.patience(usual)))
        if now < flight.resumes_at and not overtakes:
            return Later()
        if live + len(coming) >= spec.replicas or self._may_succeed(flight):
            return self._hedge(flight, live, coming, usual) if waiting else Later()
        # A model that already has a live replica evicts nothing for a further one.
        evict = not live and self._may_evict(spec, usual)
        terms = Terms(evict=evict, drain=now - flight.since >= self._settings.drain_after)
        choice: Place | Later | Nowhere | None = None
        if overtakes:
            choice = self._elsewhere(flight, terms, usual)
        if choice is None:
            choice = Later() if now < flight.resumes_at else self._place(flight, terms)
        if isinstance(choice, Nowhere):
            return choice
        flight.waits = (choice if isinstance(choice, Later) else Later()).why
        if isinstance(choice, Later):
            return choice if waiting else Nowhere("every slot is in use", 1.0)
        if self._is_other_turn(flight, choice):
            return Later()
        return replace(choice, hedges=self._overdue(spec))

    def _late(self, flight: Flight, seconds: float) -> set[str]:
        """Return the nodes that have refused the model for that long, since they load one."""
        before = self._clock.monotonic() - seconds
        return {node for node, since in flight.loading.items() if since <= before}

    def _elsewhere(self, flight: Flight, terms: Terms, usual: float) -> Place | None:
        """Return a place on a node that does not load a model for someone else."""
        evict = terms.evict and bool(self._late(flight, self.patience(usual, evict=True)))
        choice = self._place(flight, replace(terms, evict=evict), flight.loading)
        return choice if isinstance(choice, Place) else None

    def patience(self, usual: float, *, evict: bool = False) -> float:
        """Return after how many seconds a load is hedged.

        A node with a free slot is tried after `load_hedge_free`, since callers wait; the slower
        load is unloaded afterwards. If a replica must be evicted, the hedge waits for `load_hedge`.
        Both are at least twice as long as the last load of the model.
        """
        settings = self._settings
        return max(settings.load_hedge if evict else settings.load_hedge_free, 2 * usual)

    def _may_evict(self, spec: ModelSpec, usual: float) -> bool:
        """Return whether overdue replicas, if any, took long enough to evict for them."""
        before = self._clock.monotonic() - self.patience(usual, evict=True)
        return all(entry.loading_since <= before for entry in self._table.overdue(spec.name))

    def _overdue(self, spec: ModelSpec) -> tuple[int, ...]:
        return tuple(entry.generation for entry in self._table.overdue(spec.name))

    def _may_succeed(self, flight: Flight) -> bool:
        """Return whether a running load of the flight may yield a replica that can be picked."""
        nodes = self._table.nodes
        return any(name in nodes and nodes[name].open for name in flight.loads.values())

    def _hedge(self, flight: Flight, live: int, coming: list[Load], usual: float) -> Place | Later:
        """Return a second place for a load that takes unusually long, or Later."""
        if live or not coming or len(coming) > _HEDGES:
            return Later()
        age = self._clock.monotonic() - max(load.started_at for load in coming)
        if age < self.patience(usual):
            return Later()
        choice = self._place(flight, Terms(evict=age >= self.patience(usual, evict=True)))
        if not isinstance(choice, Place):
            return Later()
        slow = [load.generation for load in coming]
        return replace(choice, hedges=(*slow, *self._overdue(flight.spec)))

    def _place(
        self, flight: Flight, terms: Terms, but: Iterable[str] = ()
    ) -> Place | Later | Nowhere:
        return place(
            self._table,
            flight.spec,
            self._clock.monotonic(),
            self._quarantine,
            self._settings,
            terms,
            {*flight.tried, *flight.loads.values(), *but},
        )

    def _is_other_turn(self, flight: Flight, choice: Place) -> bool:
        """Return whether a model that has waited longer could take that node now."""
        for other in self._flights.values():
            if other.waits and other.since < flight.since:
                theirs = self._place(other, Terms())
                if isinstance(theirs, Place) and theirs.node is choice.node:
                    return True
        return False


def failure(flight: Flight, nowhere: Nowhere) -> RouteError:
    """Return the error of a flight that gives up."""
    model, retry_after = flight.spec.name, max(nowhere.retry_after, 0.1)
    # What a node itself answered says more than a connection that failed.
    for node, result in sorted(flight.tried.items(), key=lambda each: not each[1].answered):
        return LoadFailed(
            model, node, result.message, answered=result.answered, retry_after=retry_after
        )
    if nowhere.message:
        return LoadFailed(
            model,
            nowhere.node,
            nowhere.message,
            answered=nowhere.answered,
            retry_after=retry_after,
        )
    return NoCapacity(model, nowhere.why, retry_after)
