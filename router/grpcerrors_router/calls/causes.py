"""What words and bare codes have turned out to mean, per replica.

A backend without the contract says "not loaded" in words, or by a code that has other meanings too.
If it has no `Status` to confirm that, the router believes each cause once: it drops the replica and
loads the model again. If the same cause returns right after the reload, it meant something else.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import grpc

    from grpcerrors_router.clock import Clock
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.entries import ReplicaEntry

Cause: TypeAlias = tuple[str, str, str]
"""The method, the code and the wording of an error."""

RECONNECT: Cause = ("", "", "the connection was lost")
"""Has no method: a success of any method cures it."""

REPLICAS_LIMIT = 1024
CAUSES_LIMIT = 16
"""Causes per replica. More would come from texts that callers choose, and are no evidence."""

_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`")
_NUMBER = re.compile(r"\d+")
_WORDING_LIMIT = 200


def cause_of(method: str, code: grpc.StatusCode, text: str) -> Cause:
    """Return the cause of an error: its text without quoted parts and numbers, which vary."""
    wording = _NUMBER.sub("0", _QUOTED.sub('""', text[: 4 * _WORDING_LIMIT].lower()))
    return method, code.name, " ".join(wording.split())[:_WORDING_LIMIT]


@dataclass(slots=True)
class _Record:
    """What is known about one cause, which is no evidence before `until`. Times are monotonic."""

    generation: int = 0
    cured_at: float | None = None
    pause: float = 0.0
    until: float = 0.0
    expires: float = 0.0


@dataclass(slots=True)
class _Replica:
    typed: bool = False
    causes: dict[Cause, _Record] = field(default_factory=dict)


class Belief(Enum):
    """How the router reacts to a cause that nothing can confirm."""

    BELIEVED = "the replica is dropped"
    DOUBTED = "it returned right after a reload, so it is no evidence for a while"
    IGNORED = "it is in doubt already, or the replica has too many causes"


class Causes:
    """Remembers for each replica which causes are evidence.

    A restarted node starts with no history. Beyond `REPLICAS_LIMIT` the least recently used replica
    is forgotten; a cause is forgotten after twice `cause_pause_max` without an occurrence.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._replicas: OrderedDict[tuple[str, str, str], _Replica] = OrderedDict()

    def __len__(self) -> int:
        return len(self._replicas)

    def note_typed(self, entry: ReplicaEntry) -> None:
        """Note that the replica's backend speaks the contract, so its words are no evidence."""
        self._replica(entry).typed = True

    def is_typed(self, entry: ReplicaEntry) -> bool:
        """Return whether the replica's backend has spoken the contract."""
        replica = self._replicas.get(_key(entry))
        return replica is not None and replica.typed

    def note_restart(self, entry: ReplicaEntry) -> None:
        """Note that another backend may now serve at the replica's address."""
        replica = self._replicas.get(_key(entry))
        if replica is not None:
            replica.typed = False

    def is_doubted(self, entry: ReplicaEntry, cause: Cause) -> bool:
        """Return whether the cause is no evidence at present."""
        replica = self._replicas.get(_key(entry))
        record = replica.causes.get(cause) if replica is not None else None
        return record is not None and record.until > self._clock.monotonic()

    def contradicted(self, entry: ReplicaEntry, cause: Cause) -> None:
        """Note that the node's `Status` contradicted the cause: it holds the model."""
        record = self._record(entry, cause)
        if record is not None:
            record.until = self._clock.monotonic() + self._settings.status_fresh

    def believe(self, entry: ReplicaEntry, cause: Cause) -> Belief:
        """Return how to react to a cause that nothing can confirm.

        It is believed once, and again as long as the reload cures it. If it returns right after the
        reload, it is doubted for a pause that doubles each time.
        """
        record = self._record(entry, cause)
        if record is None:
            return Belief.IGNORED
        now = self._clock.monotonic()
        returned = 0 < record.generation < entry.generation and not self._cured(record, now)
        if record.until > now:
            return Belief.IGNORED
        record.generation, record.cured_at = entry.generation, None
        if not returned:
            return Belief.BELIEVED
        longest = self._settings.cause_pause_max
        record.pause = min(max(self._settings.cause_pause, 2 * record.pause), longest)
        record.until = now + record.pause
        return Belief.DOUBTED

    def doubts(self) -> list[tuple[str, str, Cause, float]]:
        """Return the causes that are no evidence now: node, model, cause, and until when."""
        now = self._clock.monotonic()
        return [
            (node, model, cause, record.until)
            for (node, _, model), replica in self._replicas.items()
            for cause, record in replica.causes.items()
            if record.pause and record.until > now
        ]

    def forgive(self, node: str, model: str) -> None:
        """Forget the causes of a model on a node, so that each is evidence again."""
        for name, boot_id, held in [*self._replicas]:
            if (name, held) == (node, model):
                self._replicas[name, boot_id, held].causes.clear()

    def served(self, entry: ReplicaEntry, method: str) -> None:
        """Note a success, which cures the causes of the method that an earlier load had."""
        replica = self._replicas.get(_key(entry)) if self._replicas else None
        if replica is None:
            return
        for cause, record in replica.causes.items():
            if cause[0] in ("", method) and record.generation < entry.generation:
                record.cured_at = record.cured_at or self._clock.monotonic()

    def _cured(self, record: _Record, now: float) -> bool:
        # A success right after the reload proves little: it may be that of a different request.
        return record.cured_at is not None and now - record.cured_at > self._settings.cause_pause

    def _replica(self, entry: ReplicaEntry) -> _Replica:
        key = _key(entry)
        replica = self._replicas.get(key)
        if replica is None:
            replica = self._replicas[key] = _Replica()
            if len(self._replicas) > REPLICAS_LIMIT:
                self._replicas.popitem(last=False)
        else:
            self._replicas.move_to_end(key)
        return replica

    def _record(self, entry: ReplicaEntry, cause: Cause) -> _Record | None:
        """Return the record of a cause, a new one if needed; None if there are too many."""
        causes, now = self._replica(entry).causes, self._clock.monotonic()
        for old in [c for c, record in causes.items() if record.expires < now]:
            del causes[old]
        if cause not in causes and len(causes) >= CAUSES_LIMIT:
            return None
        record = causes.setdefault(cause, _Record())
        record.expires = now + 2 * self._settings.cause_pause_max
        return record


def _key(entry: ReplicaEntry) -> tuple[str, str, str]:
    return entry.node.name, entry.node.info.boot_id, entry.model
