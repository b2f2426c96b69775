"""The models, how many replicas each has, and why one is missing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grpcerrors_protocol.fleet_pb2 import ModelState
from grpcerrors_router.loads.placement import has_slot, none_open
from grpcerrors_router.state.recorder import said

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from grpcerrors_protocol.fleet_pb2 import LoadState, PauseState
    from grpcerrors_router.entities import ModelSpec
    from grpcerrors_router.state.recorder import Recorder
    from grpcerrors_router.view.table import RoutingTable


_PER_TURN = 20
"""Models that are described before others may use the event loop."""


@dataclass(slots=True)
class _Nodes:
    """The nodes of one backend: how many there are, and which are open, and which have a slot."""

    total: int = 0
    open: set[str] = field(default_factory=set)
    free: set[str] = field(default_factory=set)
    denying: list[str] = field(default_factory=list)


class Catalogue:
    """Describes the models. It looks at each node and each pause once, and not once per model."""

    def __init__(
        self,
        *,
        table: RoutingTable,
        models: Mapping[str, ModelSpec],
        calls: Mapping[str, int],
        loads: Iterable[LoadState],
        pauses: Iterable[PauseState],
        waiting: Mapping[str, tuple[int, float]],
        recorder: Recorder,
        now: float,
    ) -> None:
        self._table = table
        self._models = models
        self._waiting = waiting
        self._recorder = recorder
        self._backends: dict[str, _Nodes] = defaultdict(_Nodes)
        for entry in table.nodes.values():
            known = self._backends[entry.info.backend]
            known.total += 1
            if entry.denial:
                known.denying.append(entry.name)
            if entry.open:
                known.open.add(entry.name)
                if has_slot(entry, now):
                    known.free.add(entry.name)
        self._calls = calls
        self._loads: dict[str, list[LoadState]] = defaultdict(list)
        for load in loads:
            self._loads[load.model].append(load)
        self._pauses: dict[str, list[PauseState]] = defaultdict(list)
        for pause in pauses:
            if pause.kind in ("quarantine", "back-off"):
                self._pauses[pause.model].append(pause)

    async def models(self) -> list[ModelState]:
        """Return all models, by name."""
        found = []
        for name in sorted({*self._models, *self._table.models()}):
            found.append(self.model(name))
            if len(found) % _PER_TURN == 0:
                await asyncio.sleep(0)  # let others use the event loop
        return found

    def model(self, name: str) -> ModelState:
        """Return the state of one model, known or not."""
        spec = self._models.get(name)
        present, loads = self._table.live_count(name), self._loads.get(name, [])
        wanted = spec.replicas if spec is not None else 0
        return ModelState(
            model=name,
            backend=spec.backend if spec is not None else self._backend(name),
            listed=spec is not None,
            wanted=wanted,
            present=present,
            loading=sum(bool(load.node) for load in loads),
            calls=self._calls.get(name, 0),
            waiting=self._waiting.get(name, (0, 0.0))[0],
            why="" if spec is None or present >= wanted else self._why(spec, present, loads),
        )

    def _backend(self, name: str) -> str:
        return next((entry.node.info.backend for entry in self._table.replicas(name)), "")

    def _why(self, spec: ModelSpec, present: int, loads: Sequence[LoadState]) -> str:
        """Return why a replica is missing, and what happens next."""
        for load in loads:
            if load.node:
                return f"{load.node} is loading it"
            if load.why:
                return load.why
        obstacle = self._obstacle(spec)
        if obstacle:
            return obstacle
        lost = [entry for entry in self._table.replicas(spec.name) if not entry.node.open]
        if lost:
            node = lost[0].node
            what = "draining" if node.info.draining else "unreachable"
            if node.denial:
                what = "not usable: it refuses the router's token"
            past = f"{node.name}, which holds it, is {what}; "
        elif (failed := self._recorder.failure(spec.name)) is not None:
            past = f"{failed.node} failed to load it ({failed.why}); "
        else:
            end = self._recorder.ended(spec.name)
            past = f"{said(end)}; " if end is not None else ""
        holders = {entry.node.name for entry in self._table.replicas(spec.name)}
        if self._backends[spec.backend].free - holders:
            return f"{past}the next request loads it"
        if present:
            return f"{past}every slot is in use, and nothing is evicted for a further replica"
        return f"{past}the next request loads it in place of another model: every slot is in use"

    def _obstacle(self, spec: ModelSpec) -> str:
        """Return why no node can load a model at all; "" if one can."""
        known = self._backends.get(spec.backend)
        if known is None:
            return f'no node offers backend "{spec.backend}"; add one, or correct models.toml'
        if not known.open:
            return none_open(spec.backend, known.total, known.denying)
        holders = {entry.node.name for entry in self._table.replicas(spec.name)}
        kept = {pause.node: pause for pause in self._pauses[spec.name]}
        if not known.open - holders - kept.keys():
            if kept:
                first = min(kept.values(), key=lambda pause: pause.until)
                return f"{first.node}: {first.why}"
            return f"{len(known.open)} of the {spec.replicas} nodes that it needs are there"
        return ""
