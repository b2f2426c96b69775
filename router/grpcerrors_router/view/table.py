"""The registry in memory: what a router picks from without touching the database.

Everything here runs on the event loop and never waits. Per model, the replicas lie in buckets by
calls in flight, each bucket in order of last use, so that a pick looks at one entry however many
nodes there are.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING

from grpcerrors_router.clock import Clock, SystemClock
from grpcerrors_router.entities import Load, Node, NodeView, Replica, Snapshot, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FEW = 8
_BUSY = 1 << 32


class ReplicaEntry:
    """One load of a model on a node, with the calls that this process and others have on it.

    A later load is another entry: releasing a call on this one never touches the later one.
    `has_served`: it has served a request. `confirmed_at`: when it last proved to be there,
    monotonic. `connection`: how often the node's connection had been lost when the replica was
    known to be there; None before it is first picked.
    """

    __slots__ = (
        "confirmed_at",
        "connection",
        "has_served",
        "in_flight",
        "last_used",
        "live",
        "node",
        "others",
        "row",
    )

    def __init__(self, node: NodeEntry, row: Replica, confirmed_at: float) -> None:
        self.node = node
        self.row = row
        self.in_flight = 0
        self.others = 0
        self.last_used = row.loaded_at
        self.live = True
        self.has_served = False
        self.connection: int | None = None
        self.confirmed_at = confirmed_at

    @property
    def model(self) -> str:
        """The model's name."""
        return self.row.model

    @property
    def generation(self) -> int:
        """The registry's number for this load."""
        return self.row.generation


class NodeEntry:
    """One node, as this router sees it. Times are on the monotonic clock.

    `heard_at` is its last sign of life, `fresh_until` how long that is good for, `probed_at` when
    it was last asked. It is not picked while it is not `reachable`, and picked last while `busy`.
    """

    __slots__ = (
        "busy",
        "fresh_until",
        "heard_at",
        "info",
        "loads",
        "probed_at",
        "reachable",
        "replicas",
        "revision",
    )

    def __init__(self, info: Node, revision: int) -> None:
        self.info = info
        self.revision = revision
        self.replicas: dict[str, ReplicaEntry] = {}
        self.loads: dict[str, Load] = {}
        self.reachable = True
        self.busy = False
        self.fresh_until = 0.0
        self.heard_at = 0.0
        self.probed_at = 0.0

    @property
    def name(self) -> str:
        """The node's name."""
        return self.info.name

    @property
    def open(self) -> bool:
        """Whether requests may go there."""
        return self.reachable and not self.info.draining


class _Buckets:
    """The pickable replicas of one model, by calls in flight, least recently used first."""

    __slots__ = ("by_load", "least", "loads")

    def __init__(self) -> None:
        self.by_load: dict[int, OrderedDict[ReplicaEntry, None]] = {}
        self.loads: dict[ReplicaEntry, int] = {}
        self.least = 0

    def put(self, entry: ReplicaEntry) -> None:
        """Insert, or move to where its load says, as the most recently used there."""
        self.discard(entry)
        load = entry.in_flight + entry.others + entry.node.busy * _BUSY
        bucket = self.by_load.get(load)
        if bucket is None:
            bucket = self.by_load[load] = OrderedDict()
        bucket[entry] = None
        self.loads[entry] = load
        if load < self.least or len(self.loads) == 1:
            self.least = load

    def discard(self, entry: ReplicaEntry) -> None:
        load = self.loads.pop(entry, None)
        if load is None:
            return
        bucket = self.by_load[load]
        del bucket[entry]
        if not bucket:
            del self.by_load[load]
            if load == self.least and self.by_load:
                self.least = min(self.by_load)

    def __iter__(self) -> Iterator[ReplicaEntry]:
        """Best first."""
        first = self.by_load.get(self.least)
        if first:
            yield from first
            for load in sorted(self.by_load):
                if load != self.least:
                    yield from self.by_load[load]


