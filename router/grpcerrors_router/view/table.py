"""The routing table: the registry in memory, from which a router picks replicas.

Everything runs on the event loop, and only `changed` waits. All times are on this process's
monotonic clock: the registry's times are converted when a view is applied, so that the clocks of
routers and database need not agree.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from grpcerrors_router.clock import Clock, SystemClock
from grpcerrors_router.entities import Load, NodeView, Replica, Snapshot
from grpcerrors_router.view.entries import NodeEntry, ReplicaEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_FEW = 8
_KEPT_REMOVED = 1000
_ANY = ""
_BUSY = 1 << 32
_NONE: dict[str, ReplicaEntry] = {}


class RoutingTable:
    """Nodes and replicas by name, kept by applying views of the registry in any order."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.nodes: dict[str, NodeEntry] = {}
        self._rows: dict[str, dict[str, ReplicaEntry]] = {}
        self._removed: OrderedDict[str, int] = OrderedDict()
        self._dropped: dict[tuple[str, str], ReplicaEntry] = {}
        self._busy: set[ReplicaEntry] = set()
        self._touched: set[ReplicaEntry] = set()
        self._waiters: dict[str, set[asyncio.Event]] = {}

    # Following the registry

    def apply(self, view: NodeView) -> bool:
        """Apply a node's state; return False if a newer one is known (invariant 16)."""
        name = view.name
        entry = self.nodes.get(name)
        known = entry.revision if entry is not None else self._removed.get(name, 0)
        if view.revision < known:
            return False
        if view.node is None:
            self._remove(name, view.revision)
            return True
        if entry is None:
            entry = NodeEntry(view.node, view.revision, self._clock.monotonic())
            self.nodes[name] = entry
            self._removed.pop(name, None)
        moved = entry.info.address != view.node.address or entry.info.boot_id != view.node.boot_id
        if moved:
            entry.reachable, entry.busy, entry.fresh_until = True, False, 0.0
        if moved or entry.info.token != view.node.token:
            entry.denial, entry.fresh_until = "", 0.0
        if moved or entry.info.draining != view.node.draining:
            entry.changed_at = self._clock.monotonic()
        entry.info, entry.revision = view.node, view.revision
        shift = self._clock.monotonic() - view.now
        finished = entry.loads.keys() - {load.model for load in view.loads}
        entry.loads = {load.model: _shifted(load, shift) for load in view.loads}
        for model in [m for n, m in self._dropped if n == name]:
            # Once the registry has removed the replica, the drop needs no marker.
            rows = [row.generation for row in view.replicas if row.model == model]
            if self._dropped[name, model].generation not in rows:
                del self._dropped[name, model]
        self._apply_replicas(entry, view.replicas, shift)
        self._note_evictions(entry, view)
        self._wake(*finished, *entry.loads, *entry.replicas)
        return True

    def _remove(self, name: str, revision: int) -> None:
        self._removed[name] = revision
        self._removed.move_to_end(name)
        while len(self._removed) > _KEPT_REMOVED:
            self._removed.popitem(last=False)
        entry = self.nodes.pop(name, None)
        if entry is not None:
            for replica in list(entry.replicas.values()):
                self._forget(replica)
            self._wake(*entry.loads)
        for model in [m for n, m in self._dropped if n == name]:
            del self._dropped[name, model]

    def _apply_replicas(self, node: NodeEntry, rows: Iterable[Replica], shift: float) -> None:
        now = self._clock.monotonic()
        present = set()
        for row in rows:
            # The registry does not know of this drop yet.
            dropped = self._dropped.get((row.node, row.model))
            if dropped is not None and row.generation <= dropped.generation:
                continue
            present.add(row.model)
            old = node.replicas.get(row.model)
            if old is not None and old.row.generation > row.generation:
                continue
            here = replace(row, loaded_at=row.loaded_at + shift, last_used=row.last_used + shift)
            if old is not None and old.row.generation == row.generation:
                old.row = here
            else:
                if old is not None:
                    self._forget(old)
                old = node.replicas[row.model] = ReplicaEntry(node, here, now)
                self._rows.setdefault(row.model, {})[node.name] = old
            old.last_used = max(old.last_used, here.last_used)
        for model in node.replicas.keys() - present:
            self._forget(node.replicas[model])

    @staticmethod
    def _note_evictions(node: NodeEntry, view: NodeView) -> None:
        """Note which replicas were being evicted when the registry was read.

        Later, a job may have been renewed, and its node asked.
        """
        for entry in node.replicas.values():
            entry.evicted_by, entry.evicting_until = 0, 0.0
        for load in view.loads:
            victim = node.replicas.get(load.victim)
            if victim is None or not load.takes(victim.row):
                continue
            if load.running(view.now) or (load.asked and node.info.foreign):
                victim.evicted_by = load.generation
                victim.evicting_until = node.loads[load.model].lease_until

    def replace(self, snapshot: Snapshot) -> None:
        """Apply a full listing: older nodes that it does not contain are removed."""
        for view in snapshot.nodes:
            self.apply(view)
        listed = {view.name for view in snapshot.nodes}
        for name in self.nodes.keys() - listed:
            self.apply(NodeView(snapshot.revision, name, None))

    def drop(self, entry: ReplicaEntry) -> bool:
        """Remove a replica at once; return False if it is already gone (invariants 1 and 13)."""
        if not entry.live:
            return False
        self._dropped[entry.node.name, entry.model] = entry
        self._forget(entry)
        return True

    def dropped(self, model: str) -> list[ReplicaEntry]:
        """Return the replicas of a model that were dropped, but not yet in the registry."""
        return [entry for entry in self._dropped.values() if entry.model == model]

    def revive(self, entry: ReplicaEntry, options: str) -> bool:
        """Add a dropped replica again, loaded anew as the same generation.

        Returns False if the registry has removed it meanwhile.
        """
        node, key = self.nodes.get(entry.node.name), (entry.node.name, entry.model)
        if node is None or self._dropped.get(key) is not entry:
            return False
        del self._dropped[key]
        now = self._clock.monotonic()
        again = replace(entry.row, loaded_at=now, last_used=now, options=options)
        self._apply_replicas(node, [*(r.row for r in node.replicas.values()), again], 0.0)
        self._wake(entry.model)
        return True

    def holds(self, node: str, model: str, generation: int) -> bool:
        """Return whether a replica is live."""
        entry = self._rows.get(model, _NONE).get(node)
        return entry is not None and entry.generation == generation

    def publish(self, job: Load, boot_id: str) -> None:
        """Add the replica of a finished load that cannot be written to the registry yet."""
        node = self.nodes.get(job.node)
        if node is not None:
            rows = [r.row for r in node.replicas.values() if r.model not in (job.model, job.victim)]
            now = self._clock.monotonic()
            new = Replica(
                job.node, job.model, job.generation, job.generation, boot_id, now, last_used=now
            )
            self._apply_replicas(node, [*rows, new], 0.0)
            self._wake(job.model, job.victim)

    def set_state(self, node: NodeEntry, *, reachable: bool, busy: bool) -> None:
        """Set whether a node may be picked, and whether last. Its replicas stay (invariant 14)."""
        if (node.reachable, node.busy) != (reachable, busy):
            node.reachable, node.busy = reachable, busy
            node.changed_at = self._clock.monotonic()
            self._wake(*node.replicas)

    def set_denial(self, node: NodeEntry, denial: str) -> None:
        """Set why a node refuses the router's own calls; "" if it does not."""
        if node.denial != denial:
            node.denial = denial
            node.changed_at = self._clock.monotonic()
            self._wake(*node.replicas)

    def note_loading(self, entry: ReplicaEntry, until: float) -> None:
        """Note until when the node of a replica is loading its model; 0 if it has served."""
        entry.loading_until = until
        entry.loading_since = (entry.loading_since or self._clock.monotonic()) if until else 0.0
        entry.overdue = entry.overdue and bool(until)
        self._wake(entry.model)

    def report(self, node: NodeEntry, in_flight: Mapping[str, int]) -> None:
        """Note which models a node reports, and how many calls for each."""
        now = self._clock.monotonic()
        for model, entry in node.replicas.items():
            if model in in_flight:
                entry.listed_at = now
            count = in_flight.get(model, 0)
            if count != entry.reported:
                entry.reported = count
                self._touched.add(entry)

    # Picking and counting

    def pick(self, model: str) -> ReplicaEntry | None:
        """Return a replica on an idle node with the fewest calls, the least recently used of those.

        One whose node is loading the model comes last. It is a plain loop, since each request
        executes it.
        """
        now = self._clock.monotonic()
        best, least = None, 0
        for entry in self._rows.get(model, _NONE).values():
            node = entry.node
            late = node.busy or entry.loading_until > now
            load = entry.in_flight + _BUSY if late else entry.in_flight
            if (
                best is None or load < least or (load == least and entry.last_used < best.last_used)
            ) and entry.pickable(now):
                best, least = entry, load
        return best

    def _pickable(self, model: str) -> Iterator[ReplicaEntry]:
        entries = self._rows.get(model)
        if not entries:
            return iter(())
        now = self._clock.monotonic()
        return (entry for entry in entries.values() if entry.pickable(now))

    def _serving(self, model: str) -> Iterator[ReplicaEntry]:
        return (entry for entry in self._pickable(model) if not entry.overdue)

    def overdue(self, model: str) -> list[ReplicaEntry]:
        """Return the replicas of a model whose nodes have been loading it for too long."""
        return [entry for entry in self._pickable(model) if entry.overdue]

    def most_recently_confirmed(self, model: str) -> ReplicaEntry | None:
        """Return the most recently confirmed of the best few replicas, for a retry."""
        now = self._clock.monotonic()
        ready = [entry for entry in self._pickable(model) if entry.loading_until <= now]
        few = sorted(ready, key=_load)[:_FEW]
        if not few:
            return self.pick(model)
        return max(few, key=lambda entry: entry.confirmed_at)

    def can_pick(self, entry: ReplicaEntry) -> bool:
        """Return whether requests may be sent to the replica now."""
        return entry.pickable(self._clock.monotonic())

    def enter(self, entry: ReplicaEntry) -> None:
        """Count a call in on a replica."""
        entry.in_flight += 1
        self._busy.add(entry)
        self._used(entry)

    def leave(self, entry: ReplicaEntry) -> None:
        """Count a call out on a replica."""
        entry.in_flight -= 1
        self._used(entry)
        if not entry.in_flight:
            self._busy.discard(entry)
            self._wake()

    def _used(self, entry: ReplicaEntry) -> None:
        entry.last_used = self._clock.monotonic()
        self._touched.add(entry)

    def take_touched(self) -> list[ReplicaEntry]:
        """Return the live replicas that were used since the last call of this method."""
        touched = [entry for entry in self._touched if entry.live]
        self._touched.clear()
        return touched

    def in_flight(self) -> int:
        """Return the number of calls in flight from this router, on any replica."""
        return sum(entry.in_flight for entry in self._busy)

    def clear_of(self, revision: int) -> int:
        """Return the latest revision, up to `revision`, that this router may acknowledge.

        Replicas whose eviction had begun by then have no calls in flight here.
        """
        waited_for = [e.evicted_by for e in self._busy if e.live and e.evicted_by]
        return min([revision, *(job - 1 for job in waited_for)])

    # Looking

    def addresses(self) -> set[str]:
        """Return the addresses of all nodes, and of removed nodes with calls in flight."""
        busy = {entry.node.info.address for entry in self._busy}
        return busy | {node.info.address for node in self.nodes.values()}

    def replicas(self, model: str) -> Iterable[ReplicaEntry]:
        """Return every live replica of a model, pickable or not."""
        return self._rows.get(model, {}).values()

    def models(self) -> Iterable[str]:
        """Return every model that some node holds."""
        return self._rows.keys()

    def busy(self) -> Iterable[ReplicaEntry]:
        """Return the replicas, live or not, with calls in flight from this router."""
        return self._busy

    def live_count(self, model: str) -> int:
        """Return how many replicas of a model can be picked, and are not overdue."""
        return sum(1 for _ in self._serving(model))

    def lacks(self, model: str, wanted: int) -> bool:
        """Return whether `live_count` is less than `wanted`."""
        found = itertools.islice(self._serving(model), wanted)
        return sum(1 for _ in found) < wanted

    def surplus(self, model: str, wanted: int) -> list[ReplicaEntry]:
        """Return the replicas in `live_count` beyond `wanted`, the oldest `wanted` left out."""
        order = sorted(
            self._serving(model), key=lambda entry: (entry.row.loaded_at, entry.generation)
        )
        return order[wanted:]

    def loads(self, model: str) -> list[Load]:
        """Return the running loads of a model, on nodes to which requests may be sent."""
        now = self._clock.monotonic()
        found = (node.loads.get(model) for node in self.nodes.values() if node.open)
        return [job for job in found if job and job.running(now) and job.victim != model]

    def is_failing(self, model: str) -> bool:
        """Return whether the last load of a model failed on some node."""
        found = (node.loads.get(model) for node in self.nodes.values())
        return any(job is not None and job.state == "failed" for job in found)

    async def changed(self, model: str = _ANY, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds for a change that concerns a model.

        Without a model, any change counts, and so does a replica that becomes idle.
        """
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
        if self._waiters:
            for model in (_ANY, *models):
                for event in self._waiters.get(model, ()):
                    event.set()

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
        self._touched.discard(entry)
        self._wake(model)


def _load(entry: ReplicaEntry) -> tuple[bool, int, float]:
    return entry.node.busy, entry.in_flight, entry.last_used


def _shifted(load: Load, shift: float) -> Load:
    return replace(
        load,
        started_at=load.started_at + shift,
        lease_until=load.lease_until + shift,
        retry_at=load.retry_at + shift,
    )
