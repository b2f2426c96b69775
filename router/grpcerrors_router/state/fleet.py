"""The builder of the fleet's state, for the command line, the page and the Operator service."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING

from grpcerrors_protocol import fleet_pb2 as pb
from grpcerrors_router.entities import Heal, Vitals
from grpcerrors_router.errors import RegistryUnavailable, UnknownModel
from grpcerrors_router.state.catalogue import Catalogue
from grpcerrors_router.state.loads import load_states
from grpcerrors_router.state.nodes import Moment, node_state
from grpcerrors_router.state.pauses import pause_states
from grpcerrors_router.state.picture import Picture
from grpcerrors_router.state.problems import problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from grpcerrors_router.calls.causes import Causes
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.entities import ModelSpec
    from grpcerrors_router.loads.flights import Flights
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.nodes.prober import Prober
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.state.recorder import Recorder
    from grpcerrors_router.view.entries import ReplicaEntry
    from grpcerrors_router.view.outbox import Outbox
    from grpcerrors_router.view.table import RoutingTable
    from grpcerrors_router.view.watcher import Watcher

LATEST_HEALS = 20
"""Heals in the state of the fleet."""

_PER_TURN = 25
"""Nodes whose replicas are added before others may use the event loop."""

_TROUBLED = 20
"""Nodes with problems whose replicas are always in the state, since the problems name them."""

LIMIT = 50
"""Entries of the heal log or of a history, unless the caller names another number."""

_PATIENCE = 1.0
"""Seconds to wait for the registry. Without it, the state is what this router knows by itself."""


class FleetBuilder:
    """Builds the messages of `fleet.proto` from what the parts of a router know.

    It keeps nothing. Its methods must be called on the router's event loop.
    """

    def __init__(  # noqa: PLR0913 - the parts of a router
        self,
        *,
        table: RoutingTable,
        registry: NodeRegistry,
        watcher: Watcher,
        outbox: Outbox,
        flights: Flights,
        quarantine: Quarantine,
        causes: Causes,
        prober: Prober,
        recorder: Recorder,
        models: Mapping[str, ModelSpec],
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._table = table
        self._registry = registry
        self._watcher = watcher
        self._outbox = outbox
        self._flights = flights
        self._quarantine = quarantine
        self._causes = causes
        self._prober = prober
        self._recorder = recorder
        self._models = models
        self._settings = settings
        self._clock = clock

    async def fleet(self) -> pb.FleetState:
        """Return the state of the fleet."""
        picture = await self.picture()
        for number, node in enumerate(picture.fleet.nodes):
            if not node.replicas:
                node.replicas.extend(picture.replicas(node))
            if number % _PER_TURN == 0:
                await asyncio.sleep(0)  # let others use the event loop
        return picture.fleet

    async def picture(self) -> Picture:
        """Return the state of the fleet without most replicas, and what returns them."""
        await self._prober.look()
        moment = await self._moment()
        by_node, by_model = Counter[str](), Counter[str]()
        for entry, calls in moment.calls.items():
            by_node[entry.node.name] += calls
            by_model[entry.model] += calls
        nodes = [
            node_state(self._table.nodes[name], moment, by_node[name])
            for name in sorted(self._table.nodes)
        ]
        loads, pauses = self._loads(moment), self.pauses()
        fleet = pb.FleetState(
            now=moment.unix(moment.now),
            router=self._registry.router,
            in_flight=self._table.in_flight(),
            registry=self._registry_state(moment),
            routers=[
                pb.RouterState(
                    name=router.name,
                    expires_at=router.expires_at,
                    seen_revision=router.seen_revision,
                )
                for router in moment.vitals.routers
            ],
            nodes=nodes,
            models=await self._catalogue(by_model, loads, pauses).models(),
            loads=loads,
            pauses=pauses,
            refusals=[
                pb.RefusalState(
                    reason=refusal.reason,
                    model=refusal.model,
                    count=count,
                    last=moment.unix(refusal.last),
                    text=refusal.text,
                    node=refusal.node,
                    since=moment.unix(refusal.since),
                )
                for refusal, count in self._recorder.refusals()
            ],
            heals=[self._heal(heal) for heal in moment.vitals.heals],
        )
        picture = Picture(fleet, self._table, moment)
        troubled = (node for node in fleet.nodes if node.state != "up")
        for node in itertools.islice(troubled, _TROUBLED):
            node.replicas.extend(picture.replicas(node))
        fleet.problems.extend(problems(fleet))
        return picture

    def monotonic(self) -> float:
        """Return the time on the clock of the other times here that are not Unix seconds."""
        return self._clock.monotonic()

    def waiting(self) -> dict[str, tuple[int, float]]:
        """Return how many requests wait for each model, and since when the oldest does."""
        return self._flights.waiting()

    def quarantined(self) -> list[tuple[str, str, float, int]]:
        """Return the nodes and models that are kept apart, until when, and after how many drops."""
        return self._quarantine.cases()

    async def heals(self, limit: int, model: str = "", node: str = "") -> pb.ListHealsReply:
        """Return the heal log, newest first. Raises RegistryUnavailable."""
        found = await self._registry.heals(limit, model=model, node=node)
        return pb.ListHealsReply(now=self.now(), heals=map(self._heal, found))

    async def models(self) -> pb.ListModelsReply:
        """Return the models of models.toml, and the other models that nodes hold."""
        state = (await self.picture()).fleet
        return pb.ListModelsReply(now=state.now, models=state.models)

    async def history(self, model: str, limit: int) -> pb.GetHistoryReply:
        """Return what happened to a model, newest first.

        Raises:
            UnknownModel: neither models.toml nor any node nor the history knows it.
        """
        past = self._recorder.history(model)
        known = {*self._models, *self._table.models()}
        try:
            async with asyncio.timeout(_PATIENCE):
                heals = await self._registry.heals(limit, model=model)
        except (TimeoutError, RegistryUnavailable):
            heals = [heal for heal in self._remembered_heals() if heal.model == model]
        if model not in known and not past and not heals:
            raise UnknownModel(model, known)
        offset = self._watcher.offset
        entries = [
            pb.HistoryEntry(
                at=each.at + offset,
                kind=each.kind,
                node=each.node,
                generation=each.generation,
                why=each.why,
                seconds=each.seconds,
            )
            for each in past
            if each.kind != "healed"
        ]
        entries += map(_healed, heals)
        entries += self._loaded_before(model, {each.generation for each in past})
        entries.sort(key=lambda each: (each.at, each.generation), reverse=True)
        models = (await self.picture()).fleet.models
        (state,) = [each for each in models if each.model == model] or [pb.ModelState(model=model)]
        return pb.GetHistoryReply(now=self.now(), state=state, entries=entries[:limit])

    def _loaded_before(self, model: str, known: set[int]) -> Iterator[pb.HistoryEntry]:
        """Yield the replicas of which the recorder does not know the load."""
        for entry in self._table.replicas(model):
            if entry.generation not in known:
                yield pb.HistoryEntry(
                    at=entry.row.loaded_at + self._watcher.offset,
                    kind="loaded",
                    node=entry.node.name,
                    generation=entry.generation,
                    why="by another router, by the node itself, or before this router started",
                )

    def now(self) -> float:
        """Return the time by the registry's clock, in Unix seconds."""
        return self._clock.monotonic() + self._watcher.offset

    async def _moment(self) -> Moment:
        vitals = None
        if not self._outbox.down:
            try:
                async with asyncio.timeout(_PATIENCE):
                    vitals = await self._registry.vitals(LATEST_HEALS)
            except (TimeoutError, RegistryUnavailable):
                pass
        if vitals is None:
            vitals = Vitals(self.now(), heals=tuple(self._remembered_heals())[:LATEST_HEALS])
        return Moment(
            self._clock.monotonic(),
            self._watcher.offset,
            self._settings.fresh_for,
            self._models,
            vitals,
            self._calls(vitals),
        )

    def _calls(self, vitals: Vitals) -> dict[ReplicaEntry, int]:
        """Return the calls in flight on each replica that has some, those of other routers too."""
        calls = {entry: entry.in_flight for entry in self._table.busy() if entry.live}
        others = {generation: count for generation, (count, _) in vitals.uses.items() if count}
        if len(vitals.routers) > 1 and others:
            for node in self._table.nodes.values():
                for entry in node.replicas.values():
                    count = others.get(entry.generation, 0)
                    if count > calls.get(entry, 0):
                        calls[entry] = count
        return calls

    def _remembered_heals(self) -> list[Heal]:
        """Return the heals of this router that it remembers, newest first."""
        return [
            Heal(
                each.at + self._watcher.offset,
                each.node,
                model,
                each.generation,
                each.why,
                "dropped",
                self._registry.router,
            )
            for model, each in reversed(self._recorder.latest("healed"))
        ]

    def _heal(self, heal: Heal) -> pb.Heal:
        recovery = self._recorder.recovery(heal.node, heal.model, heal.generation)
        return pb.Heal(
            at=heal.at,
            node=heal.node,
            model=heal.model,
            generation=heal.generation,
            evidence=heal.evidence,
            action=heal.action,
            router=heal.router,
            seconds=recovery.seconds if recovery else 0.0,
            request_id=recovery.request_id if recovery else "",
            new_node=recovery.node if recovery else "",
            new_generation=recovery.generation if recovery else 0,
        )

    def _registry_state(self, moment: Moment) -> pb.RegistryState:
        down = self._outbox.down
        return pb.RegistryState(
            kind="postgresql" if self._registry.store.is_postgres else "sqlite",
            up=not down,
            since=moment.unix(self._recorder.registry_since),
            read_at=moment.unix(self._watcher.read_at),
            revision=self._watcher.seen,
            waiting_changes=len(self._outbox),
            error=self._recorder.registry_error if down else "",
        )

    def _catalogue(
        self,
        calls: Mapping[str, int],
        loads: Sequence[pb.LoadState],
        pauses: Sequence[pb.PauseState],
    ) -> Catalogue:
        return Catalogue(
            table=self._table,
            models=self._models,
            calls=calls,
            loads=loads,
            pauses=pauses,
            waiting=self._flights.waiting(),
            recorder=self._recorder,
            now=self._clock.monotonic(),
        )

    # Loads and pauses

    def _loads(self, moment: Moment) -> list[pb.LoadState]:
        router = self._registry.router
        return load_states(self._table, self._flights, self._models, router, moment)

    def pauses(self) -> list[pb.PauseState]:
        """Return the quarantines, back-offs and other pauses; those that end first come first."""
        return pause_states(
            self._table,
            self._quarantine,
            self._causes,
            self._flights,
            self._clock.monotonic(),
            self._watcher.offset,
        )


def _healed(heal: Heal) -> pb.HistoryEntry:
    kinds = {
        "kept": "was kept in spite of the evidence",
        "reloaded": "was loaded again without the registry",
    }
    what = kinds.get(heal.action, "was dropped")
    return pb.HistoryEntry(
        at=heal.at,
        kind="healed",
        node=heal.node,
        generation=heal.generation,
        why=f"it {what} (evidence: {heal.evidence})",
    )
