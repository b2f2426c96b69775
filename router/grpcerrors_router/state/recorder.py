"""What a router remembers for people: refusals, the histories of models, and how heals went on.

The routing table says what is so now. Only what it cannot say is kept here, and not much of it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from grpcerrors_router.events import Events

if TYPE_CHECKING:
    from collections.abc import Hashable

    from grpcerrors_router.clock import Clock
    from grpcerrors_router.errors import RouteError
    from grpcerrors_router.view.entries import ReplicaEntry
    from grpcerrors_router.view.table import RoutingTable

MODELS_LIMIT = 500
"""Models with a history."""

HAPPENINGS_LIMIT = 50
"""Entries in the history of one model."""

HEALS_LIMIT = 500
REFUSALS_LIMIT = 200
LOADS_LIMIT = 1000
TEXT_LIMIT = 400
"""Characters of a text that is kept."""

PAUSE = 60.0
"""Seconds without a refusal after which the next one counts as a new beginning."""

WINDOW = 5
"""Minutes over which refusals are counted."""

_K = TypeVar("_K", bound="Hashable")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Happening:
    """An entry in the history of a model. `at` is on the monotonic clock; see `HistoryEntry`."""

    at: float
    kind: str
    node: str
    generation: int
    why: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Recovery:
    """Which request met a stale replica, and how it was answered, if it was."""

    request_id: str = ""
    seconds: float = 0.0
    node: str = ""
    generation: int = 0


@dataclass(slots=True)
class Refusal:
    """The refusals for one reason: the last one, and how many in each minute.

    `node` refused or is concerned; it is "" if there is none.
    """

    reason: str
    model: str
    node: str
    since: float = 0.0
    last: float = 0.0
    text: str = ""
    minutes: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, now: float, text: str) -> None:
        """Count a refusal."""
        minute, count = int(now // 60), 0
        if self.minutes and self.minutes[-1][0] == minute:
            _, count = self.minutes.pop()
        self.minutes.append((minute, count + 1))
        if not self.last or now - self.last > PAUSE:
            self.since = now
        self.last, self.text = now, text

    def count(self, now: float) -> int:
        """Return how many there were in the last minutes."""
        return sum(count for minute, count in self.minutes if minute > now // 60 - WINDOW)


class Recorder(Events):
    """Remembers events, within the limits above: the oldest are forgotten first.

    Attributes:
        registry_since: when the registry went up or down, on the monotonic clock.
        registry_error: why it is down; "" while it is up.
    """

    def __init__(self, table: RoutingTable, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._histories: OrderedDict[str, deque[Happening]] = OrderedDict()
        self._recoveries: OrderedDict[tuple[str, str, int], Recovery] = OrderedDict()
        self._refusals: OrderedDict[tuple[str, str, str], Refusal] = OrderedDict()
        self._causes: OrderedDict[tuple[str, str, int], str] = OrderedDict()
        self.registry_since = clock.monotonic()
        self.registry_error = ""

    # What it remembers

    def history(self, model: str) -> list[Happening]:
        """Return what happened to a model, oldest first."""
        return [*self._histories.get(model, ())]

    def latest(self, kind: str) -> list[tuple[str, Happening]]:
        """Return all entries of one kind with their models, oldest first."""
        found = [
            (model, each) for model, past in self._histories.items() for each in past
            if each.kind == kind
        ]  # fmt: skip
        return sorted(found, key=lambda pair: pair[1].at)

    def ended(self, model: str) -> Happening | None:
        """Return how the last replica of a model ended, unless it was loaded since."""
        for each in reversed(self._histories.get(model, ())):
            if each.kind in ("loaded", "moved"):
                return None
            if each.kind != "failed":
                return each
        return None

    def failure(self, model: str) -> Happening | None:
        """Return the last load of a model, if it failed and nothing has happened since."""
        past = self._histories.get(model)
        return past[-1] if past and past[-1].kind == "failed" else None

    def recovery(self, node: str, model: str, generation: int) -> Recovery | None:
        """Return how the request that met a stale replica was answered; None if unknown."""
        return self._recoveries.get((node, model, generation))

    def refusals(self) -> list[tuple[Refusal, int]]:
        """Return the refusals of the last minutes and their count, newest first."""
        now = self._clock.monotonic()
        found = [(each, each.count(now)) for each in self._refusals.values()]
        return sorted((each for each in found if each[1]), key=lambda each: -each[0].last)

    # Events

    def refused(self, model: str, error: RouteError) -> None:
        """Count a refusal."""
        node = error.about.get("node") or error.about.get("name", "")
        self._refuse(error.reason, model, node, error.details() or "")

    def exhausted(self, model: str, node: str, text: str) -> None:
        """Count a refusal by a node that has too many calls."""
        self._refuse("RESOURCE_EXHAUSTED", model, node, text)

    def _refuse(self, reason: str, model: str, node: str, text: str) -> None:
        key = (reason, model, node)
        known = self._refusals.get(key) or Refusal(*key)
        known.add(self._clock.monotonic(), _cut(text))
        _keep(self._refusals, key, known, REFUSALS_LIMIT)

    def heartbeat_refused(self, node: str, error: RouteError) -> None:  # noqa: ARG002
        """Count a refusal."""
        self.refused("", error)

    def heal(self, model: str, node: str, generation: int, evidence: str, request_id: str) -> None:
        """Remember a heal."""
        self._add(model, "healed", node, generation, evidence)
        self._recovery(node, model, generation).request_id = _cut(request_id)

    def recovered(
        self,
        model: str,
        node: str,
        generation: int,
        seconds: float,
        new_node: str,
        new_generation: int,
    ) -> None:
        """Remember how long a request took longer because of a stale replica."""
        known = self._recovery(node, model, generation)
        if not known.node:  # of the requests that met the replica, the first one
            known.seconds, known.node, known.generation = seconds, new_node, new_generation

    def _recovery(self, node: str, model: str, generation: int) -> Recovery:
        key = (node, model, generation)
        known = self._recoveries.get(key) or Recovery()
        _keep(self._recoveries, key, known, HEALS_LIMIT)
        return known

    def restarted(self, model: str, node: str, generation: int) -> None:
        """Remember that a replica was lost in a restart."""
        self._add(model, "restarted", node, generation, "its node restarted")

    def evicted(self, model: str, node: str, generation: int, why: str) -> None:
        """Remember an unload."""
        self._add(model, "evicted", node, generation, why)

    def load_started(self, model: str, node: str, generation: int) -> None:
        """Find out why the model is loaded, while that can be seen."""
        _keep(self._causes, (model, node, generation), self._cause(model, generation), LOADS_LIMIT)

    def load_finished(
        self,
        model: str,
        node: str,
        generation: int,
        seconds: float,
        error: str,
        *,
        postponed: bool = False,
    ) -> None:
        """Remember a load, unless it was put off, since another one follows."""
        cause = self._causes.pop((model, node, generation), "")
        if postponed:
            return
        if error:
            self._add(model, "failed", node, generation, error, seconds)
            return
        before = self._last_load(model)
        if before is None or before.node == node or self._serves(before.node, model):
            self._add(model, "loaded", node, generation, cause, seconds)
        else:
            cause = f"it was on {before.node} before: {cause}"
            self._add(model, "moved", node, generation, cause, seconds)

    def registry_down(self, error: str) -> None:
        """Remember when and why the registry went down."""
        self.registry_since, self.registry_error = self._clock.monotonic(), _cut(error)

    def registry_up(self, applied: int) -> None:  # noqa: ARG002
        """Remember when the registry came back."""
        self.registry_since, self.registry_error = self._clock.monotonic(), ""

    # Why a model is loaded

    def _cause(self, model: str, generation: int) -> str:
        now = self._clock.monotonic()
        live = 0
        for entry in self._table.replicas(model):
            if entry.generation == generation:
                continue
            obstacle = _obstacle(entry, now)
            if obstacle:
                return f"{entry.node.name}, which holds it, {obstacle}"
            live += 1
        if live:
            return f"more than {live} replica{'s' * (live > 1)} of it are wanted"
        slow = [job for job in self._table.loads(model) if job.generation != generation]
        if slow:
            return f"the load on {slow[0].node} takes long"
        end = self.ended(model)
        if end is not None:
            return said(end)
        before = self._last_load(model)
        if before is not None and before.node not in self._table.nodes:
            return f"{before.node}, which held it, left the fleet"
        return "it was asked for, and no node held it"

    def _last_load(self, model: str) -> Happening | None:
        past = reversed(self._histories.get(model, ()))
        return next((each for each in past if each.kind in ("loaded", "moved")), None)

    def _serves(self, node: str, model: str) -> bool:
        found = self._table.nodes.get(node)
        return found is not None and found.open and model in found.replicas

    def _add(
        self, model: str, kind: str, node: str, generation: int, why: str, seconds: float = 0.0
    ) -> None:
        past = self._histories.get(model) or deque(maxlen=HAPPENINGS_LIMIT)
        past.append(Happening(self._clock.monotonic(), kind, node, generation, _cut(why), seconds))
        _keep(self._histories, model, past, MODELS_LIMIT)


def said(end: Happening) -> str:
    """Return in words how a replica ended."""
    if end.kind == "healed":
        return f"{end.node} no longer held it (evidence: {end.why})"
    if end.kind == "evicted":
        return f"it was unloaded from {end.node} {end.why}"
    return f"{end.node}, which held it, restarted"


def _obstacle(entry: ReplicaEntry, now: float) -> str:
    """Return why requests cannot use a replica; "" if they can."""
    node = entry.node
    if not node.reachable:
        return "is unreachable"
    if node.denial:
        return "refuses the router's token"
    if node.info.draining:
        return "is draining"
    if entry.overdue:
        return "takes long to load it for someone else"
    return "" if entry.pickable(now) else "is giving it up"


def _keep(kept: OrderedDict[_K, _V], key: _K, value: _V, limit: int) -> None:
    """Set a value, as the newest one, and forget the oldest beyond the limit."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > limit:
        kept.popitem(last=False)


def _cut(text: str) -> str:
    """Return a text from a node or a caller, without control characters, and not too long."""
    plain = "".join(each if each.isprintable() else " " for each in text[: TEXT_LIMIT + 1])
    return f"{plain[:TEXT_LIMIT]}…" if len(plain) > TEXT_LIMIT else plain