class RoutingTable:
    """Nodes and replicas by name, kept by applying views of the registry in any order."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.nodes: dict[str, NodeEntry] = {}
        self._models: dict[str, _Buckets] = {}
        self._rows: dict[str, dict[str, ReplicaEntry]] = {}
        self._removed: dict[str, int] = {}
        self._dropped: dict[tuple[str, str], int] = {}
        self._busy: set[ReplicaEntry] = set()
        self._touched: set[ReplicaEntry] = set()
        self._shared: set[ReplicaEntry] = set()
        self._waiters: dict[str, set[asyncio.Event]] = {}

    # Following the registry

    def apply(self, view: NodeView) -> bool:
        """Take over a node's state; False when something newer is known (invariant 16)."""
        name = view.name
        entry = self.nodes.get(name)
        known = entry.revision if entry is not None else self._removed.get(name, 0)
        if view.revision < known:
            return False
        if view.node is None:
            self._removed[name] = view.revision
            if entry is not None:
                for replica in list(entry.replicas.values()):
                    self._forget(replica)
                del self.nodes[name]
                self._wake(*entry.loads)
            return True
        if entry is None:
            entry = self.nodes[name] = NodeEntry(view.node, view.revision)
            self._removed.pop(name, None)
        moved = entry.info.address != view.node.address or entry.info.boot_id != view.node.boot_id
        if moved:
            entry.reachable, entry.busy, entry.fresh_until = True, False, 0.0
        entry.info, entry.revision = view.node, view.revision
        finished = entry.loads.keys() - {load.model for load in view.loads}
        entry.loads = {load.model: load for load in view.loads}
        self._apply_replicas(entry, view.replicas)
        self._wake(*finished, *entry.loads)
        return True

    def _apply_replicas(self, node: NodeEntry, rows: Iterable[Replica]) -> None:
        present = set()
        for row in rows:
            # A drop made here that the registry has not been told yet still holds.
            if row.generation <= self._dropped.get((row.node, row.model), 0):
                continue
            present.add(row.model)
            old = node.replicas.get(row.model)
            if old is not None and old.row.generation > row.generation:
                continue
            if old is not None and old.row.generation == row.generation:
                old.row = row
            else:
                if old is not None:
                    self._forget(old)
                new = ReplicaEntry(node, row, self._clock.monotonic())
                node.replicas[row.model] = new
                self._rows.setdefault(row.model, {})[node.name] = new
        for model in node.replicas.keys() - present:
            self._forget(node.replicas[model])
        self._place(node)

    def replace(self, snapshot: Snapshot) -> None:
        """Take over a full listing: what it does not name, and is not newer, is gone."""
        for view in snapshot.nodes:
            self.apply(view)
        listed = {view.name for view in snapshot.nodes}
        for name in self.nodes.keys() - listed:
            self.apply(NodeView(snapshot.revision, name, None))

    def drop(self, entry: ReplicaEntry) -> bool:
        """Forget one load at once; False when it is already gone (invariants 1 and 13)."""
        if not entry.live:
            return False
        self._dropped[entry.node.name, entry.model] = entry.generation
        self._forget(entry)
        return True

    def publish(self, job: Load, boot_id: str) -> None:
        """Take over a finished load that the registry cannot be told of yet."""
        node = self.nodes.get(job.node)
        if node is not None:
            rows = [r.row for r in node.replicas.values() if r.model not in (job.model, job.victim)]
            new = Replica(
                job.node,
                job.model,
                job.generation,
                held=job.generation,
                boot_id=boot_id,
                loaded_at=job.started_at,
            )
            self._apply_replicas(node, [*rows, new])

    def set_state(self, node: NodeEntry, *, reachable: bool, busy: bool) -> None:
        """Say whether a node may be picked, and whether last. Its rows stay (invariant 14)."""
        if (node.reachable, node.busy) != (reachable, busy):
            node.reachable, node.busy = reachable, busy
            self._place(node)

    def set_others(self, usages: Iterable[Usage]) -> None:
        """Take over the counts that other routers have on each load."""
        counts: dict[tuple[str, str, int], tuple[int, float]] = {}
        for usage in usages:
            key = (usage.node, usage.model, usage.generation)
            count, used = counts.get(key, (0, 0.0))
            counts[key] = (count + usage.in_flight, max(used, usage.last_used))
        shared = set()
        for (name, model, generation), (count, used) in counts.items():
            node = self.nodes.get(name)
            entry = node.replicas.get(model) if node is not None else None
            if entry is None or entry.generation != generation:
                continue
            entry.last_used = max(entry.last_used, used)
            self._set_others(entry, count)
            if count:
                shared.add(entry)
        for entry in self._shared - shared:
            self._set_others(entry, 0)
        self._shared = shared

    def _set_others(self, entry: ReplicaEntry, count: int) -> None:
        if count != entry.others:
            entry.others = count
            self._place_one(entry)

    # Picking and counting

    def best(self, model: str) -> Iterable[ReplicaEntry]:
        """The pickable replicas: fewest calls in flight first, then least recently used."""
        return self._models.get(model, ())

    def pick(self, model: str) -> ReplicaEntry | None:
        """The first of `best`."""
        return next(iter(self.best(model)), None)

    def most_recently_confirmed(self, model: str) -> ReplicaEntry | None:
        """Of the best few, the one last known to be there: for a request with one try left."""
        few = itertools.islice(self.best(model), _FEW)
        return max(few, key=lambda entry: entry.confirmed_at, default=None)

    def enter(self, entry: ReplicaEntry) -> None:
        """Count a call in."""
        entry.in_flight += 1
        self._used(entry)
        self._busy.add(entry)

    def leave(self, entry: ReplicaEntry) -> None:
        """Count a call out."""
        entry.in_flight -= 1
        self._used(entry)
        if not entry.in_flight:
            self._busy.discard(entry)

    def _used(self, entry: ReplicaEntry) -> None:
        entry.last_used = self._clock.time()
        self._touched.add(entry)
        if entry.live:
            self._place_one(entry)

    def take_touched(self, *, everything: bool = False) -> list[ReplicaEntry]:
        """The entries whose counts changed since this was last asked; or all that are in use."""
        touched = list(self._touched | self._busy if everything else self._touched)
        self._touched.clear()
        return touched

    def put_back_touched(self, entries: Iterable[ReplicaEntry]) -> None:
        """Say that the counts taken could not be written."""
        self._touched.update(entries)

    def in_flight(self) -> int:
        """Calls of this process at the moment, on live and on forgotten loads."""
        return sum(entry.in_flight for entry in self._busy)

    # Looking

    def addresses(self) -> set[str]:
        """Return the addresses of all nodes, and of calls in flight to nodes that are gone."""
        busy = {entry.node.info.address for entry in self._busy}
        return busy | {node.info.address for node in self.nodes.values()}

    def replicas(self, model: str) -> Iterable[ReplicaEntry]:
        """Every live replica of a model, pickable or not."""
        return self._rows.get(model, {}).values()

    def models(self) -> Iterable[str]:
        """Every model that is loaded somewhere."""
        return self._rows.keys()

    def live_count(self, model: str) -> int:
        """How many replicas of a model can be picked."""
        buckets = self._models.get(model)
        return len(buckets.loads) if buckets is not None else 0

    async def changed(self, model: str, timeout: float | None = None) -> None:
        """Wait until something about a model changes, at most `timeout` seconds."""
        event = asyncio.Event()
        waiters = self._waiters.setdefault(model, set())
        waiters.add(event)
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            waiters.discard(event)
            if not waiters:
                self._waiters.pop(model, None)

    def _wake(self, *models: str) -> None:
        for model in models:
            for event in self._waiters.get(model, ()):
                event.set()

    # Keeping the index

    def _place(self, node: NodeEntry) -> None:
        for entry in node.replicas.values():
            self._place_one(entry)

    def _place_one(self, entry: ReplicaEntry) -> None:
        buckets = self._models.get(entry.row.model)
        if entry.live and entry.node.open and not entry.row.evicting:
            if buckets is None:
                buckets = self._models[entry.row.model] = _Buckets()
            fresh = entry not in buckets.loads
            buckets.put(entry)
            if fresh:
                self._wake(entry.row.model)
        elif buckets is not None:
            buckets.discard(entry)
            if not buckets.loads:
                del self._models[entry.row.model]

    def _forget(self, entry: ReplicaEntry) -> None:
        entry.live = False
        node, model = entry.node, entry.model
        if node.replicas.get(model) is entry:
            del node.replicas[model]
        rows = self._rows.get(model, {})
        if rows.get(node.name) is entry:
            del rows[node.name]
            if not rows:
                del self._rows[model]
        self._place_one(entry)
        self._wake(model)
